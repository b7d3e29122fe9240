"""Gradient of RMS norm.

    n = S[i, :] rstd[i];   g = dY[i, :] W
    dX[i, :] = rstd[i] (g - n mean(g n)) + dR[i, :]        dW = sum_i dY[i, :] n

S (m, k) bf16: what was normed; rstd (m,) fp32; W (k,) bf16; dY (m, k) bf16; dR (m, k) bf16: the
gradient that arrives by the residual, if any -> dX (m, k) bf16, dW (k,) fp32.

A persistent program walks rows and keeps its part of dW in registers; a second kernel adds the
parts. No atomics: two runs give the same bits. The price is a grid that does not fit a GPU some of
whose SMs are taken: hidden norms were 60-70 % slower beside a communication kernel in the H800
trace of DeepSeek-V3.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import (
    ceil_div,
    check,
    check_rank,
    interpreting,
    measured,
    next_power_of_2,
    programs,
)
from kernels._numerics import normal, to_bf16

FORMAT = "bf16"
EPS = 1e-6

SHAPES = (
    {"m": 4096, "k": 7168, "residual": 1},
    {"m": 32768, "k": 7168, "residual": 1},
    {"m": 4096, "k": 1536, "residual": 0},
    {"m": 4096, "k": 512, "residual": 0},
    {"m": 1037, "k": 1999, "residual": 0},
)
TINY = {"m": 3, "k": 40, "residual": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Warps of a program, programs per SM, rows in flight."""

    warps: int = 16
    per_sm: int = 1
    stages: int = 2


CONFIGS = (Config(stages=3), Config(warps=8, stages=3))

CLASSES = {"k": (2048, 4096)}


@measured(Config, CLASSES)
def choose(k: int) -> Config:
    """Return a grid all of which is resident: a row of 7168 takes an SM's registers for itself.

    By reasoning from register counts, not yet by measurement.
    """
    width = next_power_of_2(k)
    if width > 4096:
        return Config()
    return Config(warps=4, per_sm=4) if width <= 2048 else Config(warps=8, per_sm=2)


@triton.jit
def _rmsnorm_backward_kernel(
    s_ptr, rstd_ptr, w_ptr, dy_ptr, dr_ptr, dx_ptr, parts_ptr, m, k,
    s_stride, dy_stride, dr_stride, dx_stride,
    RESIDUAL: tl.constexpr, WIDTH: tl.constexpr, STAGES: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    cols = tl.arange(0, WIDTH)
    mask = cols < k
    w = tl.load(w_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    dw = tl.zeros((WIDTH,), tl.float32)
    for index in tl.range(tl.program_id(0), m, tl.num_programs(0), num_stages=STAGES):
        row = tl.cast(index, tl.int64)
        rstd = tl.load(rstd_ptr + row)
        s = tl.load(s_ptr + row * s_stride + cols, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row * dy_stride + cols, mask=mask, other=0.0).to(tl.float32)
        normed = s * rstd
        dw += dy * normed
        g = dy * w
        dx = rstd * (g - normed * (tl.sum(g * normed, 0) / k))
        if RESIDUAL:
            dx += tl.load(dr_ptr + row * dr_stride + cols, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx_ptr + row * dx_stride + cols, to_bf16(dx, UPCAST), mask=mask)
    tl.store(parts_ptr + tl.program_id(0) * k + cols, dw, mask=mask)


@triton.jit
def _sum_parts_kernel(parts_ptr, dw_ptr, parts, k, ROWS: tl.constexpr, COLS: tl.constexpr):
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    total = tl.zeros((ROWS, COLS), tl.float32)
    for first in range(0, parts, ROWS):
        rows = first + tl.arange(0, ROWS)
        mask = (rows < parts)[:, None] & (cols < k)[None, :]
        total += tl.load(parts_ptr + rows[:, None] * k + cols[None, :], mask=mask, other=0.0)
    tl.store(dw_ptr + cols, tl.sum(total, 0), mask=cols < k)


def launch(
    s: Tensor,
    rstd: Tensor,
    w: Tensor,
    dy: Tensor,
    dr: Tensor | None = None,
    *,
    out: tuple[Tensor, Tensor] | None = None,
    config: Config | None = None,
    sms: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (dX, dW), using at most `sms` SMs.

    Raises:
        ValueError: shapes or formats do not fit, or rows are not contiguous.
    """
    check_rank("s", s, 2)
    m, k = s.shape
    check("s", s, (m, k), torch.bfloat16)
    check("rstd", rstd, (m,), torch.float32)
    check("w", w, (k,), torch.bfloat16)
    check("dy", dy, (m, k), torch.bfloat16)
    residual = dy if dr is None else dr  # not touched unless given
    check("dr", residual, (m, k), torch.bfloat16)
    dx, dw = out or (torch.empty_like(s), torch.empty(k, dtype=torch.float32, device=s.device))
    check("out: dx", dx, (m, k), torch.bfloat16)
    check("out: dw", dw, (k,), torch.float32)
    if any(t.stride(1) != 1 for t in (s, dy, residual, dx)):
        raise ValueError("rmsnorm_backward: rows must be contiguous")
    cfg = config or choose(k, device=s.device)
    grid = programs(m, s.device, sms, cfg.per_sm)
    parts = torch.empty(grid, k, dtype=torch.float32, device=s.device)
    _rmsnorm_backward_kernel[(grid,)](
        s, rstd, w, dy, residual, dx, parts, m, k, s.stride(0), dy.stride(0), residual.stride(0),
        dx.stride(0), RESIDUAL=dr is not None, WIDTH=next_power_of_2(k), STAGES=cfg.stages,
        UPCAST=interpreting(), num_warps=cfg.warps,
    )  # fmt: skip
    _sum_parts_kernel[(ceil_div(k, 64),)](parts, dw, grid, k, ROWS=32, COLS=64, num_warps=4)
    return dx, dw


def reference(
    s: Tensor, rstd: Tensor, w: Tensor, dy: Tensor, dr: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return (dX, dW) in float64 from the equations above."""
    normed, g = s.double() * rstd.double()[:, None], dy.double() * w.double()
    mean = (g * normed).mean(1, keepdim=True)
    dx = rstd.double()[:, None] * (g - normed * mean)
    return dx + (0 if dr is None else dr.double()), (dy.double() * normed).sum(0)


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return fresh random arguments of `launch`; rstd belongs to S."""
    m, k = shape["m"], shape["k"]
    s = normal((m, k), device, seed)
    args = {
        "s": s,
        "rstd": (s.float().square().mean(1) + EPS).rsqrt(),
        "w": normal((k,), device, seed + 1),
        "dy": normal((m, k), device, seed + 2),
    }
    if shape["residual"]:
        args["dr"] = normal((m, k), device, seed + 3)
    return args


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no tensor-core FLOPs, and the bytes: S, dY (and dR) read, dX and dW written."""
    m, k = float(shape["m"]), float(shape["k"])
    return 0.0, m * k * (6 + 2 * shape["residual"]) + m * 4 + k * 6


PROVIDERS = {"moesim": launch}
