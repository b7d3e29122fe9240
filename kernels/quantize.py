"""Cast to FP8 with one scale per 128 neighbours in a row.

    scale[i, b] = max_{k in block b} |X[i, k]| / 448        (1 where the block is all zeros)
    Y[i, k]     = e4m3(X[i, k] / scale[i, b])

X (m, k) bf16, rows contiguous -> Y (m, k) fp8 e4m3, scale (m, ceil(k/128)) fp32 stored column by
column, as the FP8 products read it. The scale is found online, from the values at hand.

Reference: DeepSeek-V3, arXiv 2412.19437 §3.3.2.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import BLOCK, FP8, ceil_div, check, check_rank, interpreting, measured
from kernels._numerics import normal, quantize_rows, to_fp8

FORMAT = "fp8_cast"

# Activations of DeepSeek-V3 that enter a linear, 4096 tokens; long; small enough for L2; ragged.
SHAPES = (
    {"m": 4096, "k": 7168},
    {"m": 32768, "k": 7168},
    {"m": 32768, "k": 2048},
    {"m": 4096, "k": 16384},
    {"m": 4096, "k": 1536},
    {"m": 256, "k": 7168},
    {"m": 1037, "k": 1992},
)
TINY = {"m": 5, "k": 136}


@dataclass(frozen=True, slots=True)
class Config:
    """Rows and blocks of 128 columns per program, and its warps."""

    rows: int = 16
    blocks: int = 2
    warps: int = 4


CONFIGS = (Config(), Config(rows=8, blocks=4), Config(rows=32, blocks=1), Config(rows=32, warps=8))
CLASSES = {"m": (512,)}


@measured(Config, CLASSES)
def choose(m: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def scale_of(amax):
    """Return the scale of a block from its largest magnitude."""
    return tl.where(amax > 0, amax / 448.0, 1.0)


@triton.jit
def _quantize_kernel(
    x_ptr, y_ptr, scale_ptr, m, k, x_stride, y_stride, scale_stride,
    ROWS: tl.constexpr, BLOCKS: tl.constexpr, WIDTH: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * (BLOCKS * WIDTH) + tl.arange(0, BLOCKS * WIDTH)
    mask = (rows < m)[:, None] & (cols < k)[None, :]
    at = rows.to(tl.int64)[:, None]
    x = tl.load(x_ptr + at * x_stride + cols[None, :], mask=mask, other=0.0).to(tl.float32)
    x = x.reshape([ROWS, BLOCKS, WIDTH])
    scale = scale_of(tl.max(tl.abs(x), 2))
    y = to_fp8(x / scale[:, :, None], UPCAST).reshape([ROWS, BLOCKS * WIDTH])
    tl.store(y_ptr + at * y_stride + cols[None, :], y, mask=mask)
    blocks = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    at_scale = blocks[None, :] * scale_stride + rows[:, None]
    tl.store(
        scale_ptr + at_scale,
        scale,
        mask=(rows < m)[:, None] & (blocks < tl.cdiv(k, WIDTH))[None, :],
    )


def launch(
    x: Tensor, *, out: tuple[Tensor, Tensor] | None = None, config: Config | None = None
) -> tuple[Tensor, Tensor]:
    """Return (Y, scale) of the bf16 or fp32 matrix X.

    Raises:
        ValueError: X is no matrix with contiguous rows, or an output has another shape.
    """
    check_rank("x", x, 2)
    m, k = x.shape
    check("x", x, (m, k), torch.bfloat16, torch.float32)
    y, scale = out or empty_quantized(m, k, x.device)
    check("out[0]", y, (m, k), FP8)
    check("out[1]", scale, (m, ceil_div(k, BLOCK)), torch.float32)
    if m == 0 or k == 0:
        return y, scale
    if x.stride(1) != 1 or y.stride(1) != 1 or scale.stride(0) != 1:
        raise ValueError("quantize: rows of x and y and columns of the scale must be contiguous")
    cfg = config or choose(m, device=x.device)
    grid = (ceil_div(m, cfg.rows), ceil_div(k, cfg.blocks * BLOCK))
    _quantize_kernel[grid](
        x, y, scale, m, k, x.stride(0), y.stride(0), scale.stride(1),
        ROWS=cfg.rows, BLOCKS=cfg.blocks, WIDTH=BLOCK, UPCAST=interpreting(), num_warps=cfg.warps,
    )  # fmt: skip
    return y, scale


def empty_quantized(m: int, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return room for Y (m, k) and its scales, stored column by column."""
    scale = torch.empty(ceil_div(k, BLOCK), m, dtype=torch.float32, device=device).t()
    return torch.empty(m, k, dtype=FP8, device=device), scale


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (Y, scale) from plain torch."""
    return quantize_rows(x)


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return a fresh random matrix."""
    return {"x": normal((shape["m"], shape["k"]), device, seed)}


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no FLOPs, and the bytes: bf16 read, fp8 and scales written."""
    m, k = float(shape["m"]), float(shape["k"])
    return 0.0, m * k * 3 + m * ceil_div(shape["k"], BLOCK) * 4


PROVIDERS = {"moesim": launch}
