"""Router, routed and shared experts as they train, on one of the GPUs that share the experts.

What this GPU sends and what reaches it are different tokens, so exchanges cut the layer in two:
`wire8` leaves and `arrived8` is there; `sent` leaves and `home` is there; and so for gradients. The
copies of a token are added unweighted: routing weights belong into the SwiGLU kernel, and ours has
none. Gradients of the router's choice come as `d.logits`; no kernel of ours makes them.
"""

from typing import Any

import torch

from calibration.stack import attention
from calibration.stack.attention import WHOLE
from calibration.stack.dimensions import Dimensions
from calibration.stack.recorder import FP32, INT32, Recorder
from kernels import moe_map, moe_permute, moe_unpermute, router
from kernels._device import BLOCK
from kernels._numerics import generator
from kernels.grouped_gemm import layout

F, B, W = "mlp(F)", "mlp(B)", "mlp(W)"
"""The block and its passes, as the workload names them; the router belongs to attention's."""

MAP = ("rows", "starts", "counts")


def give_weights(r: Recorder, d: Dimensions) -> None:
    """Give the weights of router and experts."""
    r.give_normal("w.norm_2", d.hidden)
    r.give_normal("w.gate", d.experts, d.hidden, scale=d.hidden**-0.5)
    r.give("bias", torch.zeros(d.experts, dtype=FP32))
    for name, experts in (("routed", len(d.counts)), ("shared", 0)):
        r.give_weight(f"w.{name}.up", 2 * d.expert_width, d.hidden, experts=experts)
        r.give_weight(f"w.{name}.down", d.hidden, d.expert_width, experts=experts)


def give_arrived(r: Recorder, d: Dimensions) -> None:
    """Give what exchanges bring in training, and where its rows will lie."""
    r.give_quantized("arrived8", d.arrived, d.hidden, by_row=True)
    r.give_normal("home", d.tokens, d.hidden)
    experts = arrived_experts(d)
    r.give("arrived.experts", experts)
    for name, made in zip(MAP, moe_map.reference(experts, len(d.counts)), strict=True):
        r.buffers[name] = made.to(r.device)  # if nobody maps them, rows still lie in the buffers


def arrived_experts(d: Dimensions) -> torch.Tensor:
    """Return the local experts of each token that arrived: `counts` rows each, tokens scattered.

    Raises:
        ValueError: tokens are too few for an expert's rows, or too many to have one each.
    """
    rows = sum(d.counts)
    if not max(d.counts) <= d.arrived <= rows <= 2 * d.arrived:
        raise ValueError(f"{d.arrived} tokens: cannot be {d.counts} rows, one or two a token")
    of_row = torch.repeat_interleave(torch.arange(len(d.counts)), torch.tensor(d.counts)).int()
    experts = torch.full((d.arrived, d.top_k), -1, dtype=INT32)
    experts[:, 0] = of_row[: d.arrived]
    experts[: rows - d.arrived, 1] = of_row[d.arrived :]
    return experts[torch.randperm(d.arrived, generator=generator("cpu", 0))]


def forward(r: Recorder, d: Dimensions) -> None:
    """Record `sent` and `out`, from `attention` and `stream`."""
    with r.at(attention.F):
        route(r, d, norm=("attention", "stream", "stream_2"))
    with r.at(F):
        _gather(r, d)
        _routed(r, d)
        shared(r)


def _routed(r: Recorder, d: Dimensions) -> None:
    r.grouped("routed up+gate (grouped)", "rows8", "w.routed.up", "h", d.counts, masked=False)
    r.swiglu("swiglu + cast (routed)", "h", "act8")
    r.grouped("routed down (grouped)", "act8", "w.routed.down", "y", d.counts, masked=False)
    _add_up(r, d, "reduce_fused (unpermute, BF16)", "y", "sent")


