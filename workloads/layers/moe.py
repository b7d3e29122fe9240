"""Mixture-of-experts half: router before the dispatch, shared and routed experts after it.

The router belongs to the attention side of the dispatch, as in the trace: the gate, top-k and the
cast for the wire run before tokens leave, and their gradients after the gradients come home.
Routed work is written for a balanced load of `tokens * top_k` rows a rank.
"""

from typing import Literal

from hwmodels.formats import FORMATS
from workloads.layers import LayerInputs, PhaseOps
from workloads.layers.dense_ffn import gated_ffn
from workloads.layers.dense_ffn import saved_bytes as ffn_saved_bytes
from workloads.model import MoESpec
from workloads.ops import COMM, Comm, Gemm, MemoryOp

BF16, FP8 = FORMATS["bf16"], FORMATS["fp8_1x128"]
METADATA_BYTES_PER_TOKEN = 4096
"""Routing tables, counts and weights kept with a token: an estimate, 16 MB for 4,096 tokens."""


def _moe(inputs: LayerInputs) -> MoESpec:
    moe = inputs.model.moe
    assert moe is not None, "the layer builder chooses this block for MoE layers only"
    return moe


def router(inputs: LayerInputs) -> PhaseOps:
    """Return norm, gate, top-k selection and the cast for the wire, with their gradients."""
    t, h, experts = inputs.tokens, inputs.model.hidden, _moe(inputs).routed_experts
    wire_bytes = 2 + inputs.dispatch.element_bytes
    return PhaseOps(
        forward=(
            MemoryOp("add+rmsnorm hidden (2)", "add_norm", t * h * 8),
            Gemm("router gate", t, experts, h, BF16),
            MemoryOp("router select: sigmoid/topk/aux loss (37 kernels)", "small", 0, launches=37),
            MemoryOp("cast hidden for dispatch", "cast", t * h * wire_bytes),
            MemoryOp("FP8 scale transposes (5)", "small", 0, launches=5),
            MemoryOp("arange etc.", "small", 0, launches=2),
        ),
        backward=(
            MemoryOp("router/aux-loss backward (26 kernels)", "small", 0, launches=26),
            Gemm("router gate dgrad", t, h, experts, BF16, "dgrad"),
            Gemm("router gate wgrad", experts, h, t, BF16, "wgrad"),
            MemoryOp("add dX", "elementwise", t * h * 6),
            MemoryOp("rmsnorm bwd hidden", "norm_backward", t * h * 10, launches=3),
        ),
    )


def experts(inputs: LayerInputs) -> PhaseOps:
    """Return the shared experts and the routed experts of one rank."""
    moe, t, h = _moe(inputs), inputs.tokens, inputs.model.hidden
    preparation = PhaseOps(
        forward=(
            MemoryOp("FP8 scale transposes/scale mul", "small", 0, launches=5),
            MemoryOp("expert count + fused mapping", "expert_map", 0, launches=2),
        ),
        backward=(
            MemoryOp("FP8 scale transposes/scale mul", "small", 0, launches=5),
            MemoryOp("rmsnorm recompute hidden", "add_norm", t * h * 8),
            MemoryOp("cast hidden recompute", "cast", t * h * 3),
        ),
    )
    shared = PhaseOps()
    if moe.shared_experts:
        shared = gated_ffn(t, h, moe.shared_experts * moe.expert_width, "shared")
    return preparation + _routed(inputs) + shared


