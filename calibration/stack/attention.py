"""Multi-head latent attention as it trains: from the residual stream to what is added to it.

Kept for the backward pass are the latents, the attention's output in both formats and its softmax
sums; norms, up-projections, rotary and assembly are made again (DeepSeek-V3, arXiv 2412.19437
§3.2.3), by the same steps. All buffers are rows of tokens; a step takes them apart in heads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from calibration.stack.dimensions import D_NOPE, D_ROPE, D_V, Dimensions
from calibration.stack.recorder import FP32, INT32, Recorder
from kernels import mla_prefill, mla_prefill_backward, rope

D_QK = D_NOPE + D_ROPE
F, B, W = "attn(F)", "attn(B)", "attn(W)"
"""The block and its passes, as the workload names them."""

WHOLE = ("token.starts", "token.counts")
"""Names of where the tokens' one group starts, and how many there are."""


def give(r: Recorder, d: Dimensions) -> None:
    """Give weights, angles and the group of all tokens."""
    give_weights(r, d)
    give_angles(r, torch.arange(d.tokens))
    r.give(WHOLE[0], torch.zeros(1, dtype=INT32))
    r.give(WHOLE[1], torch.full((1,), d.tokens, dtype=INT32))


def give_weights(r: Recorder, d: Dimensions) -> None:
    """Give the weights of the linears and norms."""
    r.give_weight("w.q_a", d.q_rank, d.hidden)
    r.give_weight("w.kv_a", d.kv_latent, d.hidden)
    r.give_weight("w.q_b", d.queries, d.q_rank)
    r.give_weight("w.o", d.hidden, d.values)
    for name, width in (("norm", d.hidden), ("norm_q", d.q_rank), ("norm_kv", d.kv_rank)):
        r.give_normal(f"w.{name}", width)


def give_angles(r: Recorder, positions: Tensor) -> None:
    """Give the rotary angles of tokens at these positions."""
    frequency = 10000.0 ** (-torch.arange(0, D_ROPE, 2) / D_ROPE)
    angle = positions[:, None] * frequency[None, :]
    r.give("cos", angle.cos())
    r.give("sin", angle.sin())


def forward(r: Recorder, d: Dimensions) -> None:
    """Record `attention`, what joins the residual stream, from `x` and `residual`."""
    with r.at(F):
        _forward(r, d)


def _forward(r: Recorder, d: Dimensions) -> None:
    r.norm("add+rmsnorm hidden", "x", "w.norm", "normed", residual="residual", total="stream")
    r.cast("cast 1x128 hidden", "normed", "normed8")
    r.linear("q_a_proj", "normed8", "w.q_a", "q_latent")
    r.linear("kv_a_proj", "normed8", "w.kv_a", "kv_latent")
    expand(r, d)
    core(r, d)
    r.cast("cast attn out to FP8", "o", "o8")
    r.linear("o_proj", "o8", "w.o", "attention")


def expand(r: Recorder, d: Dimensions, again: str = "") -> None:
    """Record queries, keys and values of all heads from the latents; `again` ends the names."""
    if "w.kv_b" not in r.buffers:
        r.give_weight("w.kv_b", d.keys_values, d.kv_rank)
    r.norm(f"rmsnorm q_lora{again}", "q_latent", "w.norm_q", "q_normed")
    r.norm(f"rmsnorm kv_lora{again}", "kv_latent", "w.norm_kv", "kv_normed")
    r.cast(f"cast q_lora{again}", "q_normed", "q_normed8")
    r.cast(f"cast kv_lora{again}", "kv_normed", "kv_normed8")
    r.linear(f"q_b{again or '_proj'}", "q_normed8", "w.q_b", "q")
    r.linear(f"kv_b{again or '_proj'}", "kv_normed8", "w.kv_b", "kv")
    rotate_key(r, f"rotary k{again}")
    assemble(r, d, again)
    rotate_queries(r, d, f"rotary q{again}", "q")


def rotate_key(r: Recorder, op: str) -> None:
    """Record the turn of the key that all heads share: the last channels of the latent."""
    tokens, row = r.buffers["kv_latent"].shape
    r.room("k_rope", tokens, D_ROPE)
    r.step(
        op, "rope", {"tokens": tokens, "heads": 1, "dim": D_ROPE, "row": row},
        lambda b, w: rope.launch(
            heads(b[0], 1)[..., row - D_ROPE :], *b[1:], out=heads(w[0], 1)
        ),
        ("kv_latent", "cos", "sin"), ("k_rope",),
    )  # fmt: skip


