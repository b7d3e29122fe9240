"""Causal attention of multi-head latent attention (MLA) as it trains and prefills.

    S = c Q K^T, masked above the diagonal;   P = softmax(S);   O = P V;   lse = log sum exp S

Q, K (batch, length, heads, 192) bf16: 128 channels of content and 64 of position, c = 192^(-1/2)
V (batch, length, heads, 128) bf16
O (batch, length, heads, 128) bf16, lse (batch, heads, length) fp32 for the backward pass

The latent is expanded to full keys and values before this kernel (not absorbed). One program makes
a block of queries of one head, keys stream by with an online softmax: first the blocks below the
diagonal, then those on it. Channels are taken as 128 + 64, for block sizes are powers of two. The
longest rows start first, so that the last wave is short.

References: Dao, "FlashAttention-2", arXiv 2307.08691; DeepSeek-V2, arXiv 2405.04434 §2.1.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels._device import ceil_div, check, check_rank, interpreting, measured
from kernels._numerics import normal, operand, to_bf16

FORMAT = "bf16"
D_NOPE, D_ROPE, D_V = 128, 64, 128
D_QK = D_NOPE + D_ROPE
LOG2_E = 1.4426950408889634

SHAPES = (
    {"batch": 1, "length": 4096, "heads": 128},
    {"batch": 8, "length": 4096, "heads": 16},
    {"batch": 1, "length": 16384, "heads": 16},
    {"batch": 4, "length": 1024, "heads": 64},
    {"batch": 2, "length": 1037, "heads": 16},
)
TINY = {"batch": 1, "length": 33, "heads": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Queries of a program, keys of a step, loads in flight, warps."""

    queries: int = 128
    keys: int = 64
    stages: int = 3
    warps: int = 8


CONFIGS = (Config(), Config(keys=128, stages=2), Config(queries=64, keys=64, stages=2, warps=4))
CLASSES = {"length": (2048,)}


