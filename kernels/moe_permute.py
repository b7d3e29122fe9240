"""Dispatch permute: copy each token to the rows of its local experts.

    Y[R[t, j], :] = X[t, :]  for every R[t, j] >= 0;   rows that only pad an expert become zeros

X (tokens, hidden) bf16, or fp8 e4m3 with scales (tokens, hidden/128) fp32; R (tokens, k) int32,
starts and counts (experts,) int32 from `moe_map` -> Y (rows, hidden) like X, and the scales
(rows, hidden/128) stored column by column, as the grouped product reads them.

A token is read once however many copies it has. Rows are moved as 4-byte words. Padding holds
zeros (scale 1), because the weight gradient sums over it.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import moe_map
from kernels._device import (
    BLOCK,
    FP8,
    ceil_div,
    check,
    check_rank,
    check_rows,
    measured,
    next_power_of_2,
)
from kernels._numerics import normal, quantize_rows

FORMAT = "fp8"

SHAPES = (
    {"tokens": 30720, "rows": 32768, "top_k": 8, "experts": 4, "hidden": 7168, "fp8": 1},
    {"tokens": 30720, "rows": 32768, "top_k": 8, "experts": 4, "hidden": 7168, "fp8": 0},
    {"tokens": 4096, "rows": 32768, "top_k": 8, "experts": 256, "hidden": 7168, "fp8": 1},
    {"tokens": 1037, "rows": 1500, "top_k": 6, "experts": 20, "hidden": 2000, "fp8": 1},
)
TINY = {"tokens": 5, "rows": 4, "top_k": 2, "experts": 1, "hidden": 128, "fp8": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Words (4 bytes) copied at a time, and warps."""

    words: int = 1024
    warps: int = 4


CONFIGS = (Config(), Config(words=512), Config(words=2048), Config(words=2048, warps=8))
CLASSES = {"tokens": (512,), "fp8": (0,)}


