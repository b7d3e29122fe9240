"""Attention of MLA when it decodes: absorbed projections, one latent per token, paged cache.

    S[h, t] = c Q[h, :] . KV[t, :];   P = softmax(S);   O[h, :] = sum_t P[h, t] KV[t, :512]

Q (batch, heads, 576) bf16: 512 channels against the latent, 64 of position; c = 192^(-1/2)
cache (pages, 64, 576) bf16: a token's latent (512), which is key and value alike, and its shared
rotary key (64); table (batch, pages per sequence) int32; lengths (batch,) int32
O (batch, heads, 512) bf16, lse (batch, heads) fp32; a sequence of length 0 gives zeros and -inf

All heads share the cache, so one program holds up to 64 heads and reads a page once for both
products. Sequences are split over programs until the SMs are full; a second kernel merges.

References: DeepSeek-V2, arXiv 2405.04434 §2.1.2 (absorption); FlashMLA
(github.com/deepseek-ai/FlashMLA); Flash-Decoding (split and merge).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels._device import (
    ceil_div,
    check,
    check_rank,
    interpreting,
    measured,
    next_power_of_2,
    programs,
)
from kernels._numerics import generator, normal, operand, to_bf16

FORMAT = "bf16"
PAGE = 64
D_LATENT, D_ROPE = 512, 64
D_CACHE = D_LATENT + D_ROPE
SCALE = 192**-0.5
LOG2_E = 1.4426950408889634

# Tensor-parallel 1 (128 heads) is bound by arithmetic, 16 heads by memory; a long context; ragged.
SHAPES = (
    {"batch": 128, "heads": 128, "length": 4096, "ragged": 0},
    {"batch": 64, "heads": 128, "length": 8192, "ragged": 0},
    {"batch": 128, "heads": 16, "length": 4096, "ragged": 0},
    {"batch": 32, "heads": 32, "length": 16384, "ragged": 0},
    {"batch": 1, "heads": 16, "length": 131072, "ragged": 0},
    {"batch": 37, "heads": 128, "length": 3001, "ragged": 1},
)
TINY = {"batch": 2, "heads": 3, "length": 70, "ragged": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Heads of a program, pages in flight, warps, and splits of a sequence (0: fill the SMs)."""

    heads: int = 64
    stages: int = 2
    warps: int = 8
    splits: int = 0


CONFIGS = (Config(), Config(stages=1), Config(heads=16), Config(heads=32))

CLASSES = {"heads": (16, 32)}


@measured(Config, CLASSES)
def choose(heads: int) -> Config:
    """Return the heads of a program: 64 fill Hopper's matrix instruction, few heads need less.

    Below 64 the older matrix instruction keeps queries in registers: 8 warps hold them, 4 spill.
    By reasoning and register counts, not yet by measurement.
    """
    return Config(heads=64 if heads > 32 else 32 if heads > 16 else 16)


