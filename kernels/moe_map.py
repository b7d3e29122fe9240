"""Where each routed copy of a token goes: rows sorted by expert, each expert's rows padded.

    counts[e] = number of (t, j) with E[t, j] = e
    starts[e] = sum_{e' < e} round_up(counts[e'], 128)
    R[t, j]   = starts[e] + rank of (t, j) among the copies for e = E[t, j];   -1 where E[t, j] = -1

E (tokens, k) int32: local expert of each copy, -1 for a copy that lives on another rank
-> R (tokens, k) int32, starts (experts,) int32, counts (experts,) int32.

The order is that of the tokens, so two runs agree bit for bit: no atomics. The first kernel ranks
copies within a block and counts the block; the second adds what earlier blocks and experts hold.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import BLOCK, ceil_div, check, check_rank, next_power_of_2
from kernels._numerics import generator

FORMAT = "int32"

# Tokens that arrive at one of 64 ranks of DeepSeek-V3 with 4 experts each; all 256 experts of a
# single rank; ragged.
SHAPES = (
    {"tokens": 30720, "rows": 32768, "top_k": 8, "experts": 4},
    {"tokens": 4096, "rows": 32768, "top_k": 8, "experts": 256},
    {"tokens": 1037, "rows": 1500, "top_k": 6, "experts": 20},
)
TINY = {"tokens": 9, "rows": 12, "top_k": 2, "experts": 3}


@triton.jit
def _rank_kernel(
    experts_ptr, rank_ptr, parts_ptr, copies,
    EXPERTS: tl.constexpr, EXPERTS_CEIL: tl.constexpr, COPIES: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * COPIES + tl.arange(0, COPIES)
    expert = tl.load(experts_ptr + at, mask=at < copies, other=-1)
    columns = tl.arange(0, EXPERTS_CEIL)
    hit = (expert[:, None] == columns[None, :]).to(tl.int32)
    earlier = tl.cumsum(hit, 0) - hit
    tl.store(rank_ptr + at, tl.sum(earlier * hit, 1), mask=at < copies)
    tl.store(
        parts_ptr + tl.program_id(0) * EXPERTS + columns, tl.sum(hit, 0), mask=columns < EXPERTS
    )


@triton.jit
def _place_kernel(
    experts_ptr, rank_ptr, parts_ptr, rows_ptr, starts_ptr, counts_ptr, copies, parts,
    ALIGN: tl.constexpr, EXPERTS: tl.constexpr, EXPERTS_CEIL: tl.constexpr, COPIES: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    columns = tl.arange(0, EXPERTS_CEIL)
    before = tl.zeros((EXPERTS_CEIL,), tl.int32)
    counts = tl.zeros((EXPERTS_CEIL,), tl.int32)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        mask = (part < parts)[:, None] & (columns < EXPERTS)[None, :]
        held = tl.load(parts_ptr + part[:, None] * EXPERTS + columns[None, :], mask=mask, other=0)
        counts += tl.sum(held, 0)
        before += tl.sum(tl.where((part < block)[:, None], held, 0), 0)
    padded = (counts + ALIGN - 1) // ALIGN * ALIGN
    starts = tl.cumsum(padded, 0) - padded
    if block == 0:
        tl.store(starts_ptr + columns, starts, mask=columns < EXPERTS)
        tl.store(counts_ptr + columns, counts, mask=columns < EXPERTS)
    at = block * COPIES + tl.arange(0, COPIES)
    expert = tl.load(experts_ptr + at, mask=at < copies, other=-1)
    hit = expert[:, None] == columns[None, :]
    base = tl.sum(tl.where(hit, (starts + before)[None, :], 0), 1)
    row = base + tl.load(rank_ptr + at, mask=at < copies, other=0)
    tl.store(rows_ptr + at, tl.where(expert >= 0, row, -1), mask=at < copies)


def launch(
    experts: Tensor,
    local_experts: int,
    *,
    align: int = BLOCK,
    out: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (R, starts, counts) for expert numbers below `local_experts`.

    Raises:
        ValueError: E is no contiguous int32 matrix, or there is no expert.
    """
    check_rank("experts", experts, 2)
    check("experts", experts, tuple(experts.shape), torch.int32)
    if not experts.is_contiguous() or local_experts < 1 or align < 1:
        raise ValueError("moe_map: contiguous experts and positive local_experts, align are needed")
    on = {"dtype": torch.int32, "device": experts.device}
    rows, starts, counts = out or (
        torch.empty_like(experts),
        torch.empty(local_experts, **on),
        torch.empty(local_experts, **on),
    )
    check("out: rows", rows, tuple(experts.shape), torch.int32)
    check("out: starts", starts, (local_experts,), torch.int32)
    check("out: counts", counts, (local_experts,), torch.int32)
    ceil = next_power_of_2(local_experts)
    # The table of a block, copies x experts, stays in registers.
    block = max(32, min(512, 16384 // ceil))
    blocks = max(1, ceil_div(experts.numel(), block))
    rank, parts = torch.empty_like(experts), torch.empty(blocks, local_experts, **on)
    size = {"EXPERTS": local_experts, "EXPERTS_CEIL": ceil, "COPIES": block, "num_warps": 8}
    _rank_kernel[(blocks,)](experts, rank, parts, experts.numel(), **size)
    _place_kernel[(blocks,)](
        experts,
        rank,
        parts,
        rows,
        starts,
        counts,
        experts.numel(),
        blocks,
        ALIGN=align,
        PARTS=max(1, min(64, 8192 // ceil)),
        **size,
    )
    return rows, starts, counts


def reference(
    experts: Tensor, local_experts: int, *, align: int = BLOCK
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same from a stable sort."""
    flat = experts.flatten().long()
    counts = torch.bincount(flat[flat >= 0], minlength=local_experts)
    padded = (counts + align - 1) // align * align
    starts, first = padded.cumsum(0) - padded, counts.cumsum(0) - counts
    order = torch.argsort(torch.where(flat < 0, local_experts, flat), stable=True)
    order = order[: int(counts.sum())]
    rows = torch.full_like(flat, -1)
    place = torch.arange(order.numel(), device=flat.device)
    rows[order] = starts[flat[order]] + place - first[flat[order]]
    return rows.view_as(experts).int(), starts.int(), counts.int()


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict:
    """Return random routing: `rows` copies of `tokens` tokens, spread over the local experts."""
    return {"experts": draw_experts(shape, seed).to(device), "local_experts": shape["experts"]}


def draw_experts(shape: dict[str, int], seed: int) -> Tensor:
    """Return E with exactly `rows` copies: a token's experts differ, and it has one where it can.

    Drawn on the CPU: the values decide how much work a kernel has.
    """
    tokens, rows, top_k = shape["tokens"], shape["rows"], shape["top_k"]
    width = min(top_k, shape["experts"])
    if rows > tokens * width:
        raise ValueError(f"rows: {rows} copies of {tokens} tokens given, {width} each at most")
    random = generator("cpu", seed)
    order = torch.rand(tokens, shape["experts"], generator=random).argsort(1)[:, :width]
    # Fill first slots first, then random others.
    slot = torch.rand(tokens, width, generator=random)
    slot[:, 0] -= 1
    taken = torch.zeros(tokens * width, dtype=torch.bool)
    taken[slot.flatten().argsort()[:rows]] = True
    experts = torch.full((tokens, top_k), -1, dtype=torch.int32)
    experts[:, :width] = torch.where(taken.view(tokens, width), order, -1).int()
    return experts


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no FLOPs, and the bytes: E read and R written once."""
    return 0.0, float(shape["tokens"]) * shape["top_k"] * 8 + shape["experts"] * 8


PROVIDERS = {"moesim": launch, "torch": reference}
