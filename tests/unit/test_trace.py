"""Reading profiler traces: what is taken from a good one, and how a bad one is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from calibration.read.dualpipe_trace import BLOCKS, label
from calibration.read.torch_trace import (
    TraceKernel,
    launch_gap_s,
    overlap_s,
    read_torch_trace,
    read_trace,
)
from calibration.read.trace_events import HostOp
from hwmodels.errors import CalibrationError


def span(name: str, start: float, length: float) -> dict[str, Any]:
    return {"ph": "X", "cat": "user_annotation", "name": name, "ts": start, "dur": length}


def launch(correlation: int, at: float) -> dict[str, Any]:
    args = {"correlation": correlation}
    return {"ph": "X", "cat": "cuda_runtime", "name": "launch", "ts": at, "dur": 1, "args": args}


def kernel(correlation: int, start: float, length: float, **changes: Any) -> dict[str, Any]:
    args = {"correlation": correlation, "stream": 7, "grid": [112, 1, 1]}
    event = {"ph": "X", "cat": "kernel", "name": "gemm", "ts": start, "dur": length, "args": args}
    return event | changes


GOOD: list[dict[str, Any]] = [
    span("step", 0, 1000),
    span("attn(F)", 10, 20),
    span("attn(F)", 40, 20),
    launch(1, 15),
    launch(2, 45),
    launch(3, 70),
    kernel(2, 130, 5),
    kernel(1, 100, 28),
    kernel(3, 160, 4, cat="gpu_memset"),
    {"ph": "M", "name": "process_name"},
]


def write(path: Path, events: object) -> Path:
    path.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    return path


def test_kernels_carry_the_range_that_launched_them(tmp_path: Path) -> None:
    first, second, memset = read_trace(write(tmp_path / "t.json", GOOD))
    assert (first.annotation, first.occurrence) == ("attn(F)", 0)
    assert (second.annotation, second.occurrence) == ("attn(F)", 1)
    assert (memset.annotation, memset.kind) == ("step", "memset")
    assert first.start_s == 0
    assert second.start_s == pytest.approx(30e-6)
    assert first.end_s == pytest.approx(28e-6)
    assert first.grid == (112, 1, 1)


def test_gzip_is_read_like_plain_json(tmp_path: Path) -> None:
    packed = tmp_path / "t.json.gz"
    packed.write_bytes(gzip.compress(json.dumps({"traceEvents": GOOD}).encode()))
    assert read_trace(packed) == read_trace(write(tmp_path / "t.json", GOOD))


def test_gaps_between_kernels_leave_waits_out(tmp_path: Path) -> None:
    kernels = read_trace(write(tmp_path / "t.json", GOOD))
    assert launch_gap_s(kernels, 7) == pytest.approx(2e-6)
    with pytest.raises(CalibrationError, match="stream 8"):
        launch_gap_s(kernels, 8)


def test_overlap_is_the_time_shared(tmp_path: Path) -> None:
    first, second, _ = read_trace(write(tmp_path / "t.json", GOOD))
    around = TraceKernel("dispatch", "kernel", 27, 20e-6, 12e-6, 0.0, (), "", 0)
    assert overlap_s(first, [around]) == pytest.approx(8e-6)
    assert overlap_s(second, [around]) == pytest.approx(2e-6)
    assert overlap_s(first, []) == 0


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (kernel(9, 0, 1, ts=10**400), "ts: expected a number, got 1"),
        (kernel(1, 0, 1, ts=-1e300), "ts: expected a number, got -1e+300"),
        (kernel(1, 0, -1), "dur: expected 0 or more microseconds, got -1"),
        (kernel(1, 0, 1, ts="soon"), "ts: expected a number, got 'soon'"),
        (kernel(1, 0, 1, ts=float("nan")), "ts: expected a number, got nan"),
        (kernel(1, 0, 1, ts=True), "ts: expected a number, got True"),
        (kernel(1, 0, 1, name=None), "name: expected a name, got None"),
        (kernel(1, 0, 1, args=None), "args: expected a table, got None"),
        (kernel(1, 0, 1, args={"correlation": 1}), "stream: expected a number, got None"),
        (
            kernel(1, 0, 1, args={"correlation": 1, "stream": 7, "grid": [0]}),
            "grid: expected block counts",
        ),
    ],
)
def test_a_broken_kernel_is_refused_in_one_line(
    tmp_path: Path, event: object, message: str
) -> None:
    with pytest.raises(CalibrationError) as caught:
        read_trace(write(tmp_path / "t.json", [launch(1, 0), event]))
    assert message in str(caught.value)
    assert "t.json: event 1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON, or cut off"),
        (json.dumps({"traceEvents": GOOD}).encode()[:-40], "cut off: after 8 events"),
        (gzip.compress(json.dumps({"traceEvents": GOOD}).encode())[:-20], "a broken archive"),
        (b"\x1f\x8b not gzip at all", "a broken archive"),
        (b"\xff\xfe\x00 no text", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"traceEvents": 3}', "no list of events"),
        (b'{"traceEvents": [1, 2]}', "no list of events under 'traceEvents': event 0 is 1"),
        (b'{"traceEvents": []}', "no GPU kernel"),
        (b"{}", "no list of events"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=message) as caught:
        read_trace(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="expected a profiler trace, got nothing there"):
        read_trace(tmp_path / "nowhere.json")


def test_a_kernel_whose_launch_is_not_there_starts_with_its_launch(tmp_path: Path) -> None:
    trace = read_torch_trace(write(tmp_path / "t.json", [*GOOD, kernel(9, 45, 3)]))
    _, early, *_ = trace.kernels
    assert trace.unlaunched == 1
    assert early.launched_s == early.start_s == 0
    assert (early.annotation, early.occurrence) == ("attn(F)", 1)  # what is around its start


def test_a_kernel_has_the_shapes_of_the_op_that_launched_it(tmp_path: Path) -> None:
    sizes = {"Input Dims": [[8, 4], [4, 16], []], "Input type": ["float", "float", "Scalar"]}
    op = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "tid": 5, "ts": 14, "dur": 4}
    events = [*GOOD, op | {"args": {"External id": 3, **sizes}}, op | {"args": {}}]
    of_kernel = kernel(1, 200, 1)
    of_kernel["args"] = of_kernel["args"] | {"External id": 3}
    of_launch = launch(2, 45)
    of_launch["args"] = of_launch["args"] | {"External id": 3}
    trace = read_torch_trace(write(tmp_path / "t.json", [*events, of_kernel, of_launch]))
    mm = HostOp("aten::mm", ((8, 4), (4, 16), ()), ("float", "float", "Scalar"), ())
    assert [kernel.op for kernel in trace.kernels] == [None, mm, mm, None]
    assert trace.ops == {mm: 1}
    assert trace.threads["5"].ops == 2
    assert trace.threads["5"].shaped == 1


def test_a_collective_is_what_pytorch_calls_it(tmp_path: Path) -> None:
    around = {"ph": "X", "cat": "gpu_user_annotation", "name": "nccl:all_to_all", "tid": 7}
    told = kernel(1, 200, 1)
    told["args"] = told["args"] | {"Collective name": "allreduce"}
    events = [*GOOD, around | {"ts": 99, "dur": 30}, told]
    names = [kernel.collective for kernel in read_trace(write(tmp_path / "t.json", events))]
    assert names == ["all_to_all", "allreduce", "", ""]


def test_what_the_file_says_of_the_machine_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    gpu = {"id": 0, "name": "NVIDIA H200", "numSms": 132}
    run = {"backend": "nccl", "rank": 3, "world_size": 16}
    document = {"traceEvents": GOOD, "deviceProperties": [gpu], "distributedInfo": run}
    path.write_text(json.dumps(document), encoding="utf-8")
    trace = read_torch_trace(path)
    assert (trace.device, trace.sms, trace.ranks) == ("NVIDIA H200", 132, 16)
    assert trace.annotations == {"step": 1, "attn(F)": 2}
    path.write_text(json.dumps(document | {"deviceProperties": [3], "distributedInfo": 4}))
    assert read_torch_trace(path).sms is None


def layer_kernels() -> list[TraceKernel]:
    """One layer with exactly the kernels the table expects, 10 us each, one after another."""
    kernels: list[TraceKernel] = []
    for phase, runs in BLOCKS.items():
        for _, pattern, count in runs:
            for _ in range(count):
                start_s = 10e-6 * len(kernels)
                name = f"void {pattern}anything"
                kernels.append(
                    TraceKernel(name, "kernel", 7, start_s, 10e-6, start_s, (100,), phase, 0)
                )
    return kernels


def test_every_kernel_of_a_layer_gets_an_op() -> None:
    kernels = layer_kernels()
    ops = label(kernels)
    assert sum(op.kernels for op in ops) == len(kernels)
    assert sum(op.time_s for op in ops) == pytest.approx(10e-6 * len(kernels))
    assert {op.rows for op in ops} == {1600}  # 100 blocks of 16 rows


def test_a_kernel_out_of_place_is_not_guessed_at() -> None:
    kernels = layer_kernels()
    kernels[3], kernels[4] = kernels[4], kernels[3]
    with pytest.raises(CalibrationError, match=r"attn\(F\) of layer 0: kernel 3: expected"):
        label(kernels)


def test_a_missing_kernel_is_an_error() -> None:
    with pytest.raises(CalibrationError, match=r"attn\(F\) of layer 0: expected 69 kernels"):
        label(layer_kernels()[1:])


def test_an_unknown_block_is_an_error() -> None:
    stray = TraceKernel("memcpy", "memcpy", 7, 0.0, 1e-6, 0.0, (), "somewhere", 0)
    with pytest.raises(CalibrationError, match="somewhere of layer 0: unknown block"):
        label([*layer_kernels(), stray])
