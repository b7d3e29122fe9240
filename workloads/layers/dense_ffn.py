"""Gated feed-forward block: `down(silu(gate(x)) * up(x))`, dense or as the shared expert.

FP8 recipe of DeepSeek-V3 (arXiv 2412.19437 §3.3): 1x128 activation casts before each GEMM, SwiGLU
input kept in FP8, weights transposed again in every backward pass, operands of the weight gradient
cast along the other axis.
"""

from hwmodels.formats import FORMATS
from workloads.layers import LayerInputs, PhaseOps
from workloads.ops import Gemm, MemoryOp

FP8 = FORMATS["fp8_1x128"]


def gated_ffn(tokens: int, hidden: int, width: int, label: str) -> PhaseOps:
    """Return the kernels of a gated FFN of `width`, `label` telling it apart in traces.

    The up and gate projections are one GEMM of `2 * width` columns.
    """
    t, h, w, w2 = tokens, hidden, width, 2 * width
    name = "shared expert" if label == "shared" else label
    forward = (
        Gemm(f"{name} up+gate", t, w2, h, FP8),
        MemoryOp(f"swiglu + cast ({label})", "cast", t * (w2 * 2 + w)),
        Gemm(f"{name} down", t, h, w, FP8),
        MemoryOp(f"cast swiglu input to FP8 ({label}, saved)", "cast", t * w2 * 3),
    )
    backward = (
        MemoryOp(f"cast_back swiglu input ({label})", "cast", t * w2 * 3),
        MemoryOp(f"weight transpose down ({label})", "transpose", w * h * 2),
        Gemm(f"{label} down dgrad", t, w, h, FP8, "dgrad"),
        MemoryOp(f"per-channel cast+transpose dY ({label})", "transpose", t * h * 2),
        MemoryOp(f"swiglu + per-channel cast+transpose ({label})", "transpose", t * w * 5),
        MemoryOp(f"swiglu backward ({label})", "swiglu", t * w2 * 5),
        MemoryOp(f"cast_back ({label},2)", "cast", t * h * 3),
        MemoryOp(f"weight transpose up ({label})", "transpose", w2 * h * 2),
        MemoryOp(f"cast d(swiglu in) ({label})", "cast", t * w2 * 3),
        Gemm(f"{label} up dgrad", t, h, w2, FP8, "dgrad"),
        MemoryOp(
            f"per-channel cast+transpose ({label} x2)",
            "transpose",
            t * (w2 * 3 + h * 2),
            launches=2,
        ),
    )
    weight = (
        Gemm(f"{label} down wgrad", w, h, t, FP8, "wgrad"),
        Gemm(f"{label} up wgrad", h, w2, t, FP8, "wgrad"),
    )
    return PhaseOps(forward, backward, weight)


def dense_ffn(inputs: LayerInputs) -> PhaseOps:
    """Return the FFN half of a dense layer: norm, input cast, gated FFN."""
    t, h = inputs.tokens, inputs.model.hidden
    norm = PhaseOps(
        forward=(
            MemoryOp("add+rmsnorm hidden (2)", "add_norm", t * h * 8),
            MemoryOp("cast hidden (ffn input)", "cast", t * h * 3),
            MemoryOp("FP8 scale transposes/scale mul", "small", 0, launches=5),
        ),
        backward=(
            MemoryOp("rmsnorm recompute hidden", "add_norm", t * h * 8),
            MemoryOp("cast hidden recompute", "cast", t * h * 3),
            MemoryOp("FP8 scale transposes/scale mul", "small", 0, launches=5),
            MemoryOp("add dX", "elementwise", t * h * 6),
            MemoryOp("rmsnorm bwd hidden", "norm_backward", t * h * 10, launches=3),
        ),
    )
    return norm + gated_ffn(t, h, inputs.model.dense_ffn_width, "dense")


def saved_bytes(tokens: int, width: int) -> float:
    """SwiGLU input kept in FP8 with scales (`2 * width` columns)."""
    return FP8.bytes_of(tokens * 2 * width)
