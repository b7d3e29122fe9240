"""Gradient of MLA training attention (`mla_prefill`).

    P = exp(c Q K^T - lse), masked;   D = sum_d dO o O;   dS = P o (dO V^T - D)
    dV = P^T dO;   dK = c dS^T Q;   dQ = c dS K

Q, K, dQ, dK (batch, length, heads, 192) bf16;  V, O, dO, dV (batch, length, heads, 128) bf16
lse (batch, heads, length) fp32 from the forward pass

Three kernels and no atomics, so that two runs agree bit for bit: D; then dK and dV, a program per
block of keys that queries stream by; then dQ, a program per block of queries. The scores and dO V^T
are made twice: 7 matrix products where the count of `work` (and of the literature) has 5.

Reference: Dao, "FlashAttention-2", arXiv 2307.08691 §3.1, §3.2.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import mla_prefill
from kernels._device import ceil_div, check, interpreting, measured
from kernels._numerics import normal, operand, to_bf16
from kernels.mla_prefill import D_NOPE, D_QK, D_ROPE, D_V, LOG2_E, check_qkv, load_rows, rows_of

FORMAT = "bf16_gradient"

SHAPES = (
    {"batch": 1, "length": 4096, "heads": 128},
    {"batch": 8, "length": 4096, "heads": 16},
    {"batch": 2, "length": 1037, "heads": 16},
)
TINY = {"batch": 1, "length": 33, "heads": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Outer and streamed blocks of the two kernels, loads in flight, warps."""

    outer_dkv: int = 64
    inner_dkv: int = 64
    outer_dq: int = 128
    inner_dq: int = 64
    stages: int = 2
    warps: int = 8


CONFIGS = (Config(), Config(inner_dkv=32), Config(outer_dkv=128, inner_dkv=32, outer_dq=64))
CLASSES = {"length": (2048,)}


