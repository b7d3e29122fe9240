"""Block-scaled FP8 matrix product of routed tokens with their experts' weights.

    C[r, j] = sum_b  SA[r, b] SB[g, j/128, b]  sum_{k in block b} A[r, k] B[g, j, k]
    for every row r of group g: starts[g] <= r < starts[g] + counts[g]

A (rows, k) fp8 e4m3, SA (rows, ceil(k/128)) fp32 best stored column by column
B (groups, n, k) fp8 e4m3, SB (groups, ceil(n/128), ceil(k/128)) fp32
starts, counts (groups,) int32 on the device: no host ever waits for a count
C (rows, n) bf16; rows of no group are left alone. With `align` a group's rows reach to the next
multiple of it: rows that only pad a group hold zeros in A, and so in C, which the weight gradient
relies on

Two layouts are the same kernel: *contiguous* (training and prefill) has groups one after another,
each start rounded up to 128; *masked* (decode) gives each group a fixed capacity of rows. The
input gradient is the same product with the transposed weights.

A persistent program walks tiles of all groups; it finds a tile's group by counting the groups
that end before it, or in a table that a program before it wrote (`Config.tile_table`). Whole tiles
leave by TMA, the last tile of a group by masked stores; where `align` makes all tiles whole, the
kernel has no masked store. One loop of tiles and k-steps, or warpgroups that divide the work, take
a table and no branch in the loop: where tiles may be cut, all of them leave by masked stores then.

References: DeepSeek-V3, arXiv 2412.19437 §3.3.2; DeepGEMM (github.com/deepseek-ai/DeepGEMM).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels import fp8_gemm
from kernels._device import (
    BLOCK,
    FP8,
    ceil_div,
    check,
    check_rank,
    check_rows,
    interpreting,
    measured,
    next_power_of_2,
    programs,
    round_up,
    with_scratch,
)
from kernels._numerics import (
    dequantize_blocks,
    dequantize_rows,
    normal,
    quantize_blocks,
    quantize_rows,
    to_bf16,
)
from kernels.fp8_gemm import products, tile_of

FORMAT = "fp8"

# Routed experts of DeepSeek-V3 on one of 64 ranks: 4 experts, 32,768 rows when balanced; up+gate,
# down, and the input gradients of both. The ragged counts have the spread of a real trace (8 %).
_BALANCED = (8192,) * 4
_RAGGED = (8951, 7423, 0, 8190)
SHAPES = (
    {"counts": _BALANCED, "n": 4096, "k": 7168, "masked": 0},
    {"counts": _BALANCED, "n": 7168, "k": 2048, "masked": 0},
    {"counts": _BALANCED, "n": 7168, "k": 4096, "masked": 0},
    {"counts": _BALANCED, "n": 2048, "k": 7168, "masked": 0},
    {"counts": _RAGGED, "n": 4096, "k": 7168, "masked": 0},
    {"counts": (256,) * 4, "n": 4096, "k": 7168, "masked": 1},
    {"counts": (31, 7, 0, 64, 128, 1, 90, 55), "n": 7168, "k": 2048, "masked": 1},
)
TINY = {"counts": (3, 0), "n": 24, "k": 144, "masked": 0}


@dataclass(frozen=True, slots=True)
class Config(fp8_gemm.Config):
    """How a shape is cut.

    Attributes:
        tile_table: launch a kernel before that writes group and rows of each tile, instead of a
            search in each program. `flatten` works with it, and without it is not used: a search
            would run in every k-step.

    Raises:
        ValueError: `specialize` without it, or where a dense product could not have it; `split_k`.
    """

    tile_table: bool = False

    def __post_init__(self) -> None:
        fp8_gemm.Config.__post_init__(self)
        if self.specialize and not self.tile_table:
            raise ValueError("specialize: tile_table=False given, True is needed")
        if self.split_k != 1:
            raise ValueError(f"split_k: {self.split_k} given, a grouped product takes 1")


# The candidates of a sweep on a GPU; `choose` picks among them. Those from the fourth on are by
# what compiles: the table shortens the loop over tiles and lets it be one with the loop over k.
CONFIGS = (
    Config(),
    Config(block_n=64, halves=2),
    Config(block_m=64, stages=5, warps=4),
    Config(block_n=64, halves=2, tile_table=True),
    Config(block_n=64, halves=2, scales_ahead=True, tile_table=True),
    Config(block_m=64, stages=5, warps=4, scales_ahead=True, tile_table=True),
    Config(warps=4, flatten=False, scales_ahead=True, specialize=True, tile_table=True),
    Config(
        block_n=64, halves=2, warps=4, flatten=False, scales_ahead=True, specialize=True,
        tile_table=True,
    ),
)  # fmt: skip
TILES_A_PROGRAM = 128  # of the table

CLASSES = {"rows/groups": (128, 1024)}


@measured(Config, CLASSES)
def choose(rows: int, groups: int) -> Config:
    """Return the tile: 64 rows where groups are small. By reasoning, not yet by measurement."""
    if rows <= 96 * groups:
        return Config(block_m=64, stages=5, warps=4)
    return Config(block_n=64, halves=2)


@triton.jit
def group_of(tile, ends, tiles):
    """Return the group a tile of rows belongs to, and the tile's place in it."""
    before = ends <= tile
    return tl.sum(before.to(tl.int32), 0), tile - tl.sum(tl.where(before, tiles, 0), 0)