@measured(Config, CLASSES)
def choose(length: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def load_rows(desc, batch, row, col, ROWS: tl.constexpr, COLS: tl.constexpr, UPCAST: tl.constexpr):
    """Load rows of one sequence; rows past its end are zeros, not the next sequence's."""
    return operand(desc.load([batch, row, col]).reshape([ROWS, COLS]), UPCAST)


@triton.jit
def _attend(
    out, peak, total, q_n, q_r, kn_desc, kr_desc, v_desc, batch, head, first, last, rows, length,
    scale, MASK: tl.constexpr, KEYS: tl.constexpr, STAGES: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Take keys first..last into the running softmax of (out, peak, total)."""
    for key in tl.range(first, last, KEYS, num_stages=STAGES):
        k_n = load_rows(kn_desc, batch, key, head * 192, KEYS, 128, UPCAST)
        k_r = load_rows(kr_desc, batch, key, head * 192 + 128, KEYS, 64, UPCAST)
        s = tl.dot(q_n, k_n.T)
        s = tl.dot(q_r, k_r.T, s) * scale
        if MASK:
            keys = key + tl.arange(0, KEYS)[None, :]
            s = tl.where((keys <= rows[:, None]) & (keys < length), s, -float("inf"))
        higher = tl.maximum(peak, tl.max(s, 1))
        p = tl.exp2(s - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        out = out * shrink[:, None]
        v = load_rows(v_desc, batch, key, head * 128, KEYS, 128, UPCAST)
        out = tl.dot(operand(to_bf16(p, UPCAST), UPCAST), v, out)
        peak = higher
    return out, peak, total


@triton.jit
def _mla_prefill_kernel(
    qn_desc, qr_desc, kn_desc, kr_desc, v_desc, o_desc, lse_ptr, heads, length, scale,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, STAGES: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    row = (tl.num_programs(0) - 1 - tl.program_id(0)) * QUERIES
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    rows = row + tl.arange(0, QUERIES)
    q_n = load_rows(qn_desc, batch, row, head * 192, QUERIES, 128, UPCAST)
    q_r = load_rows(qr_desc, batch, row, head * 192 + 128, QUERIES, 64, UPCAST)
    out = tl.zeros((QUERIES, 128), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    peak = tl.full((QUERIES,), -float("inf"), tl.float32)
    out, peak, total = _attend(
        out, peak, total, q_n, q_r, kn_desc, kr_desc, v_desc, batch, head, 0, row, rows, length,
        scale, False, KEYS, STAGES, UPCAST,
    )  # fmt: skip
    out, peak, total = _attend(
        out, peak, total, q_n, q_r, kn_desc, kr_desc, v_desc, batch, head, row,
        min(row + QUERIES, length), rows, length, scale, True, KEYS, STAGES, UPCAST,
    )  # fmt: skip
    o = to_bf16(out / total[:, None], UPCAST)
    o_desc.store([batch, row, head * 128], o.reshape([1, QUERIES, 128]))
    lse = (peak + tl.log2(total)) * 0.6931471805599453
    tl.store(lse_ptr + tl.program_id(1).to(tl.int64) * length + rows, lse, mask=rows < length)


def rows_of(x: Tensor, rows: int, cols: int) -> TensorDescriptor:
    """Return a descriptor of `rows` rows x `cols` channels of one sequence of (b, s, h, d)."""
    flat = x.view(x.shape[0], x.shape[1], -1)
    return TensorDescriptor.from_tensor(flat, [1, rows, cols])


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, int, int]:
    """Refuse anything but contiguous MLA tensors; return batch, length, heads."""
    check_rank("q", q, 4)
    batch, length, heads = q.shape[:3]
    for name, tensor, dim in (("q", q, D_QK), ("k", k, D_QK), ("v", v, D_V)):
        check(name, tensor, (batch, length, heads, dim), torch.bfloat16)
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: must be contiguous")
    return batch, length, heads


def launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    out: tuple[Tensor, Tensor] | None = None,
    config: Config | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (O, lse).

    Raises:
        ValueError: shapes or formats do not fit, or tensors are not contiguous.
    """
    batch, length, heads = check_qkv(q, k, v)
    o, lse = out or (
        torch.empty_like(v),
        torch.empty(batch, heads, length, dtype=torch.float32, device=q.device),
    )
    check("out: o", o, (batch, length, heads, D_V), torch.bfloat16)
    check("out: lse", lse, (batch, heads, length), torch.float32)
    if q.numel() == 0:
        return o, lse
    cfg = config or choose(length, device=q.device)
    if cfg.queries % cfg.keys:
        raise ValueError(f"config: {cfg.queries} queries are no multiple of {cfg.keys} keys")
    _mla_prefill_kernel[(ceil_div(length, cfg.queries), batch * heads)](
        rows_of(q, cfg.queries, D_NOPE), rows_of(q, cfg.queries, D_ROPE),
        rows_of(k, cfg.keys, D_NOPE), rows_of(k, cfg.keys, D_ROPE), rows_of(v, cfg.keys, D_V),
        rows_of(o, cfg.queries, D_V), lse, heads, length, D_QK**-0.5 * LOG2_E,
        QUERIES=cfg.queries, KEYS=cfg.keys, STAGES=cfg.stages, UPCAST=interpreting(),
        num_warps=cfg.warps,
    )  # fmt: skip
    return o, lse


def reference(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return (O, lse) in float64."""
    s = torch.einsum("bqhd,bkhd->bhqk", q.double(), k.double()) * D_QK**-0.5
    length = q.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    s = s.masked_fill(later, -torch.inf)
    return torch.einsum("bhqk,bkhd->bqhd", s.softmax(3), v.double()), s.logsumexp(3)


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return fresh random queries, keys and values."""
    size = (shape["batch"], shape["length"], shape["heads"])
    return {
        "q": normal((*size, D_QK), device, seed),
        "k": normal((*size, D_QK), device, seed + 1),
        "v": normal((*size, D_V), device, seed + 2),
    }


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return FLOPs of the lower triangle (half the square), and bytes of q, k, v and o."""
    batch, length, heads = (float(shape[name]) for name in ("batch", "length", "heads"))
    flops = batch * heads * length**2 * (D_QK + D_V)
    return flops, batch * length * heads * (2 * D_QK + 2 * D_V) * 2


def launch_sdpa(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
    """Return (O,) of torch's scaled_dot_product_attention, whichever backend takes 192/128."""
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    o = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=True)
    return (o.transpose(1, 2),)


PROVIDERS = {"moesim": launch, "torch": launch_sdpa}