def rotate_queries(
    r: Recorder, d: Dimensions, op: str, name: str, *, inverse: bool = False
) -> None:
    """Record the turn of the last channels of each head, in place."""
    shape = {"tokens": r.buffers[name].shape[0], "heads": d.heads, "dim": D_ROPE, "row": D_QK}

    def run(reads: Sequence[Tensor], writes: Sequence[Tensor]) -> None:
        turned = heads(writes[0], d.heads)[..., D_NOPE:]
        rope.launch(turned, *reads[1:], inverse=inverse, out=turned)

    r.step(op, "rope", shape, run, (name, "cos", "sin"), (name,))


def assemble(r: Recorder, d: Dimensions, again: str) -> None:
    """Record the copies that make whole keys, and values apart from them."""
    t, count = d.tokens, d.heads
    r.room("k", t, d.queries)
    r.room("v", t, d.values)
    shape = {"tokens": t, "heads": count}
    r.step(
        f"K assembly: copy k_nope{again}", "torch.copy", {**shape, "dim": D_NOPE},
        lambda b, w: heads(w[0], count)[..., :D_NOPE].copy_(heads(b[0], count)[..., :D_NOPE]),
        ("kv",), ("k",),
    )  # fmt: skip
    r.step(
        f"K assembly: expand k_rope{again}", "torch.copy", {**shape, "dim": D_ROPE},
        lambda b, w: heads(w[0], count)[..., D_NOPE:].copy_(heads(b[0], 1)),
        ("k_rope",), ("k",),
    )  # fmt: skip
    r.step(
        f"V assembly: copy v{again}", "torch.copy", {**shape, "dim": D_V},
        lambda b, w: heads(w[0], count).copy_(heads(b[0], count)[..., D_NOPE:]),
        ("kv",), ("v",),
    )  # fmt: skip


def core(r: Recorder, d: Dimensions) -> None:
    """Record the attention core."""
    t, count = d.tokens, d.heads
    r.room("o", t, d.values)
    r.room("lse", 1, count, t, dtype=FP32)
    r.step(
        "flash attention fwd (causal,192/128)", "mla_prefill",
        {"batch": 1, "length": t, "heads": count},
        lambda b, w: mla_prefill.launch(
            *(sequence(x, count) for x in b), out=(sequence(w[0], count), w[1])
        ),
        ("q", "k", "v"), ("o", "lse"),
    )  # fmt: skip


def backward(r: Recorder, d: Dimensions) -> None:
    """Record `d.x`, the gradient of `x` and `residual`, from `d.stream`, that of their sum after
    attention has joined it; and the gradients of the weights.
    """
    with r.at(B):
        _backward(r, d)
    with r.at(W):
        _weights(r, d)


def _backward(r: Recorder, d: Dimensions) -> None:
    r.cast("cast dY 1x128 (o)", "d.stream", "d.attention8")
    r.linear("o dgrad", "d.attention8", "w.o.t", "d.o")
    r.transpose("per-channel recast+transpose attn out", "o8")
    r.transpose("per-channel recast+transpose dY (o)", "d.attention8")
    expand(r, d, " recompute")
    core_backward(r, d)
    rotate_queries(r, d, "rotary bwd q", "d.q", inverse=True)
    take_apart(r, d)
    _project_back(r)


def core_backward(r: Recorder, d: Dimensions) -> None:
    """Record the gradient of the attention core."""
    t, count = d.tokens, d.heads
    for name in ("q", "k", "v"):
        r.room(f"d.{name}", *r.buffers[name].shape)
    r.step(
        "flash attention bwd (causal,192/128)", "mla_prefill_backward",
        {"batch": 1, "length": t, "heads": count},
        lambda b, w: mla_prefill_backward.launch(
            sequence(b[0], count), sequence(b[1], count), sequence(b[2], count),
            sequence(b[3], count), b[4], sequence(b[5], count),
            out=(sequence(w[0], count), sequence(w[1], count), sequence(w[2], count)),
        ),
        ("q", "k", "v", "o", "lse", "d.o"), ("d.q", "d.k", "d.v"),
    )  # fmt: skip