def route(r: Recorder, d: Dimensions, norm: tuple[str, str, str]) -> None:
    """Record norm, gate, choice, and the cast for the wire; `norm` is (x, residual, their sum)."""
    r.norm("add+rmsnorm hidden (2)", norm[0], "w.norm_2", "normed_2",
           residual=norm[1], total=norm[2])  # fmt: skip
    r.plain_linear("router gate", "normed_2", "w.gate", "logits")
    tokens = r.buffers["normed_2"].shape[0]
    r.room("logits32", tokens, d.experts, dtype=FP32)
    r.step(
        "cast logits to FP32", "torch.cast", {"m": tokens, "k": d.experts},
        lambda b, w: w[0].copy_(b[0]), ("logits",), ("logits32",),
    )  # fmt: skip
    r.room("chosen", tokens, d.top_k, dtype=INT32)
    r.room("chosen.weights", tokens, d.top_k, dtype=FP32)
    choice: dict[str, Any] = {"groups": d.groups, "groups_kept": d.groups_kept, "top_k": d.top_k}
    r.step(
        "router select", "router", {"tokens": tokens, "experts": d.experts, **choice},
        lambda b, w: router.launch(b[0], b[1], **choice, out=(w[0], w[1])),
        ("logits32", "bias"), ("chosen", "chosen.weights"),
    )  # fmt: skip
    r.cast("cast hidden for dispatch", "normed_2", "wire8")


def shared(r: Recorder) -> None:
    """Record the shared expert, and `out`: its result and what came home."""
    r.linear("shared expert up+gate", "wire8", "w.shared.up", "h.shared")
    r.swiglu("swiglu + cast (shared)", "h.shared", "act8.shared")
    r.linear("shared expert down", "act8.shared", "w.shared.down", "y.shared")
    r.add("add shared and routed", "y.shared", "home", "out")


def _routes(d: Dimensions) -> dict[str, int]:
    return {
        "tokens": d.arrived, "rows": sum(d.counts), "top_k": d.top_k, "experts": len(d.counts),
    }  # fmt: skip


def _gather(r: Recorder, d: Dimensions) -> None:
    """Record where rows go, and the copy of what arrived to there."""
    r.step(
        "expert count + fused mapping", "moe_map", _routes(d),
        lambda b, w: moe_map.launch(b[0], len(d.counts), out=tuple(w)),
        ("arrived.experts",), MAP,
    )  # fmt: skip
    _permute(r, d, "expand_to_fused (permute, FP8)", "arrived8", "rows8")


def _permute(r: Recorder, d: Dimensions, op: str, x: str, out: str) -> None:
    _, capacity = layout(d.counts, masked=False)
    made = moe_permute.empty_outputs(capacity, d.hidden, r.device, fp8=True)
    for name, tensor in zip((out, f"{out}.scale"), made, strict=True):
        r.keep(name, tensor)
    r.step(
        op, "moe_permute", {**_routes(d), "hidden": d.hidden, "fp8": 1},
        lambda b, w: moe_permute.launch(
            b[0], b[2], b[3], b[4], capacity, b[1], align=BLOCK, out=tuple(w)
        ),
        (x, f"{x}.scale", *MAP), (out, f"{out}.scale"),
    )  # fmt: skip


def _add_up(r: Recorder, d: Dimensions, op: str, y: str, out: str) -> None:
    r.room(out, d.arrived, d.hidden)
    r.step(
        op, "moe_unpermute", {**_routes(d), "hidden": d.hidden, "weighted": 0},
        lambda b, w: moe_unpermute.launch(*b, out=w[0]), (y, "rows"), (out,),
    )  # fmt: skip


def give_gradients(r: Recorder, d: Dimensions) -> None:
    """Give what exchanges, the layer behind this one and the router's loss bring backward."""
    r.give_quantized("d.arrived8", d.arrived, d.hidden, by_row=True)
    for name in ("d.home", "d.out", "d.stream_2"):
        r.give_normal(name, d.tokens, d.hidden)
    r.give_normal("d.logits", d.tokens, d.experts)


def backward(r: Recorder, d: Dimensions) -> None:
    """Record `d.sent` and `d.stream`: what leaves, and the gradient of the stream after attention.

    `d.stream_2` arrives by the residual stream behind this layer, `d.home` for the tokens that
    were sent, `d.arrived8` for those that arrived.
    """
    with r.at(B):
        _routed_backward(r, d)
    with r.at(W):
        _routed_weights(r, d)
    with r.at(B):
        r.norm("rmsnorm recompute hidden (2)", "stream_2", "w.norm_2", "normed_2")
        r.cast("cast hidden recompute (2)", "normed_2", "wire8")
        _shared_backward(r)
    with r.at(W):
        _shared_weights(r, d)
    with r.at(attention.B):
        _gate_backward(r, d)
        _join_backward(r)