def _routed(inputs: LayerInputs) -> PhaseOps:
    moe, h, groups = _moe(inputs), inputs.model.hidden, inputs.local_experts
    rows, w, w2 = inputs.tokens * moe.top_k, moe.expert_width, 2 * moe.expert_width
    received = inputs.tokens * inputs.gpus_per_token  # tokens that arrive, each once a GPU

    def memory(name: str, family: str, size: float) -> MemoryOp:
        return MemoryOp(name, family, size, routed=True)

    def transpose(name: str, columns: int) -> MemoryOp:
        return MemoryOp(
            f"weight transpose {name} ({groups} experts)", "transpose", groups * columns * h * 2
        )

    forward = (
        memory("expand_to_fused (permute, FP8)", "permute", rows * h * 2),
        transpose("up", w2),
        Gemm("routed up+gate (grouped)", rows, w2, h, FP8, groups=groups, routed=True),
        memory("swiglu + weight + cast (routed)", "swiglu", rows * (w2 * 2 + w)),
        transpose("down", w),
        Gemm("routed down (grouped)", rows, h, w, FP8, groups=groups, routed=True),
        memory("reduce_fused (unpermute, BF16)", "permute", (rows + received) * h * 2),
        memory("cast swiglu input to FP8 (routed, saved)", "cast", rows * w2 * 3),
    )
    backward = (
        memory("cast_back swiglu input (routed)", "cast", rows * w2 * 3),
        memory("expand_to_fused dY (permute, FP8)", "permute", rows * h * 2),
        Gemm("routed down dgrad (grouped)", rows, w, h, FP8, "dgrad", groups, routed=True),
        memory("swiglu fwd+bwd with weight (routed)", "swiglu", rows * w2 * 6),
        memory("swiglu weight grad (routed)", "swiglu", rows * w * 4),
        memory("per-channel cast+transpose act (routed)", "transpose", rows * w * 3),
        memory("cast d(swiglu in) 1x128 (routed)", "cast", rows * w2 * 3),
        Gemm("routed up dgrad (grouped)", rows, h, w2, FP8, "dgrad", groups, routed=True),
        memory("reduce_fused dX (unpermute, BF16)", "permute", (rows + received) * h * 2),
        memory("per-channel cast+transpose d(swiglu in) (routed)", "transpose", rows * w2 * 3),
    )
    weight = (
        memory("per-channel recast+transpose dY (routed)", "recast_transpose", rows * h * 2),
        memory("per-channel recast+transpose X (routed)", "recast_transpose", rows * h * 2),
        Gemm(
            f"routed down wgrad ({groups} experts, 2 streams)",
            h,
            w,
            rows,
            FP8,
            "wgrad",
            groups,
            routed=True,
        ),
        Gemm(
            f"routed up wgrad ({groups} experts, 2 streams)",
            h,
            w2,
            rows,
            FP8,
            "wgrad",
            groups,
            routed=True,
        ),
    )
    return PhaseOps(forward, backward, weight)


def dispatch(inputs: LayerInputs) -> PhaseOps:
    """Return the all-to-all that sends tokens out, and the one that brings their gradients home."""
    count = MemoryOp("layout count", "expert_map", 0, stream=COMM)
    return PhaseOps(
        forward=(count, _exchange(inputs, "dispatch", "dispatch")),
        backward=(_exchange(inputs, "dispatch", "combine"),),
    )


def combine(inputs: LayerInputs) -> PhaseOps:
    """Return the all-to-all that brings tokens home, and the one that sends their gradients out.

    The gradient is cast for the wire on the stream that sends it.
    """
    size = inputs.tokens * inputs.model.hidden * (2 + inputs.dispatch.element_bytes)
    cast = MemoryOp("cast 1x128 before cached dispatch", "cast", size, stream=COMM)
    return PhaseOps(
        forward=(_exchange(inputs, "combine", "combine"),),
        backward=(cast, _exchange(inputs, "combine", "dispatch")),
    )


def _exchange(inputs: LayerInputs, name: str, kind: Literal["dispatch", "combine"]) -> Comm:
    wire = inputs.dispatch if kind == "dispatch" else inputs.combine
    return Comm(name, kind, ("ep",), wire.bytes_of(inputs.model.hidden), inputs.tokens)


def saved_bytes(inputs: LayerInputs) -> float:
    """Residual, received FP8 tokens, SwiGLU inputs of all experts, routing metadata."""
    moe, t, h = _moe(inputs), inputs.tokens, inputs.model.hidden
    residual = t * h * 2
    received = FP8.bytes_of(t * inputs.gpus_per_token * h)
    swiglu = ffn_saved_bytes(t * moe.top_k + t * moe.shared_experts, moe.expert_width)
    return residual + received + swiglu + t * METADATA_BYTES_PER_TOKEN