@triton.jit
def tiles_of(
    counts_ptr, ALIGN: tl.constexpr, GROUPS: tl.constexpr, GROUPS_CEIL: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Return each group's rows, its tiles of rows, and how many tiles there are up to its end."""
    groups = tl.arange(0, GROUPS_CEIL)
    counts = tl.load(counts_ptr + groups, mask=groups < GROUPS, other=0)
    counts = (counts + ALIGN - 1) // ALIGN * ALIGN
    tiles = (counts + BLOCK_M - 1) // BLOCK_M
    return counts, tiles, tl.cumsum(tiles, 0)


@triton.jit
def _tile_table_kernel(
    table_ptr, starts_ptr, counts_ptr, most,
    ALIGN: tl.constexpr, GROUPS: tl.constexpr, GROUPS_CEIL: tl.constexpr, BLOCK_M: tl.constexpr,
    TILES: tl.constexpr,
):  # fmt: skip
    """Write the number of tiles, then `most` groups, `most` first rows, `most` rows left."""
    groups = tl.arange(0, GROUPS_CEIL)
    counts, tiles, ends = tiles_of(counts_ptr, ALIGN, GROUPS, GROUPS_CEIL, BLOCK_M)
    starts = tl.load(starts_ptr + groups, mask=groups < GROUPS, other=0)
    tl.store(table_ptr, tl.sum(tiles, 0))
    tile = tl.program_id(0) * TILES + tl.arange(0, TILES)
    before = ends[None, :] <= tile[:, None]
    group = tl.sum(before.to(tl.int32), 1)
    done = (tile - tl.sum(tl.where(before, tiles[None, :], 0), 1)) * BLOCK_M
    mine = groups[None, :] == group[:, None]
    table_ptrs = table_ptr + 1 + tile
    tl.store(table_ptrs, group, mask=tile < most)
    first = tl.sum(tl.where(mine, starts[None, :], 0), 1) + done
    tl.store(table_ptrs + most, first, mask=tile < most)
    left = tl.sum(tl.where(mine, counts[None, :], 0), 1) - done
    tl.store(table_ptrs + 2 * most, left, mask=tile < most)


@triton.jit
def store_masked(
    c_ptr, value, row, col, rows_left, n, stride, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Store what lies within the group's rows and the width."""
    rows, cols = tl.arange(0, BLOCK_M), col + tl.arange(0, BLOCK_N)
    at = (row + rows).to(tl.int64)[:, None] * stride + cols[None, :]
    tl.store(c_ptr + at, value, mask=(rows < rows_left)[:, None] & (cols < n)[None, :])


@triton.jit
def store_rows(
    c_desc, c_ptr, value, row, col, rows_left, n, stride,
    ALIGN: tl.constexpr, BRANCH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Store a tile; where it reaches past its group, only the group's rows."""
    if ALIGN % BLOCK_M == 0:  # no tile does
        c_desc.store([row, col], value)
        return
    if BRANCH:
        if rows_left >= BLOCK_M:
            c_desc.store([row, col], value)
        else:
            store_masked(c_ptr, value, row, col, rows_left, n, stride, BLOCK_M, BLOCK_N)
    else:
        store_masked(c_ptr, value, row, col, rows_left, n, stride, BLOCK_M, BLOCK_N)


@triton.jit
def _grouped_gemm_kernel(
    a_desc, b_desc, c_desc, c_ptr, sa_ptr, sb_ptr, starts_ptr, counts_ptr, table_ptr, most,
    n, k, rows_end, a_stride, b_stride, c_stride,
    sa_stride_m, sa_stride_k, sb_stride_g, sb_stride_n, sb_stride_k,
    ALIGN: tl.constexpr, GROUPS: tl.constexpr, GROUPS_CEIL: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, HALVES: tl.constexpr, GROUP_M: tl.constexpr,
    STAGES: tl.constexpr, TABLE: tl.constexpr, FLATTEN: tl.constexpr, AHEAD: tl.constexpr,
    SPECIALIZE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    if SPECIALIZE:  # what is given are pointers
        a_desc = tl.make_tensor_descriptor(a_desc, [rows_end, k], [a_stride, 1], [BLOCK_M, BLOCK_K])
        b_desc = tl.make_tensor_descriptor(
            b_desc, [GROUPS * n, k], [b_stride, 1], [BLOCK_N, BLOCK_K]
        )
        c_desc = tl.make_tensor_descriptor(c_desc, [rows_end, n], [c_stride, 1], [BLOCK_M, BLOCK_N])
    if TABLE:
        tiles_m = tl.load(table_ptr)
    else:
        groups = tl.arange(0, GROUPS_CEIL)
        counts, tiles, ends = tiles_of(counts_ptr, ALIGN, GROUPS, GROUPS_CEIL, BLOCK_M)
        tiles_m = tl.sum(tiles, 0)
    tiles_n = tl.cdiv(n, BLOCK_N * HALVES)
    steps, last_scale = tl.cdiv(k, BLOCK_K), tl.cdiv(n, BLOCK_K) - 1
    for index in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=FLATTEN):
        tile_m, tile_n = tile_of(index, tiles_m, tiles_n, GROUP_M)
        if TABLE:
            table_ptrs = table_ptr + 1 + tile_m
            group, row = tl.load(table_ptrs), tl.load(table_ptrs + most)
            rows_left = tl.load(table_ptrs + 2 * most)
        else:
            group, place = group_of(tile_m, ends, tiles)
            row = tl.load(starts_ptr + group) + place * BLOCK_M
            rows_left = tl.sum(tl.where(groups == group, counts, 0), 0) - place * BLOCK_M
        col = tile_n * BLOCK_N * HALVES
        b_row = group * n + col  # the rows of the next group past n are clipped by the store
        sa_ptrs = sa_ptr + tl.minimum(row + tl.arange(0, BLOCK_M), rows_end - 1) * sa_stride_m
        sb_left = sb_ptr + group * sb_stride_g + col // BLOCK_K * sb_stride_n
        next_scale = min((col + BLOCK_N) // BLOCK_K, last_scale)
        sb_right = sb_ptr + group * sb_stride_g + next_scale * sb_stride_n
        left, right = products(
            a_desc, b_desc, row, b_row, sa_ptrs, sb_left, sb_right, 0, steps, sa_stride_k,
            sb_stride_k, BLOCK_M, BLOCK_N, BLOCK_K, HALVES, STAGES, AHEAD, SPECIALIZE, UPCAST,
        )  # fmt: skip
        store_rows(
            c_desc, c_ptr, to_bf16(left, UPCAST), row, col, rows_left, n, c_stride,
            ALIGN, not TABLE, BLOCK_M, BLOCK_N,
        )  # fmt: skip
        if HALVES == 2:
            store_rows(
                c_desc, c_ptr, to_bf16(right, UPCAST), row, col + BLOCK_N, rows_left, n, c_stride,
                ALIGN, not TABLE, BLOCK_M, BLOCK_N,
            )  # fmt: skip


def tile_table(starts: Tensor, counts: Tensor, most: int, align: int, block_m: int) -> Tensor:
    """Return what `Config.tile_table` looks up, (1 + 3 most,) int32 on the device.

    The number of tiles of rows, at most `most`; then each tile's group, each tile's first row, and
    each tile's rows up to the end of its group. What stands past the last tile means nothing.
    """
    table = torch.empty(1 + 3 * most, dtype=torch.int32, device=counts.device)
    _tile_table_kernel[(ceil_div(most, TILES_A_PROGRAM),)](
        table, starts, counts, most,
        ALIGN=align, GROUPS=len(counts), GROUPS_CEIL=next_power_of_2(len(counts)),
        BLOCK_M=block_m, TILES=TILES_A_PROGRAM,
    )  # fmt: skip
    return table


def launch(
    a: Tensor,
    sa: Tensor,
    b: Tensor,
    sb: Tensor,
    starts: Tensor,
    counts: Tensor,
    *,
    align: int = 1,
    out: Tensor | None = None,
    config: Config | None = None,
    sms: int | None = None,
) -> Tensor:
    """Return C in bf16, each group's rows times its expert, on at most `sms` SMs.

    `align` is what the groups of a contiguous layout are padded to, 1 for no padding.

    Raises:
        ValueError: shapes or formats do not fit, or rows are not on 16-byte steps.
    """
    check_rank("a", a, 2)
    check_rank("b", b, 3)
    (rows, k), (groups, n, _) = a.shape, b.shape
    check("a", a, (rows, k), FP8)
    check("b", b, (groups, n, k), FP8)
    check("sa", sa, (rows, ceil_div(k, BLOCK)), torch.float32)
    check("sb", sb, (groups, ceil_div(n, BLOCK), ceil_div(k, BLOCK)), torch.float32)
    check("starts", starts, (groups,), torch.int32)
    check("counts", counts, (groups,), torch.int32)
    if not b.is_contiguous():
        raise ValueError("b: must be contiguous")
    c = torch.empty(rows, n, dtype=torch.bfloat16, device=a.device) if out is None else out
    check("out", c, (rows, n), torch.bfloat16)
    if rows == 0:
        return c
    for name, tensor in (("a", a), ("b", b), ("out", c)):
        check_rows(name, tensor)
    cfg = config or choose(rows, groups, device=a.device)
    most = ceil_div(rows, cfg.block_m) + groups  # tiles of rows
    table = counts  # stands for none
    if cfg.tile_table:
        table = tile_table(starts, counts, most, align, cfg.block_m)
    operands = (
        TensorDescriptor.from_tensor(a, [cfg.block_m, BLOCK]),
        TensorDescriptor.from_tensor(b.view(groups * n, k), [cfg.block_n, BLOCK]),
        TensorDescriptor.from_tensor(c, [cfg.block_m, cfg.block_n]),
    )
    tiles = most * ceil_div(n, cfg.block_n * cfg.halves)
    with_scratch(
        _grouped_gemm_kernel[(programs(tiles, a.device, sms, cfg.per_sm),)],
        *((a, b, c) if cfg.specialize else operands),
        c, sa, sb, starts, counts, table, most, n, k, rows, a.stride(0), k, c.stride(0),
        *sa.stride(), *sb.stride(),
        ALIGN=align, GROUPS=groups, GROUPS_CEIL=next_power_of_2(groups), BLOCK_M=cfg.block_m,
        BLOCK_N=cfg.block_n, BLOCK_K=BLOCK, HALVES=cfg.halves, GROUP_M=cfg.group_m,
        STAGES=cfg.stages, TABLE=cfg.tile_table, FLATTEN=cfg.flatten and cfg.tile_table,
        AHEAD=cfg.scales_ahead, SPECIALIZE=cfg.specialize, UPCAST=interpreting(),
        num_warps=cfg.warps,
    )  # fmt: skip
    return c


def reference(
    a: Tensor,
    sa: Tensor,
    b: Tensor,
    sb: Tensor,
    starts: Tensor,
    counts: Tensor,
    *,
    align: int = 1,
) -> Tensor:
    """Return C in float64, NaN in rows of no group."""
    rows, weights = dequantize_rows(a, sa), dequantize_blocks(b, sb)
    c = torch.full((a.shape[0], b.shape[1]), torch.nan, dtype=torch.float64, device=a.device)
    for g, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        end = start + round_up(count, align)
        c[start:end] = rows[start:end] @ weights[g].T
    return c


def layout(counts: tuple[int, ...], *, masked: bool) -> tuple[list[int], int]:
    """Return where each group's rows start, and how many rows the buffer has."""
    if masked:
        capacity = round_up(max(*counts, 1), BLOCK)
        return [g * capacity for g in range(len(counts))], capacity * len(counts)
    starts, end = [], 0
    for count in counts:
        starts.append(end)
        end += round_up(count, BLOCK)
    return starts, end


def inputs(shape: dict, device: torch.device | str, seed: int = 0) -> dict:
    """Return fresh random operands for `launch`; rows of no group hold numbers too."""
    counts, n, k = tuple(shape["counts"]), shape["n"], shape["k"]
    starts, rows = layout(counts, masked=bool(shape["masked"]))
    a, sa = quantize_rows(normal((rows, k), device, seed))
    b, sb = quantize_blocks(normal((len(counts), n, k), device, seed + 1))
    on = {"dtype": torch.int32, "device": device}
    return {
        "a": a,
        "sa": sa,
        "b": b,
        "sb": sb,
        "starts": torch.tensor(starts, **on),
        "counts": torch.tensor(counts, **on),
        "align": 1 if shape["masked"] else BLOCK,
    }


def work(shape: dict) -> tuple[float, float]:
    """Return FLOPs and least bytes of real rows; weights of experts without rows are not read."""
    m, n, k = float(sum(shape["counts"])), float(shape["n"]), float(shape["k"])
    active = sum(count > 0 for count in shape["counts"])
    return 2 * m * n * k, m * k + active * n * k + 2 * m * n


PROVIDERS = {"moesim": launch}