@measured(Config, CLASSES)
def choose(tokens: int, fp8: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def _permute_kernel(
    x_ptr, scale_ptr, rows_ptr, y_ptr, y_scale_ptr, words, blocks, x_stride, y_stride,
    scale_stride_t, scale_stride_b, y_scale_stride_b,
    TOP_K: tl.constexpr, SCALED: tl.constexpr, WORDS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    for first in range(0, words, WORDS):
        at = first + tl.arange(0, WORDS)
        x = tl.load(x_ptr + token * x_stride + at, mask=at < words)
        for j in tl.static_range(TOP_K):
            row = tl.load(rows_ptr + token * TOP_K + j).to(tl.int64)
            tl.store(y_ptr + row * y_stride + at, x, mask=(at < words) & (row >= 0))
    if SCALED:
        block = tl.arange(0, BLOCKS)
        live = block < blocks
        scale = tl.load(scale_ptr + token * scale_stride_t + block * scale_stride_b, mask=live)
        for j in tl.static_range(TOP_K):
            row = tl.load(rows_ptr + token * TOP_K + j)
            tl.store(y_scale_ptr + row + block * y_scale_stride_b, scale, mask=live & (row >= 0))


@triton.jit
def _clear_padding_kernel(
    y_ptr, y_scale_ptr, starts_ptr, counts_ptr, words, blocks, y_stride, y_scale_stride_b,
    SCALED: tl.constexpr, ALIGN: tl.constexpr, WORDS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(0)
    start, count = tl.load(starts_ptr + expert), tl.load(counts_ptr + expert)
    end = start + tl.cdiv(count, ALIGN) * ALIGN
    block = tl.arange(0, BLOCKS)
    for row in range(start + count + tl.program_id(1), end, tl.num_programs(1)):
        wide = tl.cast(row, tl.int64)
        for first in range(0, words, WORDS):
            at = first + tl.arange(0, WORDS)
            zeros = tl.zeros((WORDS,), tl.int32)
            tl.store(y_ptr + wide * y_stride + at, zeros, mask=at < words)
        if SCALED:
            ones = tl.full((BLOCKS,), 1.0, tl.float32)
            tl.store(y_scale_ptr + row + block * y_scale_stride_b, ones, mask=block < blocks)


def launch(
    x: Tensor,
    rows: Tensor,
    starts: Tensor,
    counts: Tensor,
    capacity: int,
    scale: Tensor | None = None,
    *,
    align: int = BLOCK,
    out: tuple[Tensor, ...] | None = None,
    config: Config | None = None,
) -> tuple:
    """Return (Y,) of `capacity` rows, or (Y, its scales) where `scale` is given.

    Raises:
        ValueError: shapes or formats do not fit, or a row is no multiple of 16 bytes.
    """
    check_rank("x", x, 2)
    check_rank("rows", rows, 2)
    (tokens, hidden), experts = x.shape, starts.shape[0]
    blocks = ceil_div(hidden, BLOCK)
    check("x", x, (tokens, hidden), torch.bfloat16 if scale is None else FP8)
    check("rows", rows, (tokens, rows.shape[1]), torch.int32)
    check("starts", starts, (experts,), torch.int32)
    check("counts", counts, (experts,), torch.int32)
    outs = out or empty_outputs(capacity, hidden, x.device, fp8=scale is not None)
    check("out[0]", outs[0], (capacity, hidden), x.dtype)
    if scale is not None:
        check("scale", scale, (tokens, blocks), torch.float32)
        check("out[1]", outs[1], (capacity, blocks), torch.float32)
    check_rows("x", x)
    check_rows("out[0]", outs[0])
    x_words, y_words = x.view(torch.int32), outs[0].view(torch.int32)
    x_scale, y_scale = (x, outs[0]) if scale is None else (scale, outs[1])
    cfg = config or choose(tokens, int(scale is not None), device=x.device)
    common = {
        "SCALED": scale is not None,
        "WORDS": cfg.words,
        "BLOCKS": next_power_of_2(blocks),
        "num_warps": cfg.warps,
    }
    if tokens:
        _permute_kernel[(tokens,)](
            x_words, x_scale, rows, y_words, y_scale, x_words.shape[1], blocks, x_words.stride(0),
            y_words.stride(0), *x_scale.stride(), y_scale.stride(1), TOP_K=rows.shape[1], **common,
        )  # fmt: skip
    _clear_padding_kernel[(experts, min(32, align))](
        y_words, y_scale, starts, counts, y_words.shape[1], blocks, y_words.stride(0),
        y_scale.stride(1), ALIGN=align, **common,
    )  # fmt: skip
    return outs


def empty_outputs(rows: int, hidden: int, device: torch.device, *, fp8: bool) -> tuple[Tensor, ...]:
    """Return room for Y, and for its scales stored column by column."""
    if not fp8:
        return (torch.empty(rows, hidden, dtype=torch.bfloat16, device=device),)
    scale = torch.empty(ceil_div(hidden, BLOCK), rows, dtype=torch.float32, device=device).t()
    return torch.empty(rows, hidden, dtype=FP8, device=device), scale


def reference(
    x: Tensor,
    rows: Tensor,
    starts: Tensor,
    counts: Tensor,
    capacity: int,
    scale: Tensor | None = None,
    *,
    align: int = BLOCK,
) -> tuple:
    """Return the same from plain indexing, in float64; NaN in rows of no expert."""
    held = [x.double()] if scale is None else [x.double(), scale.double()]
    filler = (0.0, 1.0)
    made = [torch.full((capacity, t.shape[1]), torch.nan, dtype=torch.float64) for t in held]
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        for y, fill in zip(made, filler, strict=False):
            y[start + count : start + ceil_div(count, align) * align] = fill
    token, slot = (rows.cpu() >= 0).nonzero(as_tuple=True)
    for y, source in zip(made, held, strict=True):
        y[rows.cpu()[token, slot].long()] = source.cpu()[token]
    return tuple(y.to(x.device) for y in made)


def capacity_of(shape: dict[str, int]) -> int:
    """Return how many rows the buffer needs however the copies fall."""
    return ceil_div(shape["rows"], BLOCK) * BLOCK + shape["experts"] * BLOCK


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict:
    """Return random tokens and routing."""
    experts = moe_map.draw_experts(shape, seed)
    rows, starts, counts = moe_map.reference(experts, shape["experts"])
    x = normal((shape["tokens"], shape["hidden"]), device, seed + 1)
    args = {
        "x": x,
        "rows": rows.to(device),
        "starts": starts.to(device),
        "counts": counts.to(device),
        "capacity": capacity_of(shape),
    }
    if shape["fp8"]:
        args["x"], args["scale"] = quantize_rows(x)
        args["scale"] = args["scale"].contiguous()  # a token's scales travel together
    return args


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no FLOPs, and the bytes: tokens read once, their copies written, R read."""
    hidden = float(shape["hidden"])
    row = hidden + ceil_div(shape["hidden"], BLOCK) * 4 if shape["fp8"] else hidden * 2
    return 0.0, (shape["tokens"] + shape["rows"]) * row + shape["tokens"] * shape["top_k"] * 4


PROVIDERS = {"moesim": launch}
