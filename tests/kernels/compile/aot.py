"""Compile an op's kernels for sm_90 without a GPU, exactly as its launcher would.

    python -m tests.kernels.compile.aot     reads op names, one a line; answers each with one line:
                                            a JSON list of facts, or an error message

How: `calibration.measure.ahead`. The Triton that compiles is the first on PYTHONPATH.
"""

import json
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import triton

from calibration.gpu_day.parts import parts
from calibration.gpu_day.sizes import RealSizes
from calibration.measure.ahead import compile_kernels
from calibration.measure.measurement import Point, config_text
from kernels import load
from tests.kernels.compile.routing import draw_once


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


@cache
def measured() -> list[Point]:
    """Return what a GPU day measures of ours with what `choose` picks, each once."""
    sizes = RealSizes()
    points = [point for part in parts().values() for point in part.points(sizes)]
    chosen = [point for point in points if point.provider == "moesim" and not point.config]
    return list({point.key: point for point in chosen}.values())


def points(op: str) -> Iterator[Point]:
    """Yield an op's own shapes, the first and the last also in every configuration, then those of a
    GPU day.
    """
    module = load(op)
    for config in getattr(module, "CONFIGS", ()):
        for shape in (module.SHAPES[0], module.SHAPES[-1]):
            yield Point(op, shape, config=config_text(config))
    for shape in module.SHAPES:
        yield Point(op, shape)
    yield from (point for point in measured() if point.kernel == op)


def compile_op(op: str) -> Iterator[dict[str, Any]]:
    """Compile what `launch` launches at every point; yield facts of each distinct kernel."""
    seen = set()
    for point in points(op):
        for name, kernel in compile_kernels(point):
            if kernel.hash not in seen:
                seen.add(kernel.hash)
                told = {"shape": point.shape, "config": point.config, "held_sms": point.held_sms}
                yield {**told, **facts(name, kernel)}


def answer(op: str) -> str:
    """Return the line that answers one op."""
    try:
        return json.dumps(list(compile_op(op)))
    except Exception:
        return json.dumps(traceback.format_exc())


if __name__ == "__main__":
    draw_once()
    for line in sys.stdin:
        sys.stdout.write(answer(line.strip()) + "\n")
        sys.stdout.flush()