def take_apart(r: Recorder, d: Dimensions) -> None:
    """Record the way of the keys' and values' gradient back into their latent's."""
    t, count = d.tokens, d.heads
    r.room("d.k_rope", t, D_ROPE)
    r.room("d.kv_latent", t, d.kv_latent)
    r.room("d.kv", t, d.keys_values)
    shape = {"tokens": t, "heads": count}
    r.step(
        "reduce dk_rope over heads", "torch.sum", {**shape, "dim": D_ROPE},
        lambda b, w: torch.sum(heads(b[0], count)[..., D_NOPE:], 1, out=w[0]),
        ("d.k",), ("d.k_rope",),
    )  # fmt: skip
    r.step(
        "rotary bwd k", "rope", {"tokens": t, "heads": 1, "dim": D_ROPE, "row": d.kv_latent},
        lambda b, w: rope.launch(
            heads(b[0], 1), *b[1:], inverse=True, out=heads(w[0], 1)[..., d.kv_rank :]
        ),
        ("d.k_rope", "cos", "sin"), ("d.kv_latent",),
    )  # fmt: skip
    r.step(
        "dK copy", "torch.copy", {**shape, "dim": D_NOPE},
        lambda b, w: heads(w[0], count)[..., :D_NOPE].copy_(heads(b[0], count)[..., :D_NOPE]),
        ("d.k",), ("d.kv",),
    )  # fmt: skip
    r.step(
        "dV copy", "torch.copy", {**shape, "dim": D_V},
        lambda b, w: heads(w[0], count)[..., D_NOPE:].copy_(heads(b[0], count)),
        ("d.v",), ("d.kv",),
    )  # fmt: skip


def _project_back(r: Recorder) -> None:
    r.cast("cast dQ 1x128", "d.q", "d.q8")
    r.linear("q_b dgrad", "d.q8", "w.q_b.t", "d.q_normed")
    r.cast("cast dKV 1x128", "d.kv", "d.kv8")
    r.linear("kv_b dgrad", "d.kv8", "w.kv_b.t", "d.kv_normed")
    r.norm_backward(
        "rmsnorm bwd q_lora", "q_latent", "q_normed", "w.norm_q", "d.q_normed", "d.q_latent"
    )
    r.norm_backward(
        "rmsnorm bwd kv_lora", "kv_latent", "kv_normed", "w.norm_kv", "d.kv_normed", "d.kv_latent"
    )
    r.norm("rmsnorm recompute hidden", "stream", "w.norm", "normed")
    r.cast("cast hidden recompute", "normed", "normed8")
    r.cast("cast d(q_a)", "d.q_latent", "d.q_latent8")
    r.cast("cast d(kv_a)", "d.kv_latent", "d.kv_latent8")
    r.linear("kv_a dgrad", "d.kv_latent8", "w.kv_a.t", "d.normed.kv")
    r.linear("q_a dgrad", "d.q_latent8", "w.q_a.t", "d.normed.q")
    r.add("add dX (q_a, kv_a)", "d.normed.q", "d.normed.kv", "d.normed")
    r.norm_backward(
        "rmsnorm bwd hidden", "stream", "normed", "w.norm", "d.normed", "d.x",
        residual="d.stream",
    )  # fmt: skip
    for name in ("d.kv8", "d.q8", "kv_normed8", "q_normed8", "normed8", "d.kv_latent8",
                 "d.q_latent8"):  # fmt: skip
        r.transpose(f"per-channel recast+transpose {name}", name)


def _weights(r: Recorder, d: Dimensions) -> None:
    """Record the weights' gradients; input first where the workload has it so."""
    for op, left, right in (
        ("o", "o8", "d.attention8"),
        ("kv_b", "kv_normed8", "d.kv8"),
        ("q_b", "q_normed8", "d.q8"),
        ("kv_a", "normed8", "d.kv_latent8"),
        ("q_a", "normed8", "d.q_latent8"),
    ):
        r.weight_gradient(f"{op} wgrad", left, right, f"d.w.{op}", (d.tokens,), WHOLE)


def heads(x: Tensor, count: int) -> Tensor:
    """Return rows of tokens as (tokens, heads, channels)."""
    return x.view(x.shape[0], count, -1)


def sequence(x: Tensor, count: int) -> Tensor:
    """Return rows of tokens as (1, tokens, heads, channels)."""
    return x.view(1, x.shape[0], count, -1)
