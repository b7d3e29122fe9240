"""Multi-token prediction: norm both inputs, project their concatenation, one more layer.

`h' = W [rmsnorm(h); rmsnorm(embed(next token))]` (arXiv 2412.19437 §2.2, eq. 21). Embedding and
head are those of the main model; the projection is priced like the other FP8 linears.
"""

from hwmodels.formats import FORMATS
from workloads.layers import LayerInputs, PhaseOps
from workloads.ops import Gemm, MemoryOp

FP8 = FORMATS["fp8_1x128"]


def mtp_projection(inputs: LayerInputs) -> PhaseOps:
    """Return the embedding lookup, the two norms and the projection in front of the MTP layer."""
    t, h = inputs.tokens, inputs.model.hidden
    return PhaseOps(
        forward=(
            MemoryOp("mtp: embedding gather", "permute", t * h * 4),
            MemoryOp("mtp: rmsnorm x2", "add_norm", t * h * 8, launches=2),
            MemoryOp("mtp: cast 1x128", "cast", t * 2 * h * 3),
            Gemm("mtp: eh_proj", t, h, 2 * h, FP8),
        ),
        backward=(
            MemoryOp("mtp: cast dY 1x128", "cast", t * h * 3),
            MemoryOp("mtp: weight transpose eh_proj", "transpose", 2 * h * h * 2),
            Gemm("mtp: eh_proj dgrad", t, 2 * h, h, FP8, "dgrad"),
            MemoryOp("mtp: per-channel cast+transpose", "transpose", t * 3 * h * 3, launches=2),
            MemoryOp("mtp: rmsnorm backward x2", "norm_backward", t * 2 * h * 10, launches=6),
        ),
        weight=(
            Gemm("mtp: eh_proj wgrad", h, 2 * h, t, FP8, "wgrad"),
            MemoryOp("mtp: embedding gradient scatter-add", "permute", t * h * 10),
        ),
    )


def saved_bytes(inputs: LayerInputs) -> float:
    """What is projected, kept in FP8 for the weight gradient; the norms are recomputed."""
    return FP8.bytes_of(inputs.tokens * 2 * inputs.model.hidden)


def parameters(hidden: int) -> float:
    """Parameters of the projection and the norms around it."""
    return 2.0 * hidden * hidden + 3.0 * hidden
