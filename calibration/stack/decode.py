"""One pass of decoding: one token a sequence, its cache paged, experts' rows in a masked layout.

Up-projections of keys and values are absorbed into queries and results (DeepSeek-V2, arXiv
2405.04434 §2.1.2): products of each head with its own matrix, which the library does. Rows for the
experts arrive in their places, as a low-latency dispatch puts them.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from calibration.stack import attention, experts
from calibration.stack.attention import D_QK, heads
from calibration.stack.dimensions import D_NOPE, D_ROPE, D_V, Dimensions
from calibration.stack.names import DECODE
from calibration.stack.recorder import FP32, INT32, Recorder
from kernels import mla_decode, rope
from kernels._device import ceil_div
from kernels._numerics import generator
from kernels.grouped_gemm import layout
from kernels.mla_decode import D_CACHE, D_LATENT, PAGE


def record(r: Recorder, d: Dimensions) -> None:
    """Record the pass, from `x` and `residual` to `out`; the experts' rows leave as `y`.

    Raises:
        ValueError: the latent is not as wide as the cache that the attention kernel reads.
    """
    if d.kv_rank != D_LATENT:
        raise ValueError(f"kv_rank: {d.kv_rank} given, decoding needs {D_LATENT}")
    _give(r, d)
    with r.at(DECODE):  # nobody tells blocks apart here
        _record(r, d)


def _record(r: Recorder, d: Dimensions) -> None:
    r.norm("add+rmsnorm hidden", "x", "w.norm", "normed", residual="residual", total="stream")
    r.cast("cast 1x128 hidden", "normed", "normed8")
    r.linear("q_a_proj", "normed8", "w.q_a", "q_latent")
    r.linear("kv_a_proj", "normed8", "w.kv_a", "kv_latent")
    _remember(r)
    _ask(r, d)
    _attend(r, d)
    r.cast("cast attn out to FP8", "o", "o8")
    r.linear("o_proj", "o8", "w.o", "attention")
    experts.route(r, d, norm=("attention", "stream", "stream_2"))
    counts = d.decode_counts
    r.grouped("routed up+gate (grouped)", "arrived8", "w.routed.up", "h", counts, masked=True)
    r.swiglu("swiglu + cast (routed)", "h", "act8")
    r.grouped("routed down (grouped)", "act8", "w.routed.down", "y", counts, masked=True)
    experts.shared(r)


def _give(r: Recorder, d: Dimensions) -> None:
    for name in ("x", "residual", "home"):
        r.give_normal(name, d.batch, d.hidden)
    attention.give_weights(r, d)
    attention.give_angles(r, torch.full((d.batch,), d.context - 1))
    for name, k, n in (("w.absorb_k", D_NOPE, D_LATENT), ("w.absorb_v", D_LATENT, D_V)):
        r.give_normal(name, d.heads, k, n, scale=k**-0.5)
    experts.give_weights(r, d)
    starts, rows = layout(d.decode_counts, masked=True)
    r.give_quantized("arrived8", rows, d.hidden, by_row=False)
    r.give("starts", torch.tensor(starts, dtype=INT32))
    r.give("counts", torch.tensor(d.decode_counts, dtype=INT32))
    _give_cache(r, d)


def _give_cache(r: Recorder, d: Dimensions) -> None:
    """Give a cache whose pages lie scattered, and the slot of each sequence's last token."""
    pages = ceil_div(d.context, PAGE)
    order = torch.randperm(d.batch * pages, generator=generator("cpu", 0)).view(d.batch, pages)
    r.give_normal("cache", d.batch * pages, PAGE, D_CACHE)
    r.give("table", order.int())
    r.give("lengths", torch.full((d.batch,), d.context, dtype=INT32))
    r.give("slots", order[:, -1] * PAGE + (d.context - 1) % PAGE)


def _remember(r: Recorder) -> None:
    """Record the new token's latent and key, into the cache."""
    r.norm("rmsnorm kv_lora", "kv_latent", "w.norm_kv", "kv_normed")
    attention.rotate_key(r, "rotary k")
    tokens = r.buffers["kv_latent"].shape[0]
    for op, source, first, last in (
        ("append latent to cache", "kv_normed", 0, D_LATENT),
        ("append key to cache", "k_rope", D_LATENT, D_CACHE),
    ):
        r.step(
            op, "torch.index_copy", {"tokens": tokens, "dim": last - first},
            partial(_append, slice(first, last)),
            (source, "slots", "cache"), ("cache",),
        )  # fmt: skip


def _append(columns: slice, reads: Sequence[Tensor], writes: Sequence[Tensor]) -> None:
    """Write a row a sequence into some columns of the cache."""
    source, slots = reads[:2]
    writes[0].view(-1, D_CACHE)[:, columns].index_copy_(0, slots, source)


def _ask(r: Recorder, d: Dimensions) -> None:
    """Record the queries against the latent."""
    r.norm("rmsnorm q_lora", "q_latent", "w.norm_q", "q_normed")
    r.cast("cast q_lora", "q_normed", "q_normed8")
    r.linear("q_b_proj", "q_normed8", "w.q_b", "q")
    r.room("q.latent", d.batch, d.heads * D_CACHE)
    r.step(
        "absorb k_b", "torch.bmm", {"batch": d.heads, "m": d.batch, "n": D_LATENT, "k": D_NOPE},
        lambda b, w: heads(w[0], d.heads)[..., :D_LATENT].copy_(
            torch.bmm(heads(b[0], d.heads)[..., :D_NOPE].transpose(0, 1), b[1]).transpose(0, 1)
        ),
        ("q", "w.absorb_k"), ("q.latent",),
    )  # fmt: skip
    r.step(
        "rotary q", "rope", {"tokens": d.batch, "heads": d.heads, "dim": D_ROPE, "row": D_QK},
        lambda b, w: rope.launch(
            heads(b[0], d.heads)[..., D_NOPE:], *b[1:],
            out=heads(w[0], d.heads)[..., D_LATENT:],
        ),
        ("q", "cos", "sin"), ("q.latent",),
    )  # fmt: skip


def _attend(r: Recorder, d: Dimensions) -> None:
    """Record attention over the cache, and its result out of the latent."""
    r.room("o.latent", d.batch, d.heads * D_LATENT)
    r.room("lse", d.batch, d.heads, dtype=FP32)
    r.step(
        "decode attention", "mla_decode",
        {"batch": d.batch, "heads": d.heads, "length": d.context, "ragged": 0},
        lambda b, w: mla_decode.launch(
            heads(b[0], d.heads), *b[1:], out=(heads(w[0], d.heads), w[1])
        ),
        ("q.latent", "cache", "table", "lengths"), ("o.latent", "lse"),
    )  # fmt: skip
    r.room("o", d.batch, d.values)
    r.step(
        "absorb v_b", "torch.bmm", {"batch": d.heads, "m": d.batch, "n": D_V, "k": D_LATENT},
        lambda b, w: heads(w[0], d.heads).copy_(
            torch.bmm(heads(b[0], d.heads).transpose(0, 1), b[1]).transpose(0, 1)
        ),
        ("o.latent", "w.absorb_v"), ("o",),
    )  # fmt: skip
