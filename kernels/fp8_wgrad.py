"""FP8 weight gradient, added to an FP32 gradient that is already there; dense or one per expert.

    D[g, i, j] += sum_b  SA[i, b] SB[j, b]  sum_{t in block b} A[i, t] B[j, t]
    over the blocks b of 128 tokens of group g: starts[g] <= t < starts[g] + counts[g]

A (m, tokens) fp8 e4m3: the output gradient, transposed; SA (m, ceil(tokens/128)) fp32
B (n, tokens) fp8 e4m3: the layer's input, transposed; SB (n, ceil(tokens/128)) fp32
starts, counts (groups,) int32 on the device; starts are multiples of 128
D (groups, m, n) fp32, read and written: gradients of several micro-batches add up in it

The sum runs over tokens, so both operands are stored token-last and scaled in runs of 128 tokens
of one channel (`cast_transpose` makes them). Tokens between a group's end and the next multiple of
128 must be zeros. Dense is the case of one group.

The tile leaves by TMA reduction (cp.reduce.async.bulk): the addition happens in L2, the SM never
reads D. The interpreter has no such operation and adds on its own, and so do warpgroups that divide
the work, as Triton 3.6 and 3.7 cannot halve a reduction: there the SM reads D, also that of a group
without tokens. `halves` and `flatten` of the configuration are not used: two vectors of scales fill
the registers, and a group may have no k-step at all.

References: DeepSeek-V3, arXiv 2412.19437 §3.3; DeepGEMM's k-grouped kernels.
"""

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
from kernels._numerics import dequantize_rows, normal, operand, quantize_rows
from kernels.fp8_gemm import Config, tile_of

FORMAT = "fp8_fp32"

# DeepSeek-V3, 4096 tokens: o, q_b, kv_b, q_a, kv_a, shared up+gate and down; 4 routed experts up
# and down; ragged experts, one of them without tokens.
SHAPES = (
    {"counts": (4096,), "m": 7168, "n": 16384},
    {"counts": (4096,), "m": 24576, "n": 1536},
    {"counts": (4096,), "m": 32768, "n": 512},
    {"counts": (4096,), "m": 1536, "n": 7168},
    {"counts": (4096,), "m": 576, "n": 7168},
    {"counts": (4096,), "m": 4096, "n": 7168},
    {"counts": (4096,), "m": 7168, "n": 2048},
    {"counts": (8192,) * 4, "m": 4096, "n": 7168},
    {"counts": (8192,) * 4, "m": 7168, "n": 2048},
    {"counts": (8951, 0, 7423, 8190), "m": 7168, "n": 2048},
)
TINY = {"counts": (7, 0), "m": 16, "n": 24}

# The candidates of a sweep on a GPU; `choose` picks among them. The last two are by what compiles:
# a k-step takes 204 instructions of a warpgroup instead of 268 (Triton 3.7) or 331 (3.6). Scales
# are a step ahead there alone: with two warpgroups that do all, they spill on Triton 3.6.
CONFIGS = (
    Config(stages=3),
    Config(block_m=64, stages=3, warps=4, per_sm=2),
    Config(warps=4, flatten=False, specialize=True),
    Config(warps=4, flatten=False, scales_ahead=True, specialize=True),
)

CLASSES = {"groups": (1,)}


@measured(Config, CLASSES)
def choose(m: int, n: int, groups: int, sms: int) -> Config:
    """Return the tile: 64 rows where tiles of 128 leave SMs idle. By reasoning, not measured."""
    if groups * ceil_div(m, 128) * ceil_div(n, 128) * 2 <= sms:
        return Config(block_m=64, stages=4, warps=4)
    return Config(stages=4)


