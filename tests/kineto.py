"""Small traces in the form in which PyTorch's profiler writes those of CUDA."""

import json
from pathlib import Path
from typing import Any

STREAM, NCCL_STREAM = 7, 20
DEVICE = {"id": 0, "name": "NVIDIA H100 80GB HBM3", "numSms": 132}


class Kineto:
    """Events of one process, launched one after another: times in microseconds."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = [
            {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": "python"}},
            {"ph": "X", "cat": "Trace", "name": "PyTorch Profiler (0)", "ts": 0, "dur": 9,
             "pid": "Spans", "tid": "PyTorch Profiler", "args": {"Op count": 0}},
            {"ph": "X", "cat": "python_function", "name": "train.py(7): step", "pid": 1, "tid": 1,
             "ts": 0, "dur": 9, "args": {"Python id": 1}},
        ]  # fmt: skip
        self.count = 0

    def event(self, cat: str, name: str, ts: float, dur: float, tid: int, **args: Any) -> None:
        self.events.append(
            {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur,
             "args": args}
        )  # fmt: skip

    def span(self, name: str, ts: float, dur: float) -> None:
        """Add a range of the host."""
        self.event("user_annotation", name, ts, dur, 1)

    def kernel(
        self, name: str, ts: float, dur: float, stream: int = STREAM, cat: str = "kernel",
        op: str = "aten::op", sizes: list[list[int]] | None = None, kind: str = "c10::BFloat16",
        **more: Any,
    ) -> None:  # fmt: skip
        """Add an op of the host, its launch, the arrow between them and the kernel."""
        self.count += 1
        number, launched = self.count, ts - 5
        shapes = {} if sizes is None else {
            "Input Dims": sizes,
            "Input type": [kind] * len(sizes),
            "Concrete Inputs": [""] * len(sizes),
        }  # fmt: skip
        self.event("cpu_op", op, launched - 1, 3, 1, **{"External id": number, **shapes})
        self.event("cuda_runtime", "cudaLaunchKernel", launched, 1, 1,
                   **{"External id": number, "correlation": 1000 + number})  # fmt: skip
        flow = {"cat": "ac2g", "name": "ac2g", "id": 1000 + number, "pid": 1}
        self.events.append({"ph": "s", "tid": 1, "ts": launched, **flow})
        self.events.append({"ph": "f", "tid": stream, "ts": ts, "bp": "e", **flow})
        arguments = {"External id": number, "correlation": 1000 + number, "stream": stream,
                     "device": 0, "grid": [132, 1, 1], "block": [128, 1, 1], **more}  # fmt: skip
        if cat != "kernel":
            arguments.pop("grid")
        self.event(cat, name, ts, dur, stream, **arguments)

    def document(self) -> dict[str, Any]:
        return {"schemaVersion": 1, "deviceProperties": [DEVICE], "traceEvents": self.events}

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(self.document()), encoding="utf-8")
        return path


def training_step() -> Kineto:
    """Two layers of a step: products with shapes, attention, norms, a copy and collectives."""
    trace = Kineto()
    trace.span("ProfilerStep#1", 0, 500)
    for layer in range(2):
        at = 100.0 + 200 * layer
        trace.span("layer", at - 50, 90)
        trace.kernel("rmsnorm_fwd_tuned_kernel", at, 10)
        sizes = [[4096, 1024], [1024, 2048 * (layer + 1)]]
        trace.kernel("nvjet_tst_128x256", at + 12, 40, op="aten::mm", sizes=sizes)
        trace.kernel("flash_fwd_kernel", at + 54, 30)
        trace.kernel("ncclDevKernel_SendRecv", at + 20, 50, NCCL_STREAM)
        trace.event("gpu_user_annotation", "nccl:all_to_all", at + 20, 50, NCCL_STREAM)
        trace.kernel("xyzzy_kernel", at + 90, 5)
    trace.kernel("Memcpy DtoH (Device -> Pageable)", 460, 3, cat="gpu_memcpy")
    return trace
