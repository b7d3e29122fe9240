"""Language-model head and its loss, in BF16 whatever the recipe."""

from hwmodels.formats import FORMATS
from workloads.blocks import Site
from workloads.ops import Gemm, MemoryOp
from workloads.recipes import BF16_BYTES, Passes

BF16 = FORMATS["bf16"]


def lm_head(site: Site, vocabulary: int) -> Passes:
    """Return final norm, logits and cross-entropy; the head's input is kept, and without
    recomputation that of the norm.

    Logits are written by the GEMM in BF16, cast to FP32 and read once by the loss (row maximum and
    sum), then read and replaced by their gradient in BF16: 16 bytes a logit, as if what is easily
    fused were. A kernel that does it all moves 6, PyTorch's one by one 36; a profile's `traffic` of
    the family `loss` says which.
    """
    t, h = site.tokens, site.hidden
    logits = t * vocabulary
    return Passes(
        forward=(
            MemoryOp("lm head: rmsnorm", "add_norm", t * h * 4),
            Gemm("lm head: logits", t, vocabulary, h, BF16),
            MemoryOp("lm head: cast logits to FP32", "loss", logits * (2 + 4)),
            MemoryOp("lm head: log-sum-exp", "loss", logits * 4),
        ),
        backward=(
            MemoryOp("lm head: loss gradient", "loss", logits * (4 + 2)),
            Gemm("lm head: dgrad", t, h, vocabulary, BF16, "dgrad"),
            MemoryOp("lm head: rmsnorm backward", "norm_backward", t * h * 6, launches=3),
        ),
        weight=(Gemm("lm head: wgrad", vocabulary, h, t, BF16, "wgrad"),),
        saved_bytes=t * h * BF16_BYTES * (1 if site.recipe.recomputes else 2),
    )


def logits_bytes(site: Site, vocabulary: int) -> float:
    """FP32 logits of the one micro-batch that is in the loss."""
    return site.tokens * vocabulary * 4.0
