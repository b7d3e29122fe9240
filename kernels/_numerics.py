"""Rounding inside kernels, and block scaling in plain torch for references and inputs.

Scales follow DeepSeek-V3 (arXiv 2412.19437 §3.3.2): FP32, amax / 448 over a block, online.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import BLOCK, FP8, FP8_MAX, ceil_div


@triton.jit
def to_bf16(x, UPCAST: tl.constexpr):
    """Round fp32 to bf16, to nearest even; by hand when interpreting, where the cast truncates."""
    if UPCAST:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return bits.to(tl.float32, bitcast=True).to(tl.bfloat16)
    return x.to(tl.bfloat16)


@triton.jit
def to_fp8(x, UPCAST: tl.constexpr):
    """Round fp32 within +-448 to E4M3, to nearest even; by hand when interpreting."""
    if UPCAST:
        # The step of E4M3 is 2^(e-3), and 2^-9 below the normals. Adding and taking away
        # 1.5 * 2^23 steps leaves the nearest multiple of a step, ties to even.
        exponent = ((x.to(tl.uint32, bitcast=True) >> 23) & 0xFF).to(tl.int32)
        step_bits = (tl.maximum(exponent, 127 - 6) - 3) << 23
        magic = 12582912.0 * step_bits.to(tl.float32, bitcast=True)
        return ((x + magic) - magic).to(tl.float8e4nv)
    return x.to(tl.float8e4nv)


@triton.jit
def operand(x, UPCAST: tl.constexpr):
    """Return a matrix operand as the tensor core takes it, or in fp32 when interpreting."""
    if UPCAST:
        return x.to(tl.float32)
    return x


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (m, k) as fp8 with scales (m, ceil(k/128)) fp32, stored column by column.

    A block of zeros takes the scale 1, so that nothing divides by zero.
    """
    m, k = x.shape
    blocks = ceil_div(k, BLOCK)
    padded = torch.zeros(m, blocks * BLOCK, dtype=torch.float32, device=x.device)
    padded[:, :k] = x
    amax = padded.view(m, blocks, BLOCK).abs().amax(2)
    scale = torch.where(amax > 0, amax / FP8_MAX, 1.0)
    values = padded.view(m, blocks, BLOCK) / scale[:, :, None]
    return values.view(m, -1)[:, :k].contiguous().to(FP8), columns_first(scale)


def quantize_blocks(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (..., n, k) as fp8 with one fp32 scale per 128 x 128 block."""
    n, k = x.shape[-2:]
    rows, cols = ceil_div(n, BLOCK), ceil_div(k, BLOCK)
    padded = x.new_zeros((*x.shape[:-2], rows * BLOCK, cols * BLOCK), dtype=torch.float32)
    padded[..., :n, :k] = x
    tiles = padded.view(*x.shape[:-2], rows, BLOCK, cols, BLOCK)
    amax = tiles.abs().amax((-3, -1))
    scale = torch.where(amax > 0, amax / FP8_MAX, 1.0)
    values = (tiles / scale[..., :, None, :, None]).reshape(padded.shape)
    return values[..., :n, :k].contiguous().to(FP8), scale


def columns_first(scale: Tensor) -> Tensor:
    """Return the same matrix stored column by column: one load of a tile's scales is contiguous."""
    return scale.t().contiguous().t()


def dequantize_rows(x: Tensor, scale: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return fp8 x (m, k) times its 1 x 128 scales (m, ceil(k/128))."""
    spread = scale.to(dtype).repeat_interleave(BLOCK, 1)[:, : x.shape[1]]
    return x.to(dtype) * spread


def dequantize_blocks(x: Tensor, scale: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return fp8 x (..., n, k) times its 128 x 128 scales."""
    spread = scale.to(dtype).repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    return x.to(dtype) * spread[..., : x.shape[-2], : x.shape[-1]]


def generator(device: torch.device | str, seed: int) -> torch.Generator | None:
    """Return a seeded generator on the device; None on `meta`, where tensors have no values."""
    if torch.device(device).type == "meta":
        return None
    return torch.Generator(device).manual_seed(seed)


def normal(
    shape: tuple[int, ...],
    device: torch.device | str,
    seed: int,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Return normal random numbers: never zeros, which hide errors and run faster."""
    draw = torch.randn(shape, generator=generator(device, seed), device=device)
    return draw.to(dtype)
