"""Block-scaled FP8 matrix product of the forward pass and the input gradient.

    C[i, j] = sum_b  SA[i, b] SB[j/128, b]  sum_{k in block b} A[i, k] B[j, k]

    A (m, k) fp8 e4m3 row-major, SA (m, ceil(k/128)) fp32 best stored column by column
    B (n, k) fp8 e4m3 row-major, SB (ceil(n/128), ceil(k/128)) fp32
    C (m, n) bf16

Both operands run along k, as Hopper's FP8 tensor core wants. The input gradient dX = dY W is the
same product with the transposed copy of the weight: its n is the layer's input width.

The tensor core keeps about 14 bits while it sums FP8 products, so each block of 128 products is
promoted: scaled and added to an FP32 accumulator on the CUDA cores. A tile may be two halves side
by side that share A: while one half is promoted, the product of the other runs. The grid is
persistent, the operands come by TMA.

Three warpgroups may divide the work instead (`Config.specialize`): one loads, each of two others
multiplies and promotes 64 rows, so that one promotes while the other's product runs. Where tiles
are few, several programs may share the k-steps of one (`Config.split_k`): each stores its part in
FP32, a second kernel adds the parts, always in the same order.

References: DeepSeek-V3, arXiv 2412.19437 §3.3.2-3.5.2; DeepGEMM (github.com/deepseek-ai/DeepGEMM).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels._device import (
    BLOCK,
    FP8,
    ceil_div,
    check,
    check_rank,
    check_rows,
    interpreting,
    measured,
    programs,
    round_up,
    with_scratch,
)
from kernels._numerics import (
    dequantize_blocks,
    dequantize_rows,
    normal,
    operand,
    quantize_blocks,
    quantize_rows,
    to_bf16,
)

FORMAT = "fp8"

# The linears of one DeepSeek-V3 layer for 4096 tokens (q_a, kv_a, q_b, kv_b, o, shared expert),
# two input gradients, a decode batch, and a ragged one.
SHAPES = (
    {"m": 4096, "n": 1536, "k": 7168},
    {"m": 4096, "n": 576, "k": 7168},
    {"m": 4096, "n": 24576, "k": 1536},
    {"m": 4096, "n": 32768, "k": 512},
    {"m": 4096, "n": 7168, "k": 16384},
    {"m": 4096, "n": 4096, "k": 7168},
    {"m": 4096, "n": 7168, "k": 2048},
    {"m": 4096, "n": 16384, "k": 7168},
    {"m": 4096, "n": 7168, "k": 576},
    {"m": 128, "n": 7168, "k": 16384},
    {"m": 128, "n": 576, "k": 7168},
    {"m": 32, "n": 7168, "k": 16384},
    {"m": 32, "n": 576, "k": 7168},
    {"m": 1037, "n": 1528, "k": 2000},
)
TINY = {"m": 5, "n": 24, "k": 144}


def check_specialized(block_m: int, warps: int, *, flatten: bool) -> None:
    """Refuse what Triton 3.6 and 3.7 do not specialise as asked, without a word.

    Raises:
        ValueError: 8 warps and one loop, where they ignore it; 64 rows, where both warpgroups
            would compute the same tile.
    """
    if (block_m, warps, flatten) != (128, 4, False):
        raise ValueError(
            f"specialize: block_m={block_m}, warps={warps}, flatten={flatten} given, "
            "block_m=128, warps=4, flatten=False are needed"
        )


@dataclass(frozen=True, slots=True)
class Config:
    """How a shape is cut.

    Attributes:
        block_m, block_n, halves: a tile is block_m x (halves * block_n).
        stages: k-steps of operands in flight.
        warps: of one program; two warpgroups (8) share a tile of 128 rows.
        per_sm: programs that live on one SM and hide each other's promotion.
        group_m: rows of tiles walked together, so that B stays in L2.
        flatten: make one loop of tiles and k-steps, so that the next tile's operands are on their
            way while this one is stored.
        scales_ahead: load the scales of the next k-step into registers while this step's product
            runs, instead of this step's after it.
        specialize: a warpgroup of its own loads for two that multiply (Triton's warp
            specialisation). `warps` is what one of them has: 4. The kernel then makes its
            descriptors, as the compiler has to halve them.
        split_k: programs that share a tile's k-steps, fewer where there are fewer steps.

    Raises:
        ValueError: `specialize` with other than 128 rows, 4 warps and two loops; `split_k` with
            `flatten`, which Triton 3.6 and 3.7 would ignore, or with `specialize`.
    """

    block_m: int = 128
    block_n: int = 128
    halves: int = 1
    stages: int = 4
    warps: int = 8
    per_sm: int = 1
    group_m: int = 8
    flatten: bool = True
    scales_ahead: bool = False
    specialize: bool = False
    split_k: int = 1

    def __post_init__(self) -> None:
        if self.specialize:
            check_specialized(self.block_m, self.warps, flatten=self.flatten)
        if self.split_k < 1:
            raise ValueError(f"split_k: {self.split_k} given, at least 1 is needed")
        if self.split_k > 1 and (self.flatten or self.specialize):
            raise ValueError(
                f"split_k: flatten={self.flatten}, specialize={self.specialize} given, "
                "False is needed for both"
            )


# The candidates of a sweep on a GPU; `choose` picks among them. 128 x 256 is not here: its
# accumulators and partial sums pass 255 registers and spill, also where warpgroups divide the work.
# Those from the sixth on are by what compiles. With the scales a step ahead, no promotion waits for
# a load that was just issued, and the loop is shorter. What is specialised takes 127 to 165
# instructions a step and warpgroup, of 241 where each warpgroup does all, and has 232 registers.
CONFIGS = (
    Config(),
    Config(block_n=64, halves=2),
    Config(block_n=64, halves=2, flatten=False),
    Config(block_m=64, stages=3, warps=4, per_sm=2),
    Config(block_m=64, stages=6, warps=4),
    Config(block_n=64, halves=2, scales_ahead=True),
    Config(block_m=64, stages=6, warps=4, scales_ahead=True),
    Config(warps=4, flatten=False, specialize=True),
    Config(warps=4, flatten=False, scales_ahead=True, specialize=True),
    Config(block_n=64, halves=2, warps=4, flatten=False, scales_ahead=True, specialize=True),
    # Decode has 10 to 112 tiles for 132 SMs: two programs an SM, or four for a tile.
    Config(block_m=64, stages=3, warps=4, per_sm=2, flatten=False, scales_ahead=True, split_k=2),
    Config(block_m=64, stages=6, warps=4, flatten=False, scales_ahead=True, split_k=4),
)

CLASSES = {"m": (64, 512), "n": (1024,)}

SUM_ROWS, SUM_COLS = 4, 512  # of a program that adds parts


@measured(Config, CLASSES)
def choose(m: int, n: int, sms: int) -> Config:
    """Return the tile for a shape. By reasoning, not yet by measurement on a GPU.

    Two halves of 64 columns let the second product run while the first is promoted. Where tiles of
    128 rows would leave SMs idle, tiles of 64 rows fill them and load deeper.
    """
    if m <= 64 or ceil_div(m, 128) * ceil_div(n, 128) * 2 <= sms:
        return Config(block_m=64, stages=6, warps=4)
    return Config(block_n=64, halves=2)


@triton.jit
def tile_of(index, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    """Return row and column of a tile: GROUP_M rows of tiles at a time, so that B stays in L2."""
    per_group = GROUP_M * tiles_n
    first = index // per_group * GROUP_M
    rows = min(tiles_m - first, GROUP_M)
    return first + index % per_group % rows, index % per_group // rows


@triton.jit
def products(
    a_desc, b_desc, row, b_row, sa_ptrs, sb_left, sb_right, first, end, sa_stride_k, sb_stride_k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, HALVES: tl.constexpr,
    STAGES: tl.constexpr, AHEAD: tl.constexpr, SPECIALIZE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Return a tile's two halves summed over k-steps; of one half, the second is zeros."""
    left = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    right = left
    if AHEAD:
        # Carried as a column: a vector here stops the compiler from halving the tile.
        next_sa = tl.load(sa_ptrs + first * sa_stride_k)[:, None]
        next_left = tl.load(sb_left + first * sb_stride_k)
        next_right = tl.load(sb_right + first * sb_stride_k)
    for step in tl.range(first, end, num_stages=STAGES, warp_specialize=SPECIALIZE):
        at = step * BLOCK_K
        if AHEAD:
            sa, scale_left, scale_right = next_sa, next_left, next_right
            ahead = min(step + 1, end - 1)
            next_sa = tl.load(sa_ptrs + ahead * sa_stride_k)[:, None]
            next_left = tl.load(sb_left + ahead * sb_stride_k)
            if HALVES == 2:
                next_right = tl.load(sb_right + ahead * sb_stride_k)
        a = operand(a_desc.load([row, at]), UPCAST)
        b = operand(b_desc.load([b_row, at]), UPCAST)
        part = tl.dot(a, b.T)
        if not AHEAD:
            sa = tl.load(sa_ptrs + step * sa_stride_k)[:, None]
            scale_left = tl.load(sb_left + step * sb_stride_k)
        left += part * (sa * scale_left)
        if HALVES == 2:
            b = operand(b_desc.load([b_row + BLOCK_N, at]), UPCAST)
            part = tl.dot(a, b.T)
            if not AHEAD:
                scale_right = tl.load(sb_right + step * sb_stride_k)
            right += part * (sa * scale_right)
    return left, right