@triton.jit
def add_tile(d_ptr, tile, row, col, m, n, stride, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Add a tile to the gradient of a group, which nobody else adds to, by a load and a store."""
    rows, cols = row + tl.arange(0, BLOCK_M), col + tl.arange(0, BLOCK_N)
    at = d_ptr + rows.to(tl.int64)[:, None] * stride + cols[None, :]
    inside = (rows < m)[:, None] & (cols < n)[None, :]
    tl.store(at, tl.load(at, mask=inside) + tile, mask=inside)


@triton.jit
def _fp8_wgrad_kernel(
    a_desc, b_desc, d_desc, d_ptr, sa_ptr, sb_ptr, starts_ptr, counts_ptr,
    m, n, tokens, groups, a_stride, b_stride, d_stride_g, d_stride_m,
    sa_stride_m, sa_stride_k, sb_stride_n, sb_stride_k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    STAGES: tl.constexpr, AHEAD: tl.constexpr, SPECIALIZE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    if SPECIALIZE:  # what is given are pointers
        a_desc = tl.make_tensor_descriptor(a_desc, [m, tokens], [a_stride, 1], [BLOCK_M, BLOCK_K])
        b_desc = tl.make_tensor_descriptor(b_desc, [n, tokens], [b_stride, 1], [BLOCK_N, BLOCK_K])
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    per_group = tiles_m * tiles_n
    for index in tl.range(tl.program_id(0), groups * per_group, tl.num_programs(0)):
        group = index // per_group
        tile_m, tile_n = tile_of(index % per_group, tiles_m, tiles_n, GROUP_M)
        row, col = tile_m * BLOCK_M, tile_n * BLOCK_N
        first = tl.load(starts_ptr + group) // BLOCK_K
        steps = tl.cdiv(tl.load(counts_ptr + group), BLOCK_K)
        sa_ptrs = sa_ptr + tl.minimum(row + tl.arange(0, BLOCK_M), m - 1) * sa_stride_m
        sb_ptrs = sb_ptr + tl.minimum(col + tl.arange(0, BLOCK_N), n - 1) * sb_stride_n
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        if AHEAD:
            # A group without tokens may start where the last one ends: past the last scale.
            ahead = min(first, tl.cdiv(tokens, BLOCK_K) - 1)
            next_sa = tl.load(sa_ptrs + ahead * sa_stride_k)[:, None]
            next_sb = tl.load(sb_ptrs + ahead * sb_stride_k)[None, :]
        for step in tl.range(first, first + steps, num_stages=STAGES, warp_specialize=SPECIALIZE):
            if AHEAD:
                sa, sb = next_sa, next_sb
                ahead = min(step + 1, first + steps - 1)
                next_sa = tl.load(sa_ptrs + ahead * sa_stride_k)[:, None]
                next_sb = tl.load(sb_ptrs + ahead * sb_stride_k)[None, :]
            a = operand(a_desc.load([row, step * BLOCK_K]), UPCAST)
            b = operand(b_desc.load([col, step * BLOCK_K]), UPCAST)
            part = tl.dot(a, b.T)
            if not AHEAD:
                # After the product, so that no register holds a scale while it runs.
                sa = tl.load(sa_ptrs + step * sa_stride_k)[:, None]
                sb = tl.load(sb_ptrs + step * sb_stride_k)[None, :]
            total += part * sa * sb
        if SPECIALIZE:
            d_ptrs = d_ptr + group.to(tl.int64) * d_stride_g
            add_tile(d_ptrs, total, row, col, m, n, d_stride_m, BLOCK_M, BLOCK_N)
        elif steps > 0:
            tile = total.reshape([1, BLOCK_M, BLOCK_N])
            if UPCAST:
                d_desc.store([group, row, col], d_desc.load([group, row, col]) + tile)
            else:
                d_desc.atomic_add([group, row, col], tile)


def launch(
    a: Tensor,
    sa: Tensor,
    b: Tensor,
    sb: Tensor,
    starts: Tensor,
    counts: Tensor,
    out: Tensor,
    *,
    config: Config | None = None,
    sms: int | None = None,
) -> Tensor:
    """Add the weight gradient of each group to `out` and return it, using at most `sms` SMs.

    Raises:
        ValueError: shapes or formats do not fit, rows are not on 16-byte steps, or the
            configuration has tiles shared along k, which this product does not know.
    """
    check_rank("a", a, 2)
    check_rank("b", b, 2)
    (m, tokens), n, groups = a.shape, b.shape[0], starts.shape[0]
    check("a", a, (m, tokens), FP8)
    check("b", b, (n, tokens), FP8)
    check("sa", sa, (m, ceil_div(tokens, BLOCK)), torch.float32)
    check("sb", sb, (n, ceil_div(tokens, BLOCK)), torch.float32)
    check("starts", starts, (groups,), torch.int32)
    check("counts", counts, (groups,), torch.int32)
    check("out", out, (groups, m, n), torch.float32)
    if tokens == 0:
        return out
    for name, tensor in (("a", a), ("b", b), ("out", out)):
        check_rows(name, tensor)
    cfg = config or choose(m, n, groups, programs(1 << 30, a.device, sms), device=a.device)
    if cfg.split_k != 1:
        raise ValueError(f"config: split_k={cfg.split_k} given, a weight gradient takes 1")
    tiles = groups * ceil_div(m, cfg.block_m) * ceil_div(n, cfg.block_n)
    operands = (
        TensorDescriptor.from_tensor(a, [cfg.block_m, BLOCK]),
        TensorDescriptor.from_tensor(b, [cfg.block_n, BLOCK]),
        TensorDescriptor.from_tensor(out, [1, cfg.block_m, cfg.block_n]),
    )
    with_scratch(
        _fp8_wgrad_kernel[(programs(tiles, a.device, sms, cfg.per_sm),)],
        *((a, b, out) if cfg.specialize else operands),
        out, sa, sb, starts, counts, m, n, tokens, groups, a.stride(0), b.stride(0),
        out.stride(0), out.stride(1), *sa.stride(), *sb.stride(),
        BLOCK_M=cfg.block_m, BLOCK_N=cfg.block_n, BLOCK_K=BLOCK, GROUP_M=cfg.group_m,
        STAGES=cfg.stages, AHEAD=cfg.scales_ahead, SPECIALIZE=cfg.specialize,
        UPCAST=interpreting(), num_warps=cfg.warps,
    )  # fmt: skip
    return out


def reference(
    a: Tensor, sa: Tensor, b: Tensor, sb: Tensor, starts: Tensor, counts: Tensor, out: Tensor
) -> Tensor:
    """Return the sum in float64; `out` is only read."""
    left, right, total = dequantize_rows(a, sa), dequantize_rows(b, sb), out.double()
    for g, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        total[g] += left[:, start : start + count] @ right[:, start : start + count].T
    return total


def inputs(shape: dict, device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return fresh random operands for `launch`, zeros between a group's end and the next start."""
    counts, m, n = tuple(shape["counts"]), shape["m"], shape["n"]
    tokens = sum(round_up(count, BLOCK) for count in counts)
    x, y = normal((m, tokens), device, seed), normal((n, tokens), device, seed + 1)
    starts, start = [], 0
    for count in counts:
        starts.append(start)
        x[:, start + count : start + round_up(count, BLOCK)] = 0
        y[:, start + count : start + round_up(count, BLOCK)] = 0
        start += round_up(count, BLOCK)
    (a, sa), (b, sb) = quantize_rows(x), quantize_rows(y)
    on = {"dtype": torch.int32, "device": device}
    return {
        "a": a,
        "sa": sa,
        "b": b,
        "sb": sb,
        "starts": torch.tensor(starts, **on),
        "counts": torch.tensor(counts, **on),
        "out": normal((len(counts), m, n), device, seed + 2, torch.float32),
    }


def work(shape: dict) -> tuple[float, float]:
    """Return FLOPs and least bytes: operands read once, the FP32 gradient read and written."""
    tokens, m, n = float(sum(shape["counts"])), float(shape["m"]), float(shape["n"])
    return 2 * tokens * m * n, (m + n) * tokens + 8 * m * n * len(shape["counts"])


PROVIDERS = {"moesim": launch}
