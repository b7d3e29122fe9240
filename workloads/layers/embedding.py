"""Token embedding, and the language-model head with its loss, both in BF16."""

from hwmodels.formats import FORMATS
from workloads.layers import LayerInputs, PhaseOps
from workloads.ops import Gemm, MemoryOp

BF16 = FORMATS["bf16"]


def embedding(inputs: LayerInputs) -> PhaseOps:
    """Return the row gather of the embedding and the scatter-add of its FP32 gradient."""
    size = inputs.tokens * inputs.model.hidden
    return PhaseOps(
        forward=(MemoryOp("embedding gather", "permute", size * 4),),
        weight=(MemoryOp("embedding gradient scatter-add", "permute", size * (2 + 4 + 4)),),
    )


def lm_head(inputs: LayerInputs, label: str = "lm head") -> PhaseOps:
    """Return final norm, logits and cross-entropy.

    Logits are written by the GEMM in BF16, cast to FP32 and read once by the loss (row maximum and
    sum), then read and replaced by their gradient in BF16: 16 bytes a logit, as if what is easily
    fused were. A kernel that does it all moves 6, PyTorch's one by one 36; a profile's `traffic` of
    the family `loss` says which.
    """
    t, h, vocabulary = inputs.tokens, inputs.model.hidden, inputs.model.vocabulary
    logits = t * vocabulary
    return PhaseOps(
        forward=(
            MemoryOp(f"{label}: rmsnorm", "add_norm", t * h * 4),
            Gemm(f"{label}: logits", t, vocabulary, h, BF16),
            MemoryOp(f"{label}: cast logits to FP32", "loss", logits * (2 + 4)),
            MemoryOp(f"{label}: log-sum-exp", "loss", logits * 4),
        ),
        backward=(
            MemoryOp(f"{label}: loss gradient", "loss", logits * (4 + 2)),
            Gemm(f"{label}: dgrad", t, h, vocabulary, BF16, "dgrad"),
            MemoryOp(f"{label}: rmsnorm backward", "norm_backward", t * h * 6, launches=3),
        ),
        weight=(Gemm(f"{label}: wgrad", vocabulary, h, t, BF16, "wgrad"),),
    )


def logits_bytes(inputs: LayerInputs) -> float:
    """FP32 logits of the one micro-batch that is in the loss."""
    return inputs.tokens * inputs.model.vocabulary * 4.0


def saved_bytes(inputs: LayerInputs) -> float:
    """The head's input in BF16, kept for its weight gradient."""
    return inputs.tokens * inputs.model.hidden * 2.0