@measured(Config, CLASSES)
def choose(length: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def _delta_kernel(
    o_ptr, do_ptr, delta_ptr, rows_end, heads, length,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # (batch, position, head), flattened
    at = rows.to(tl.int64)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    live = (rows < rows_end)[:, None]
    o = tl.load(o_ptr + at, mask=live, other=0.0).to(tl.float32)
    do = tl.load(do_ptr + at, mask=live, other=0.0).to(tl.float32)
    head, position = rows % heads, rows // heads
    to = (position // length * heads + head).to(tl.int64) * length + position % length
    tl.store(delta_ptr + to, tl.sum(o * do, 1), mask=rows < rows_end)


@triton.jit
def _queries(
    dk_n, dk_r, dv, k_n, k_r, v, qn_desc, qr_desc, do_desc, lse_ptr, delta_ptr, batch, head,
    first, last, keys, length, scale, MASK: tl.constexpr, QUERIES: tl.constexpr,
    STAGES: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Add what queries first..last give to the gradients of a block of keys and values."""
    for query in tl.range(first, last, QUERIES, num_stages=STAGES):
        rows = query + tl.arange(0, QUERIES)
        q_n = load_rows(qn_desc, batch, query, head * 192, QUERIES, 128, UPCAST)
        q_r = load_rows(qr_desc, batch, query, head * 192 + 128, QUERIES, 64, UPCAST)
        do = load_rows(do_desc, batch, query, head * 128, QUERIES, 128, UPCAST)
        # Queries past the end: an infinite lse makes their probabilities zero.
        lse = tl.load(lse_ptr + rows, mask=rows < length, other=float("inf"))
        delta = tl.load(delta_ptr + rows, mask=rows < length, other=0.0)
        s = tl.dot(k_n, q_n.T)
        s = tl.dot(k_r, q_r.T, s) * scale - (lse * 1.4426950408889634)[None, :]
        if MASK:
            s = tl.where(keys[:, None] <= rows[None, :], s, -float("inf"))
        p = tl.exp2(s)
        dv = tl.dot(operand(to_bf16(p, UPCAST), UPCAST), do, dv)
        ds = p * (tl.dot(v, do.T) - delta[None, :])
        ds = operand(to_bf16(ds, UPCAST), UPCAST)
        dk_n = tl.dot(ds, q_n, dk_n)
        dk_r = tl.dot(ds, q_r, dk_r)
    return dk_n, dk_r, dv


@triton.jit
def _dkv_kernel(
    qn_desc, qr_desc, do_desc, kn_desc, kr_desc, v_desc, dkn_desc, dkr_desc, dv_desc,
    lse_ptr, delta_ptr, heads, length, scale, softmax_scale,
    KEYS: tl.constexpr, QUERIES: tl.constexpr, STAGES: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    key = tl.program_id(0) * KEYS
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    lse_ptr += tl.program_id(1).to(tl.int64) * length
    delta_ptr += tl.program_id(1).to(tl.int64) * length
    keys = key + tl.arange(0, KEYS)
    k_n = load_rows(kn_desc, batch, key, head * 192, KEYS, 128, UPCAST)
    k_r = load_rows(kr_desc, batch, key, head * 192 + 128, KEYS, 64, UPCAST)
    v = load_rows(v_desc, batch, key, head * 128, KEYS, 128, UPCAST)
    dk_n = tl.zeros((KEYS, 128), tl.float32)
    dk_r = tl.zeros((KEYS, 64), tl.float32)
    dv = tl.zeros((KEYS, 128), tl.float32)
    below = min(key + KEYS, length)
    dk_n, dk_r, dv = _queries(
        dk_n, dk_r, dv, k_n, k_r, v, qn_desc, qr_desc, do_desc, lse_ptr, delta_ptr, batch, head,
        key, below, keys, length, scale, True, QUERIES, STAGES, UPCAST,
    )  # fmt: skip
    dk_n, dk_r, dv = _queries(
        dk_n, dk_r, dv, k_n, k_r, v, qn_desc, qr_desc, do_desc, lse_ptr, delta_ptr, batch, head,
        key + KEYS, length, keys, length, scale, False, QUERIES, STAGES, UPCAST,
    )  # fmt: skip
    dk_n, dk_r = to_bf16(dk_n * softmax_scale, UPCAST), to_bf16(dk_r * softmax_scale, UPCAST)
    dkn_desc.store([batch, key, head * 192], dk_n.reshape([1, KEYS, 128]))
    dkr_desc.store([batch, key, head * 192 + 128], dk_r.reshape([1, KEYS, 64]))
    dv_desc.store([batch, key, head * 128], to_bf16(dv, UPCAST).reshape([1, KEYS, 128]))


@triton.jit
def _keys(
    dq_n, dq_r, q_n, q_r, do, lse, delta, kn_desc, kr_desc, v_desc, batch, head, first, last, rows,
    scale, MASK: tl.constexpr, KEYS: tl.constexpr, STAGES: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Add what keys first..last give to the gradient of a block of queries."""
    for key in tl.range(first, last, KEYS, num_stages=STAGES):
        k_n = load_rows(kn_desc, batch, key, head * 192, KEYS, 128, UPCAST)
        k_r = load_rows(kr_desc, batch, key, head * 192 + 128, KEYS, 64, UPCAST)
        v = load_rows(v_desc, batch, key, head * 128, KEYS, 128, UPCAST)
        s = tl.dot(q_n, k_n.T)
        s = tl.dot(q_r, k_r.T, s) * scale - lse[:, None]
        if MASK:
            s = tl.where((key + tl.arange(0, KEYS))[None, :] <= rows[:, None], s, -float("inf"))
        ds = tl.exp2(s) * (tl.dot(do, v.T) - delta[:, None])
        ds = operand(to_bf16(ds, UPCAST), UPCAST)
        dq_n = tl.dot(ds, k_n, dq_n)
        dq_r = tl.dot(ds, k_r, dq_r)
    return dq_n, dq_r


@triton.jit
def _dq_kernel(
    qn_desc, qr_desc, do_desc, kn_desc, kr_desc, v_desc, dqn_desc, dqr_desc, lse_ptr, delta_ptr,
    heads, length, scale, softmax_scale,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, STAGES: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    row = (tl.num_programs(0) - 1 - tl.program_id(0)) * QUERIES
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    rows = row + tl.arange(0, QUERIES)
    at = tl.program_id(1).to(tl.int64) * length + rows
    lse = tl.load(lse_ptr + at, mask=rows < length, other=float("inf")) * 1.4426950408889634
    delta = tl.load(delta_ptr + at, mask=rows < length, other=0.0)
    q_n = load_rows(qn_desc, batch, row, head * 192, QUERIES, 128, UPCAST)
    q_r = load_rows(qr_desc, batch, row, head * 192 + 128, QUERIES, 64, UPCAST)
    do = load_rows(do_desc, batch, row, head * 128, QUERIES, 128, UPCAST)
    dq_n = tl.zeros((QUERIES, 128), tl.float32)
    dq_r = tl.zeros((QUERIES, 64), tl.float32)
    dq_n, dq_r = _keys(
        dq_n, dq_r, q_n, q_r, do, lse, delta, kn_desc, kr_desc, v_desc, batch, head, 0, row, rows,
        scale, False, KEYS, STAGES, UPCAST,
    )  # fmt: skip
    dq_n, dq_r = _keys(
        dq_n, dq_r, q_n, q_r, do, lse, delta, kn_desc, kr_desc, v_desc, batch, head, row,
        min(row + QUERIES, length), rows, scale, True, KEYS, STAGES, UPCAST,
    )  # fmt: skip
    dq_n, dq_r = to_bf16(dq_n * softmax_scale, UPCAST), to_bf16(dq_r * softmax_scale, UPCAST)
    dqn_desc.store([batch, row, head * 192], dq_n.reshape([1, QUERIES, 128]))
    dqr_desc.store([batch, row, head * 192 + 128], dq_r.reshape([1, QUERIES, 64]))


def launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    do: Tensor,
    *,
    out: tuple[Tensor, Tensor, Tensor] | None = None,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dQ, dK, dV).

    Raises:
        ValueError: shapes or formats do not fit, or tensors are not contiguous.
    """
    batch, length, heads = check_qkv(q, k, v)
    check("o", o, tuple(v.shape), torch.bfloat16)
    check("do", do, tuple(v.shape), torch.bfloat16)
    check("lse", lse, (batch, heads, length), torch.float32)
    if not (o.is_contiguous() and do.is_contiguous() and lse.is_contiguous()):
        raise ValueError("o, do and lse: must be contiguous")
    dq, dk, dv = out or (torch.empty_like(q), torch.empty_like(k), torch.empty_like(v))
    if q.numel() == 0:
        return dq, dk, dv
    cfg = config or choose(length, device=q.device)
    if cfg.outer_dkv % cfg.inner_dkv or cfg.outer_dq % cfg.inner_dq:
        raise ValueError("config: an outer block must be a multiple of its inner block")
    delta = torch.empty_like(lse)
    rows = batch * length * heads
    _delta_kernel[(ceil_div(rows, 64),)](o, do, delta, rows, heads, length, ROWS=64, WIDTH=D_V)
    common = (lse, delta, heads, length, D_QK**-0.5 * LOG2_E, D_QK**-0.5)
    options = {"STAGES": cfg.stages, "UPCAST": interpreting(), "num_warps": cfg.warps}
    outer, inner = cfg.outer_dkv, cfg.inner_dkv
    _dkv_kernel[(ceil_div(length, outer), batch * heads)](
        rows_of(q, inner, D_NOPE), rows_of(q, inner, D_ROPE), rows_of(do, inner, D_V),
        rows_of(k, outer, D_NOPE), rows_of(k, outer, D_ROPE), rows_of(v, outer, D_V),
        rows_of(dk, outer, D_NOPE), rows_of(dk, outer, D_ROPE), rows_of(dv, outer, D_V),
        *common, KEYS=outer, QUERIES=inner, **options,
    )  # fmt: skip
    outer, inner = cfg.outer_dq, cfg.inner_dq
    _dq_kernel[(ceil_div(length, outer), batch * heads)](
        rows_of(q, outer, D_NOPE), rows_of(q, outer, D_ROPE), rows_of(do, outer, D_V),
        rows_of(k, inner, D_NOPE), rows_of(k, inner, D_ROPE), rows_of(v, inner, D_V),
        rows_of(dq, outer, D_NOPE), rows_of(dq, outer, D_ROPE),
        *common, QUERIES=outer, KEYS=inner, **options,
    )  # fmt: skip
    return dq, dk, dv


def reference(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, do: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dQ, dK, dV) in float64 by automatic differentiation of the forward reference."""
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    mla_prefill.reference(*leaves)[0].backward(do.double())
    return tuple(leaf.grad for leaf in leaves)


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return fresh random operands; O and lse come from the forward kernel."""
    args = mla_prefill.inputs(shape, device, seed)
    o, lse = mla_prefill.launch(**args)
    do = normal((shape["batch"], shape["length"], shape["heads"], D_V), device, seed + 3)
    return args | {"o": o, "lse": lse, "do": do}


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return FLOPs of five products over the lower triangle; q, k, v, o and their gradients."""
    batch, length, heads = (float(shape[name]) for name in ("batch", "length", "heads"))
    flops = batch * heads * length**2 * (3 * D_QK + 2 * D_V)
    return flops, 2 * mla_prefill.work(shape)[1]


def launch_sdpa(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, do: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients by torch's scaled_dot_product_attention; runs the forward pass too."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    (mine,) = mla_prefill.launch_sdpa(*leaves)
    return torch.autograd.grad(mine, leaves, do)


PROVIDERS = {"moesim": launch, "torch-forward-and-backward": launch_sdpa}