def _join_backward(r: Recorder) -> None:
    """Record what the gradient of the norm's result is put together from, and the norm's."""
    r.add("add dX (shared, gate)", "d.wire.shared", "d.wire.gate", "d.wire")
    r.add("add dX (home)", "d.wire", "d.home", "d.normed_2")
    r.norm_backward(
        "rmsnorm bwd hidden (2)", "stream_2", "normed_2", "w.norm_2", "d.normed_2", "d.stream",
        residual="d.stream_2",
    )  # fmt: skip


def _routed_backward(r: Recorder, d: Dimensions) -> None:
    _permute(r, d, "expand_to_fused dY (permute, FP8)", "d.arrived8", "d.y8")
    r.grouped(
        "routed down dgrad (grouped)", "d.y8", "w.routed.down.t", "d.act", d.counts, masked=False
    )
    r.swiglu_backward("swiglu fwd+bwd (routed)", "h", "d.act", "d.h", "act")
    r.cast_and_transpose("per-channel cast+transpose act (routed)", "act", "act8")
    r.cast("cast d(swiglu in) 1x128 (routed)", "d.h", "d.h8")
    r.grouped("routed up dgrad (grouped)", "d.h8", "w.routed.up.t", "d.rows", d.counts,
              masked=False)  # fmt: skip
    _add_up(r, d, "reduce_fused dX (unpermute, BF16)", "d.rows", "d.sent")
    r.transpose("per-channel recast+transpose d(swiglu in) (routed)", "d.h8")


def _routed_weights(r: Recorder, d: Dimensions) -> None:
    r.transpose("per-channel recast+transpose dY (routed)", "d.y8")
    r.transpose("per-channel recast+transpose X (routed)", "rows8")
    places = ("starts", "counts")
    for op, left, right in (("down", "d.y8", "act8"), ("up", "rows8", "d.h8")):
        r.weight_gradient(f"routed {op} wgrad", left, right, f"d.w.routed.{op}", d.counts, places)


def _shared_backward(r: Recorder) -> None:
    r.cast("cast dY 1x128 (shared)", "d.out", "d.out8")
    r.linear("shared down dgrad", "d.out8", "w.shared.down.t", "d.act.shared")
    r.swiglu_backward(
        "swiglu backward (shared)", "h.shared", "d.act.shared", "d.h.shared", "act.shared"
    )
    r.cast_and_transpose("swiglu + per-channel cast+transpose (shared)", "act.shared",
                         "act8.shared")  # fmt: skip
    r.cast("cast d(swiglu in) (shared)", "d.h.shared", "d.h8.shared")
    r.linear("shared up dgrad", "d.h8.shared", "w.shared.up.t", "d.wire.shared")
    for name in ("d.h8.shared", "d.out8", "wire8"):
        r.transpose(f"per-channel recast+transpose {name}", name)


def _shared_weights(r: Recorder, d: Dimensions) -> None:
    for op, left, right in (("down", "act8.shared", "d.out8"), ("up", "wire8", "d.h8.shared")):
        gradient = f"d.w.shared.{op}"
        r.weight_gradient(f"shared {op} wgrad", left, right, gradient, (d.tokens,), WHOLE)


def _gate_backward(r: Recorder, d: Dimensions) -> None:
    """Record the gate's gradients; our product wants both operands along the summed axis."""
    r.give("w.gate.t", r.buffers["w.gate"].t().contiguous())
    r.plain_linear("router gate dgrad", "d.logits", "w.gate.t", "d.wire.gate")
    for name, width in (("d.logits", d.experts), ("normed_2", d.hidden)):
        r.room(f"{name}.t", width, d.tokens)
        r.step(
            f"transpose {name}", "torch.transpose", {"m": d.tokens, "k": width},
            lambda b, w: w[0].copy_(b[0].t()), (name,), (f"{name}.t",),
        )  # fmt: skip
    r.plain_linear("router gate wgrad", "d.logits.t", "normed_2.t", "d.w.gate")
