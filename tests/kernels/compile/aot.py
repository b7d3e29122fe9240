"""Compile an op's kernels for sm_90 without a GPU, exactly as its launcher would.

    python -m tests.kernels.compile.aot     reads op names, one a line; answers each with one line:
                                            a JSON list of facts, or an error message

How: `calibration.ahead`.
"""

import json
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton

from calibration.ahead import compiling
from kernels import load


def facts(name: str, kernel: Any) -> dict[str, Any]:
    """Return registers, stack bytes (spills), shared memory, rows of a warpgroup product, and
    instruction counts of a kernel.
    """
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
    products = re.findall(r"warp_group_dot .* -> tensor<(\d+)x", kernel.asm["ttgir"])
    return {
        "kernel": name,
        "registers": int(used["REG"]),
        "stack_bytes": int(used["STACK"]),
        "shared_bytes": int(kernel.metadata.shared),
        "warps": int(kernel.metadata.num_warps),
        "product_rows": sorted({int(rows) for rows in products}),
        "wgmma": ptx.count("wgmma.mma_async"),
        "mma": ptx.count("mma.sync"),
        "tma": ptx.count("cp.async.bulk.tensor"),
        "triton": triton.__version__,
    }


def compile_op(op: str) -> Iterator[dict[str, Any]]:
    """Compile what `launch` launches for every shape; for first and last, every configuration."""
    module = load(op)
    seen = set()
    for number, shape in enumerate(module.SHAPES):
        with compiling():  # the inputs of a backward pass come from the forward kernel
            args = module.inputs(shape, torch.device("meta"))
        ends = number in (0, len(module.SHAPES) - 1)
        for config in (None, *(getattr(module, "CONFIGS", ()) if ends else ())):
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