@triton.jit
def as_stored(tile, SPLITS: tl.constexpr, UPCAST: tl.constexpr):
    """Return a whole sum in bf16, a part of one in fp32."""
    if SPLITS == 1:
        tile = to_bf16(tile, UPCAST)
    return tile


@triton.jit
def _fp8_gemm_kernel(
    a_desc, b_desc, c_desc, sa_ptr, sb_ptr,
    m, n, k, a_stride, b_stride, c_stride, sa_stride_m, sa_stride_k, sb_stride_n, sb_stride_k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, HALVES: tl.constexpr,
    GROUP_M: tl.constexpr, STAGES: tl.constexpr, FLATTEN: tl.constexpr, AHEAD: tl.constexpr,
    SPECIALIZE: tl.constexpr, SPLITS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    if SPECIALIZE:  # what is given are pointers
        a_desc = tl.make_tensor_descriptor(a_desc, [m, k], [a_stride, 1], [BLOCK_M, BLOCK_K])
        b_desc = tl.make_tensor_descriptor(b_desc, [n, k], [b_stride, 1], [BLOCK_N, BLOCK_K])
        c_desc = tl.make_tensor_descriptor(c_desc, [m, n], [c_stride, 1], [BLOCK_M, BLOCK_N])
    tiles_m = tl.cdiv(m, BLOCK_M)
    tiles_n = tl.cdiv(n, BLOCK_N * HALVES)
    steps, last_scale = tl.cdiv(k, BLOCK_K), tl.cdiv(n, BLOCK_K) - 1
    for index in tl.range(
        tl.program_id(0), tiles_m * tiles_n * SPLITS, tl.num_programs(0), flatten=FLATTEN
    ):
        if SPLITS == 1:
            tile_m, tile_n = tile_of(index, tiles_m, tiles_n, GROUP_M)
            first, end, part_row = 0, steps, 0
        else:
            tiles, each = tiles_m * tiles_n, tl.cdiv(steps, SPLITS)
            tile_m, tile_n = tile_of(index % tiles, tiles_m, tiles_n, GROUP_M)
            split = index // tiles
            first, end = split * each, min((split + 1) * each, steps)
            part_row = split * tiles_m * BLOCK_M
        row, col = tile_m * BLOCK_M, tile_n * BLOCK_N * HALVES
        # Rows past the end read the last row's scale; their products are clipped by the store.
        sa_ptrs = sa_ptr + tl.minimum(row + tl.arange(0, BLOCK_M), m - 1) * sa_stride_m
        sb_left = sb_ptr + col // BLOCK_K * sb_stride_n
        sb_right = sb_ptr + min((col + BLOCK_N) // BLOCK_K, last_scale) * sb_stride_n
        left, right = products(
            a_desc, b_desc, row, col, sa_ptrs, sb_left, sb_right, first, end,
            sa_stride_k, sb_stride_k, BLOCK_M, BLOCK_N, BLOCK_K, HALVES, STAGES, AHEAD, SPECIALIZE,
            UPCAST,
        )  # fmt: skip
        c_desc.store([part_row + row, col], as_stored(left, SPLITS, UPCAST))
        if HALVES == 2:
            c_desc.store([part_row + row, col + BLOCK_N], as_stored(right, SPLITS, UPCAST))


@triton.jit
def _sum_splits_kernel(
    c_ptr, parts_ptr, m, n, c_stride, rows_a_part,
    SPLITS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Add the parts, each of which has `rows_a_part` rows in whole tiles, and round once."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = (rows < m)[:, None] & (cols < n)[None, :]
    total = tl.zeros((ROWS, COLS), tl.float32)
    for part in tl.static_range(SPLITS):  # always in this order
        at = (part * rows_a_part + rows).to(tl.int64)[:, None] * n + cols[None, :]
        total += tl.load(parts_ptr + at, mask=inside, other=0.0)
    at = rows.to(tl.int64)[:, None] * c_stride + cols[None, :]
    tl.store(c_ptr + at, to_bf16(total, UPCAST), mask=inside)


def launch(
    a: Tensor,
    sa: Tensor,
    b: Tensor,
    sb: Tensor,
    *,
    out: Tensor | None = None,
    config: Config | None = None,
    sms: int | None = None,
) -> Tensor:
    """Return C = A B^T in bf16, scales applied, computed on at most `sms` SMs.

    Raises:
        ValueError: shapes or formats do not fit, or rows are not on 16-byte steps.
    """
    check_rank("a", a, 2)
    check_rank("b", b, 2)
    (m, k), n = a.shape, b.shape[0]
    check("a", a, (m, k), FP8)
    check("b", b, (n, k), FP8)
    check("sa", sa, (m, ceil_div(k, BLOCK)), torch.float32)
    check("sb", sb, (ceil_div(n, BLOCK), ceil_div(k, BLOCK)), torch.float32)
    c = torch.empty(m, n, dtype=torch.bfloat16, device=a.device) if out is None else out
    check("out", c, (m, n), torch.bfloat16)
    if 0 in (m, n):
        return c
    for name, tensor in (("a", a), ("b", b), ("out", c)):
        check_rows(name, tensor)
    cfg = config or choose(m, n, programs(1 << 30, a.device, sms), device=a.device)
    tiles_m = ceil_div(m, cfg.block_m)
    tiles = tiles_m * ceil_div(n, cfg.block_n * cfg.halves)
    steps = ceil_div(k, BLOCK)
    splits = ceil_div(steps, ceil_div(steps, cfg.split_k))  # so that none is empty
    parts = c
    if splits > 1:
        parts = torch.empty(splits * tiles_m * cfg.block_m, n, dtype=torch.float32, device=a.device)
    operands = (
        TensorDescriptor.from_tensor(a, [cfg.block_m, BLOCK]),
        TensorDescriptor.from_tensor(b, [cfg.block_n, BLOCK]),
        TensorDescriptor.from_tensor(parts, [cfg.block_m, cfg.block_n]),
    )
    with_scratch(
        _fp8_gemm_kernel[(programs(tiles * splits, a.device, sms, cfg.per_sm),)],
        *((a, b, c) if cfg.specialize else operands),
        sa, sb, m, n, k, a.stride(0), b.stride(0), c.stride(0), *sa.stride(), *sb.stride(),
        BLOCK_M=cfg.block_m, BLOCK_N=cfg.block_n, BLOCK_K=BLOCK, HALVES=cfg.halves,
        GROUP_M=cfg.group_m, STAGES=cfg.stages, FLATTEN=cfg.flatten, AHEAD=cfg.scales_ahead,
        SPECIALIZE=cfg.specialize, SPLITS=splits, UPCAST=interpreting(), num_warps=cfg.warps,
    )  # fmt: skip
    if splits > 1:
        _sum_splits_kernel[(ceil_div(m, SUM_ROWS), ceil_div(n, SUM_COLS))](
            c, parts, m, n, c.stride(0), tiles_m * cfg.block_m,
            SPLITS=splits, ROWS=SUM_ROWS, COLS=SUM_COLS, UPCAST=interpreting(),
        )  # fmt: skip
    return c


def reference(a: Tensor, sa: Tensor, b: Tensor, sb: Tensor) -> Tensor:
    """Return C in float64 from the dequantised operands."""
    return dequantize_rows(a, sa) @ dequantize_blocks(b, sb).T


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return fresh random operands for `launch`."""
    m, n, k = shape["m"], shape["n"], shape["k"]
    a, sa = quantize_rows(normal((m, k), device, seed))
    b, sb = quantize_blocks(normal((n, k), device, seed + 1))
    return {"a": a, "sa": sa, "b": b, "sb": sb}


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return FLOPs and least bytes: operands read once, C written once, scales not counted."""
    m, n, k = float(shape["m"]), float(shape["n"]), float(shape["k"])
    return 2 * m * n * k, m * k + n * k + 2 * m * n


def adapt_torch(args: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the arguments of `launch` with B's scales as cuBLAS wants them, made once.

    It takes them transposed, and padded to a multiple of four blocks along k.
    """
    sb = args["sb"]
    padded = sb.new_zeros(sb.shape[0], round_up(sb.shape[1], 4))
    padded[:, : sb.shape[1]] = sb
    return args | {"sb": padded.t()}


def launch_torch(a: Tensor, sa: Tensor, b: Tensor, sb: Tensor) -> Tensor:
    """Return C by cuBLAS with the same scaling (torch 2.10, CUDA 12.9 and Hopper or newer)."""
    kinds = torch.nn.functional.ScalingType
    return torch.nn.functional.scaled_mm(
        a, b.t(), sa, kinds.BlockWise1x128, sb, kinds.BlockWise128x128,
        output_dtype=torch.bfloat16,
    )  # fmt: skip


PROVIDERS = {"moesim": launch, "torch": launch_torch}
# What a provider's arguments need before it is timed.
ADAPT = {"torch": adapt_torch}