@triton.jit
def _mla_decode_kernel(
    q_ptr, latent_desc, rope_desc, table_ptr, lengths_ptr, o_ptr, lse_ptr, heads, table_stride,
    scale, SPLITS: tl.constexpr, HEADS: tl.constexpr, PAGE: tl.constexpr, STAGES: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    blocks_h = tl.cdiv(heads, HEADS)
    batch, split = tl.program_id(0) // blocks_h, tl.program_id(1)
    head = tl.program_id(0) % blocks_h * HEADS + tl.arange(0, HEADS)
    length = tl.load(lengths_ptr + batch)
    per_split = tl.cdiv(tl.cdiv(length, PAGE), SPLITS)
    first = split * per_split
    last = min(first + per_split, tl.cdiv(length, PAGE))

    row = (batch * heads + head).to(tl.int64)
    latents, ropes, tokens = tl.arange(0, 512), tl.arange(0, 64), tl.arange(0, PAGE)
    live = (head < heads)[:, None]
    q_ptrs = q_ptr + row[:, None] * 576
    q_n = operand(tl.load(q_ptrs + latents[None, :], mask=live, other=0.0), UPCAST)
    q_r = operand(tl.load(q_ptrs + 512 + ropes[None, :], mask=live, other=0.0), UPCAST)
    out = tl.zeros((HEADS, 512), tl.float32)
    total = tl.zeros((HEADS,), tl.float32)
    peak = tl.full((HEADS,), -1.0e30, tl.float32)  # finite, so that an empty page gives no NaN
    for page in tl.range(first, last, num_stages=STAGES):
        at = tl.load(table_ptr + batch * table_stride + page) * PAGE
        latent = operand(latent_desc.load([at, 0]), UPCAST)
        rope = operand(rope_desc.load([at, 512]), UPCAST)
        s = tl.dot(q_n, latent.T)
        s = tl.dot(q_r, rope.T, s) * scale
        s = tl.where((page * PAGE + tokens < length)[None, :], s, -float("inf"))
        higher = tl.maximum(peak, tl.max(s, 1))
        p = tl.exp2(s - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        out = tl.dot(operand(to_bf16(p, UPCAST), UPCAST), latent, out * shrink[:, None])
        peak = higher

    empty = total == 0.0
    out = out / tl.where(empty, 1.0, total)[:, None]
    lse = tl.where(empty, -float("inf"), peak + tl.log2(tl.where(empty, 1.0, total)))
    if SPLITS == 1:
        tl.store(o_ptr + row[:, None] * 512 + latents[None, :], to_bf16(out, UPCAST), mask=live)
        tl.store(lse_ptr + row, lse * 0.6931471805599453, mask=head < heads)
    else:
        part = row * SPLITS + split
        tl.store(o_ptr + part[:, None] * 512 + latents[None, :], out, mask=live)
        tl.store(lse_ptr + part, lse, mask=head < heads)


@triton.jit
def _merge_kernel(
    parts_ptr, part_lse_ptr, o_ptr, lse_ptr,
    SPLITS: tl.constexpr, SPLITS_CEIL: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    splits = tl.arange(0, SPLITS_CEIL)
    lse = tl.load(part_lse_ptr + row * SPLITS + splits, mask=splits < SPLITS, other=-float("inf"))
    peak = tl.maximum(tl.max(lse, 0), -1.0e30)
    weights = tl.exp2(lse - peak)
    total = tl.sum(weights, 0)
    empty = total == 0.0
    safe = tl.where(empty, 1.0, total)
    cols = tl.arange(0, 512)
    out = tl.zeros((512,), tl.float32)
    for split in range(SPLITS):
        weight = tl.exp2(tl.load(part_lse_ptr + row * SPLITS + split) - peak)
        out += weight * tl.load(parts_ptr + (row * SPLITS + split) * 512 + cols)
    tl.store(o_ptr + row * 512 + cols, to_bf16(out / safe, UPCAST))
    merged = tl.where(empty, -float("inf"), (peak + tl.log2(safe)) * 0.6931471805599453)
    tl.store(lse_ptr + row, merged)


def splits_for(units: int, pages: int, room: int) -> int:
    """Return how many programs share a sequence: as many as the SMs have room for."""
    return max(1, min(room // units, pages))


def launch(
    q: Tensor,
    cache: Tensor,
    table: Tensor,
    lengths: Tensor,
    *,
    out: tuple[Tensor, Tensor] | None = None,
    config: Config | None = None,
    sms: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (O, lse); splits are counted for `sms` SMs.

    Raises:
        ValueError: shapes or formats do not fit, or tensors are not contiguous.
    """
    check_rank("q", q, 3)
    check_rank("table", table, 2)
    batch, heads = q.shape[:2]
    check("q", q, (batch, heads, D_CACHE), torch.bfloat16)
    check("cache", cache, (cache.shape[0], PAGE, D_CACHE), torch.bfloat16)
    check("table", table, (batch, table.shape[1]), torch.int32)
    check("lengths", lengths, (batch,), torch.int32)
    if not (q.is_contiguous() and cache.is_contiguous() and table.stride(1) == 1):
        raise ValueError("mla_decode: q, cache and rows of the table must be contiguous")
    o, lse = out or (
        torch.empty(batch, heads, D_LATENT, dtype=torch.bfloat16, device=q.device),
        torch.empty(batch, heads, dtype=torch.float32, device=q.device),
    )
    check("out: o", o, (batch, heads, D_LATENT), torch.bfloat16)
    check("out: lse", lse, (batch, heads), torch.float32)
    if batch * heads == 0:
        return o, lse
    cfg = config or choose(heads, device=q.device)
    units = batch * ceil_div(heads, cfg.heads)
    room = programs(1 << 30, q.device, sms)
    splits = cfg.splits or splits_for(units, max(1, table.shape[1]), room)
    parts, part_lse = o, lse
    if splits > 1:
        on = {"dtype": torch.float32, "device": q.device}
        parts = torch.empty(batch, heads, splits, D_LATENT, **on)
        part_lse = torch.empty(batch, heads, splits, **on)
    rows = cache.view(-1, D_CACHE)
    _mla_decode_kernel[(units, splits)](
        q, TensorDescriptor.from_tensor(rows, [PAGE, D_LATENT]),
        TensorDescriptor.from_tensor(rows, [PAGE, D_ROPE]), table, lengths, parts, part_lse,
        heads, table.stride(0), SCALE * LOG2_E, SPLITS=splits, HEADS=cfg.heads, PAGE=PAGE,
        STAGES=cfg.stages, UPCAST=interpreting(), num_warps=cfg.warps,
    )  # fmt: skip
    if splits > 1:
        _merge_kernel[(batch * heads,)](
            parts, part_lse, o, lse, SPLITS=splits, SPLITS_CEIL=next_power_of_2(splits),
            UPCAST=interpreting(), num_warps=4,
        )  # fmt: skip
    return o, lse


def reference(q: Tensor, cache: Tensor, table: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return (O, lse) in float64, one sequence at a time."""
    o = q.new_zeros((*q.shape[:2], D_LATENT), dtype=torch.float64)
    lse = q.new_full(q.shape[:2], -torch.inf, dtype=torch.float64)
    for b, length in enumerate(lengths.tolist()):
        if length:
            pages = table[b, : ceil_div(length, PAGE)].long()
            kv = cache[pages].flatten(0, 1)[:length].double()
            s = q[b].double() @ kv.T * SCALE
            o[b], lse[b] = s.softmax(1) @ kv[:, :D_LATENT], s.logsumexp(1)
    return o, lse


def lengths_of(shape: dict[str, int]) -> list[int]:
    """Return the sequences' lengths: all alike, or spread evenly from 0 to `length`."""
    batch, length = shape["batch"], shape["length"]
    if not shape["ragged"]:
        return [length] * batch
    return [round(length * i / max(1, batch - 1)) for i in range(batch)]


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return fresh random operands; pages of a sequence lie scattered in the cache."""
    batch, per_sequence = shape["batch"], max(1, ceil_div(shape["length"], PAGE))
    order = torch.randperm(batch * per_sequence, generator=generator("cpu", seed))
    return {
        "q": normal((batch, shape["heads"], D_CACHE), device, seed),
        "cache": normal((batch * per_sequence, PAGE, D_CACHE), device, seed + 1),
        "table": order.view(batch, per_sequence).int().to(device),
        "lengths": torch.tensor(lengths_of(shape), dtype=torch.int32, device=device),
    }


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return FLOPs, and the bytes: each token's cache once, queries and results."""
    tokens, rows = float(sum(lengths_of(shape))), float(shape["batch"]) * shape["heads"]
    flops = 2 * shape["heads"] * tokens * (D_CACHE + D_LATENT)
    return flops, tokens * D_CACHE * 2 + rows * (D_CACHE + D_LATENT) * 2


PROVIDERS = {"moesim": launch}
