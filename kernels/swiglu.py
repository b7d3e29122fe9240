"""SwiGLU of an expert or a dense layer, optionally cast to FP8 for the product that follows.

    Y[r, i] = g / (1 + exp(-g)) * u,    g = H[r, i],  u = H[r, width + i]

H (rows, 2 width) bf16, gates then up-projections -> Y (rows, width) bf16; or, quantised, Y fp8 e4m3
with scales (rows, width/128) fp32 stored column by column, as in `quantize`.

References: Shazeer, "GLU variants improve transformer", arXiv 2002.05202; DeepSeek-V3 §3.3.3.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import BLOCK, FP8, ceil_div, check, check_rank, interpreting, measured
from kernels._numerics import normal, quantize_rows, to_bf16, to_fp8
from kernels.quantize import empty_quantized, scale_of

FORMAT = "bf16"

# Routed experts (32,768 rows when balanced), shared expert, dense layer of DeepSeek-V3; ragged.
SHAPES = (
    {"rows": 32768, "width": 2048, "quantize": 0},
    {"rows": 32768, "width": 2048, "quantize": 1},
    {"rows": 4096, "width": 2048, "quantize": 1},
    {"rows": 4096, "width": 18432, "quantize": 1},
    {"rows": 1037, "width": 1416, "quantize": 1},
)
TINY = {"rows": 3, "width": 136, "quantize": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Rows and blocks of 128 columns per program, and its warps."""

    rows: int = 8
    blocks: int = 2
    warps: int = 4


CONFIGS = (Config(), Config(rows=16), Config(rows=4, blocks=4))
CLASSES = {"rows": (2048,), "quantize": (0,)}


@measured(Config, CLASSES)
def choose(rows: int, quantize: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def _swiglu_kernel(
    h_ptr, y_ptr, scale_ptr, rows_end, width, h_stride, y_stride, scale_stride,
    QUANTIZE: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr, WIDTH: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * (BLOCKS * WIDTH) + tl.arange(0, BLOCKS * WIDTH)
    mask = (rows < rows_end)[:, None] & (cols < width)[None, :]
    at = rows.to(tl.int64)[:, None]
    gate_ptrs = h_ptr + at * h_stride + cols[None, :]
    gate = tl.load(gate_ptrs, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_ptrs + width, mask=mask, other=0.0).to(tl.float32)
    y = gate / (1.0 + tl.exp(-gate)) * up
    y_ptrs = y_ptr + at * y_stride + cols[None, :]
    if QUANTIZE:
        y = y.reshape([ROWS, BLOCKS, WIDTH])
        scale = scale_of(tl.max(tl.abs(y), 2))
        y = to_fp8(y / scale[:, :, None], UPCAST).reshape([ROWS, BLOCKS * WIDTH])
        tl.store(y_ptrs, y, mask=mask)
        blocks = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
        at_scale = blocks[None, :] * scale_stride + rows[:, None]
        tl.store(
            scale_ptr + at_scale,
            scale,
            mask=(rows < rows_end)[:, None] & (blocks < tl.cdiv(width, WIDTH))[None, :],
        )
    else:
        tl.store(y_ptrs, to_bf16(y, UPCAST), mask=mask)


def launch(
    h: Tensor,
    *,
    quantize: bool = False,
    out: tuple[Tensor, Tensor] | Tensor | None = None,
    config: Config | None = None,
) -> tuple[Tensor, Tensor] | Tensor:
    """Return Y in bf16, or (Y, scale) when quantised.

    Raises:
        ValueError: H is no bf16 matrix of even width with contiguous rows.
    """
    check_rank("h", h, 2)
    rows, width = h.shape[0], h.shape[1] // 2
    check("h", h, (rows, 2 * width), torch.bfloat16)
    if out is None:
        out = (
            empty_quantized(rows, width, h.device)
            if quantize
            else torch.empty(rows, width, dtype=torch.bfloat16, device=h.device)
        )
    y, scale = out if quantize else (out, out)  # not touched unless quantised
    check("out", y, (rows, width), FP8 if quantize else torch.bfloat16)
    if rows == 0 or width == 0:
        return out
    if h.stride(1) != 1 or y.stride(1) != 1:
        raise ValueError("swiglu: rows of h and out must be contiguous")
    cfg = config or choose(rows, int(quantize), device=h.device)
    _swiglu_kernel[(ceil_div(rows, cfg.rows), ceil_div(width, cfg.blocks * BLOCK))](
        h, y, scale, rows, width, h.stride(0), y.stride(0), scale.stride(1),
        QUANTIZE=quantize, ROWS=cfg.rows, BLOCKS=cfg.blocks, WIDTH=BLOCK, UPCAST=interpreting(),
        num_warps=cfg.warps,
    )  # fmt: skip
    return out


def reference(h: Tensor, *, quantize: bool = False) -> tuple[Tensor, Tensor] | Tensor:
    """Return Y in float64, or what `quantize_rows` makes of it."""
    gate, up = h.double().chunk(2, 1)
    y = torch.nn.functional.silu(gate) * up
    return quantize_rows(y) if quantize else y


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict:
    """Return fresh random arguments of `launch`."""
    h = normal((shape["rows"], 2 * shape["width"]), device, seed)
    return {"h": h, "quantize": bool(shape["quantize"])}


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no tensor-core FLOPs, and the bytes: H read, Y (and scales) written."""
    rows, width = float(shape["rows"]), float(shape["width"])
    if shape["quantize"]:
        return 0.0, rows * width * 5 + rows * ceil_div(shape["width"], BLOCK) * 4
    return 0.0, rows * width * 6


def launch_torch(h: Tensor, *, quantize: bool = False) -> Tensor:
    """Return Y by two torch kernels; the quantised form has no counterpart."""
    if quantize:
        raise NotImplementedError("torch has no SwiGLU with block quantisation")
    gate, up = h.chunk(2, 1)
    return torch.nn.functional.silu(gate) * up


PROVIDERS = {"moesim": launch, "torch": launch_torch}
