"""Probe: what the tensor cores give when nothing else is asked of the SM, per number format.

    C[p] = steps * A B^T      one 128 x 256 tile per program, A and B resident in shared memory

A (128, depth), B (256, depth) in bf16 or fp8 e4m3 with depth of 512 bytes, so that a step is
sixteen matrix instructions between two waits; C (programs, 128, 256) fp32. Operands are random:
zeros draw less power and run faster. FP8 sums stay in the tensor core, with no promotion: this is
the ceiling, not a product one would train with. The core keeps about 14 bits of them, so that after
thousands of steps little of the true sum is left: what is checked is a sum of two (`CHECKED`).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import FP8, check, interpreting
from kernels._numerics import normal, operand

FORMAT = "tensor_rate"
ROWS, COLS, DEPTH_BYTES = 128, 256, 512
FORMATS = {"bf16": torch.bfloat16, "fp8": FP8}

SHAPES = (
    {"format": "bf16", "programs": 132, "steps": 1024},
    {"format": "fp8", "programs": 132, "steps": 1024},
)
CHECKED = tuple(shape | {"steps": 2} for shape in SHAPES)
TINY = {"format": "fp8", "programs": 1, "steps": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Warps of a program."""

    warps: int = 8


@triton.jit
def _tensor_rate_kernel(
    a_ptr, b_ptr, c_ptr, steps,
    ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    rows, cols, depth = tl.arange(0, ROWS), tl.arange(0, COLS), tl.arange(0, DEPTH)
    a = operand(tl.load(a_ptr + rows[:, None] * DEPTH + depth[None, :]), UPCAST)
    b = operand(tl.load(b_ptr + cols[:, None] * DEPTH + depth[None, :]), UPCAST)
    total = tl.zeros((ROWS, COLS), tl.float32)
    for _ in tl.range(0, steps, num_stages=1):
        total = tl.dot(a, b.T, total)
    at = tl.program_id(0) * ROWS * COLS + rows[:, None] * COLS + cols[None, :]
    tl.store(c_ptr + at, total)


def launch(
    a: Tensor,
    b: Tensor,
    programs: int,
    steps: int,
    *,
    out: Tensor | None = None,
    config: Config | None = None,
) -> Tensor:
    """Return C; `programs` programs run `steps` products each.

    Raises:
        ValueError: operands of another shape or format.
    """
    depth = DEPTH_BYTES // a.element_size()
    check("a", a, (ROWS, depth), *FORMATS.values())
    check("b", b, (COLS, depth), a.dtype)
    c = (
        torch.empty(programs, ROWS, COLS, dtype=torch.float32, device=a.device)
        if out is None
        else out
    )
    check("out", c, (programs, ROWS, COLS), torch.float32)
    cfg = config or Config()
    _tensor_rate_kernel[(programs,)](
        a,
        b,
        c,
        steps,
        ROWS=ROWS,
        COLS=COLS,
        DEPTH=depth,
        UPCAST=interpreting(),
        num_warps=cfg.warps,
    )
    return c


def reference(a: Tensor, b: Tensor, programs: int, steps: int) -> Tensor:
    """Return C in float64."""
    return (steps * (a.double() @ b.double().T)).expand(programs, ROWS, COLS)


def inputs(shape: dict, device: torch.device | str, seed: int = 0) -> dict:
    """Return random operands; small values, so that thousands of steps do not overflow."""
    dtype = FORMATS[shape["format"]]
    depth = DEPTH_BYTES // dtype.itemsize
    a, b = normal((ROWS, depth), device, seed), normal((COLS, depth), device, seed + 1)
    return {
        "a": a.to(dtype),
        "b": b.to(dtype),
        "programs": shape["programs"],
        "steps": shape["steps"],
    }


def work(shape: dict) -> tuple[float, float]:
    """Return FLOPs, and no bytes worth the name: only C leaves the SM."""
    depth = DEPTH_BYTES // FORMATS[shape["format"]].itemsize
    flops = 2.0 * ROWS * COLS * depth * shape["steps"] * shape["programs"]
    return flops, 4.0 * ROWS * COLS * shape["programs"]


PROVIDERS = {"moesim": launch}
