"""Compile an op's kernels for sm_90 without a GPU, exactly as its launcher would.

    python -m tests.kernels.compile.aot     reads op names, one a line; answers each with one line:
                                            a JSON list of facts, or an error message

The launcher runs on `meta` tensors under a driver that names an sm_90 target and launches nothing,
so that signature, alignment attributes, constants and options are the launcher's own.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

from kernels import _device, load

TARGET = GPUTarget("cuda", 90, 32)
SMS = 132  # of an H100, H800 or H200: configurations are chosen for it


class OfflineDriver:
    """What a launch asks of the driver before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0


@contextlib.contextmanager
def compiling() -> Iterator[list[tuple[str, Any]]]:
    """Turn launches into compilations; yields (kernel name, compiled kernel) of each."""
    compiled: list[tuple[str, Any]] = []
    run = jit.JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        compiled.append((self.__name__, kernel))
        return kernel

    driver.set_active(OfflineDriver())
    jit.JITFunction.run = compile_only
    sms, _device.OFF_GPU_SMS = _device.OFF_GPU_SMS, SMS
    try:
        yield compiled
    finally:
        jit.JITFunction.run = run
        _device.OFF_GPU_SMS = sms


def facts(name: str, kernel: Any) -> dict[str, Any]:
    """Return registers, stack bytes (spills), shared memory and instruction counts of a kernel."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [str(tools / "cuobjdump"), "-res-usage", file.name],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    used = dict(part.split(":", 1) for part in usage.split() if part.startswith(("REG:", "STACK:")))
    ptx = kernel.asm["ptx"]
    return {
        "kernel": name,
        "registers": int(used["REG"]),
        "stack_bytes": int(used["STACK"]),
        "shared_bytes": int(kernel.metadata.shared),
        "warps": int(kernel.metadata.num_warps),
        "wgmma": ptx.count("wgmma.mma_async"),
        "mma": ptx.count("mma.sync"),
        "tma": ptx.count("cp.async.bulk.tensor"),
        "triton": triton.__version__,
    }


def compile_op(op: str) -> Iterator[dict[str, Any]]:
    """Compile what `launch` launches for every shape; for the first, every configuration."""
    module = load(op)
    seen = set()
    for number, shape in enumerate(module.SHAPES):
        with compiling():  # the inputs of a backward pass come from the forward kernel
            args = module.inputs(shape, torch.device("meta"))
        for config in (None, *(() if number else getattr(module, "CONFIGS", ()))):
            with compiling() as compiled:
                module.launch(**args, **({} if config is None else {"config": config}))
            for name, kernel in compiled:
                if kernel.hash not in seen:
                    seen.add(kernel.hash)
                    yield {"shape": shape, "config": str(config), **facts(name, kernel)}


def answer(op: str) -> str:
    """Return the line that answers one op."""
    try:
        return json.dumps(list(compile_op(op)))
    except Exception:
        return json.dumps(traceback.format_exc())


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(answer(line.strip()) + "\n")
        sys.stdout.flush()
