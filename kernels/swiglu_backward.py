"""Gradient of SwiGLU, from the kept input.

    s = 1 / (1 + exp(-g));   dG = dY u s (1 + g (1 - s));   dU = dY g s

H (rows, 2 width) bf16, gates then up-projections; dY (rows, width) bf16 -> dH (rows, 2 width) bf16.
The output of the forward pass is not kept: it is recomputed from H where it is needed (DeepSeek-V3
§3.2.3), and with `y` given this kernel writes it in the same pass.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import ceil_div, check, check_rank, interpreting, measured
from kernels._numerics import normal, to_bf16

FORMAT = "bf16"

SHAPES = (
    {"rows": 32768, "width": 2048, "recompute": 1},
    {"rows": 4096, "width": 2048, "recompute": 1},
    {"rows": 4096, "width": 18432, "recompute": 1},
    {"rows": 1037, "width": 1416, "recompute": 0},
)
TINY = {"rows": 3, "width": 136, "recompute": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Rows and columns per program, and its warps."""

    rows: int = 4
    cols: int = 512
    warps: int = 4


CONFIGS = (Config(), Config(rows=8), Config(rows=8, cols=256))
CLASSES = {"rows": (2048,)}


@measured(Config, CLASSES)
def choose(rows: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def _swiglu_backward_kernel(
    h_ptr, dy_ptr, dh_ptr, y_ptr, rows_end, width, h_stride, dy_stride, dh_stride, y_stride,
    RECOMPUTE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    mask = (rows < rows_end)[:, None] & (cols < width)[None, :]
    at, across = rows.to(tl.int64)[:, None], cols[None, :]
    h_ptrs, dh_ptrs = h_ptr + at * h_stride + across, dh_ptr + at * dh_stride + across
    gate = tl.load(h_ptrs, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(h_ptrs + width, mask=mask, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + at * dy_stride + across, mask=mask, other=0.0).to(tl.float32)
    gated = 1.0 / (1.0 + tl.exp(-gate))
    silu = gate * gated
    tl.store(dh_ptrs, to_bf16(dy * up * (gated + silu * (1.0 - gated)), UPCAST), mask=mask)
    tl.store(dh_ptrs + width, to_bf16(dy * silu, UPCAST), mask=mask)
    if RECOMPUTE:
        tl.store(y_ptr + at * y_stride + across, to_bf16(silu * up, UPCAST), mask=mask)


def launch(
    h: Tensor,
    dy: Tensor,
    y: Tensor | None = None,
    *,
    out: Tensor | None = None,
    config: Config | None = None,
) -> Tensor:
    """Return dH; fill `y` with the forward output where it is given.

    Raises:
        ValueError: shapes or formats do not fit, or rows are not contiguous.
    """
    check_rank("h", h, 2)
    rows, width = h.shape[0], h.shape[1] // 2
    check("h", h, (rows, 2 * width), torch.bfloat16)
    check("dy", dy, (rows, width), torch.bfloat16)
    dh = torch.empty_like(h) if out is None else out
    check("out", dh, (rows, 2 * width), torch.bfloat16)
    forward = dy if y is None else y  # not touched unless given
    check("y", forward, (rows, width), torch.bfloat16)
    if rows == 0 or width == 0:
        return dh
    if any(t.stride(1) != 1 for t in (h, dy, dh, forward)):
        raise ValueError("swiglu_backward: rows must be contiguous")
    cfg = config or choose(rows, device=h.device)
    _swiglu_backward_kernel[(ceil_div(rows, cfg.rows), ceil_div(width, cfg.cols))](
        h, dy, dh, forward, rows, width, h.stride(0), dy.stride(0), dh.stride(0),
        forward.stride(0), RECOMPUTE=y is not None, ROWS=cfg.rows, COLS=cfg.cols,
        UPCAST=interpreting(), num_warps=cfg.warps,
    )  # fmt: skip
    return dh


def reference(h: Tensor, dy: Tensor, y: Tensor | None = None) -> Tensor:
    """Return dH in float64 by automatic differentiation."""
    leaf = h.double().requires_grad_()
    gate, up = leaf.chunk(2, 1)
    (torch.nn.functional.silu(gate) * up).backward(dy.double())
    return leaf.grad


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return fresh random arguments of `launch`."""
    rows, width = shape["rows"], shape["width"]
    args = {
        "h": normal((rows, 2 * width), device, seed),
        "dy": normal((rows, width), device, seed + 1),
    }
    if shape["recompute"]:
        args["y"] = torch.empty_like(args["dy"])
    return args


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no tensor-core FLOPs, and the bytes: H and dY read, dH (and Y) written."""
    return 0.0, float(shape["rows"]) * shape["width"] * (10 + 2 * shape["recompute"])


PROVIDERS = {"moesim": launch}
