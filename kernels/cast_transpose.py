"""Cast to FP8 along rows and, transposed, along columns: what forward and weight gradient need.

    Y[i, k],  scale[i, k/128]        as in `quantize`
    YT[k, i], scale_t[k, i/128]      of the transposed matrix: 128 tokens of one channel a scale

X (m, k) bf16 -> Y (m, k) fp8, scale (m, ceil(k/128)) fp32, YT (k, m) fp8, scale_t (k, ceil(m/128))
fp32, scales stored column by column. Rows of YT are padded to 16 bytes (a view hides the padding),
so that the TMA unit can read them. X is read once.

X fp8 with its scales (`scale` given): only YT and scale_t are made, from the dequantised values;
this is how an activation kept in FP8 becomes an operand of the weight gradient.

One program casts a 128 x 128 tile: it holds whole blocks of both directions.

Reference: DeepSeek-V3, arXiv 2412.19437 §3.3.2, §3.5.2.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import (
    BLOCK,
    FP8,
    ceil_div,
    check,
    check_rank,
    interpreting,
    measured,
    round_up,
)
from kernels._numerics import dequantize_rows, normal, quantize_rows, to_fp8
from kernels.quantize import empty_quantized, scale_of

FORMAT = "fp8_cast"

# Output gradients (from bf16) and kept activations (from fp8) of DeepSeek-V3; ragged.
SHAPES = (
    {"m": 4096, "k": 7168, "from_fp8": 0},
    {"m": 32768, "k": 4096, "from_fp8": 0},
    {"m": 4096, "k": 16384, "from_fp8": 0},
    {"m": 32768, "k": 7168, "from_fp8": 1},
    {"m": 32768, "k": 2048, "from_fp8": 1},
    {"m": 1037, "k": 1992, "from_fp8": 0},
)
TINY = {"m": 130, "k": 16, "from_fp8": 0}


@dataclass(frozen=True, slots=True)
class Config:
    """Warps of a program."""

    warps: int = 8


CONFIGS = (Config(), Config(warps=16))
CLASSES = {"from_fp8": (0,)}


@measured(Config, CLASSES)
def choose(from_fp8: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def _cast_transpose_kernel(
    x_ptr, xs_ptr, y_ptr, ys_ptr, t_ptr, ts_ptr,
    m, k, x_stride, xs_stride, y_stride, ys_stride, t_stride, ts_stride,
    FROM_FP8: tl.constexpr, WIDTH: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    block_m, block_k = tl.program_id(1), tl.program_id(0)
    rows = block_m * WIDTH + tl.arange(0, WIDTH)
    cols = block_k * WIDTH + tl.arange(0, WIDTH)
    mask = (rows < m)[:, None] & (cols < k)[None, :]
    at = rows.to(tl.int64)[:, None]
    x = tl.load(x_ptr + at * x_stride + cols[None, :], mask=mask, other=0.0).to(tl.float32)
    if FROM_FP8:
        x *= tl.load(xs_ptr + block_k * xs_stride + rows, mask=rows < m, other=0.0)[:, None]
    else:
        scale = scale_of(tl.max(tl.abs(x), 1))
        y = to_fp8(x / scale[:, None], UPCAST)
        tl.store(y_ptr + at * y_stride + cols[None, :], y, mask=mask)
        tl.store(ys_ptr + block_k * ys_stride + rows, scale, mask=rows < m)
    scale_t = scale_of(tl.max(tl.abs(x), 0))
    y_t = to_fp8(x / scale_t[None, :], UPCAST).T
    at_t = cols.to(tl.int64)[:, None] * t_stride + rows[None, :]
    tl.store(t_ptr + at_t, y_t, mask=(cols < k)[:, None] & (rows < m)[None, :])
    tl.store(ts_ptr + block_m * ts_stride + cols, scale_t, mask=cols < k)


def launch(
    x: Tensor,
    scale: Tensor | None = None,
    *,
    out: tuple[Tensor, ...] | None = None,
    config: Config | None = None,
) -> tuple[Tensor, ...]:
    """Return (Y, scale, YT, scale_t) of a bf16 X, or (YT, scale_t) of an fp8 X with its scales.

    Raises:
        ValueError: shapes or formats do not fit.
    """
    check_rank("x", x, 2)
    (m, k), from_fp8 = x.shape, scale is not None
    check("x", x, (m, k), FP8 if from_fp8 else torch.bfloat16)
    if scale is not None:
        check("scale", scale, (m, ceil_div(k, BLOCK)), torch.float32)
    outs = out or empty_outputs(m, k, x.device, from_fp8=from_fp8)
    y_t, scale_t = outs[-2:]
    check("out: transposed", y_t, (k, m), FP8)
    check("out: its scales", scale_t, (k, ceil_div(m, BLOCK)), torch.float32)
    if m == 0 or k == 0:
        return outs
    y, y_scale = (y_t, scale_t) if from_fp8 else outs[:2]  # not touched when from_fp8
    x_scale = y_scale if scale is None else scale
    if x.stride(1) != 1 or x_scale.stride(0) != 1 or scale_t.stride(0) != 1:
        raise ValueError("cast_transpose: rows of x and columns of its scales must be contiguous")
    cfg = config or choose(int(from_fp8), device=x.device)
    _cast_transpose_kernel[(ceil_div(k, BLOCK), ceil_div(m, BLOCK))](
        x, x_scale, y, y_scale, y_t, scale_t, m, k, x.stride(0), x_scale.stride(1), y.stride(0),
        y_scale.stride(1), y_t.stride(0), scale_t.stride(1),
        FROM_FP8=from_fp8, WIDTH=BLOCK, UPCAST=interpreting(), num_warps=cfg.warps,
    )  # fmt: skip
    return outs


def empty_outputs(m: int, k: int, device: torch.device, *, from_fp8: bool) -> tuple[Tensor, ...]:
    """Return room for the outputs; rows of YT start every 16 bytes."""
    y_t = torch.empty(k, round_up(m, 16), dtype=FP8, device=device)[:, :m]
    scale_t = torch.empty(ceil_div(m, BLOCK), k, dtype=torch.float32, device=device).t()
    return (y_t, scale_t) if from_fp8 else (*empty_quantized(m, k, device), y_t, scale_t)


def reference(x: Tensor, scale: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return the same from plain torch."""
    if scale is not None:
        return quantize_rows(dequantize_rows(x, scale, torch.float32).t())
    return (*quantize_rows(x), *quantize_rows(x.t()))


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return a fresh random matrix, bf16 or fp8 with scales."""
    x = normal((shape["m"], shape["k"]), device, seed)
    if not shape["from_fp8"]:
        return {"x": x}
    values, scale = quantize_rows(x)
    return {"x": values, "scale": scale}


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no FLOPs, and the bytes: X read once, every output written once."""
    m, k = float(shape["m"]), float(shape["k"])
    along_k = m * ceil_div(shape["k"], BLOCK) * 4
    along_m = k * ceil_div(shape["m"], BLOCK) * 4
    if shape["from_fp8"]:
        return 0.0, m * k * 2 + along_k + along_m
    return 0.0, m * k * 4 + along_k + along_m


PROVIDERS = {"moesim": launch}
