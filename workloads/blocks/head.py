"""Language-model head and its loss, in BF16 whatever the recipe."""

from hwmodels.formats import FORMATS
from workloads.blocks import Site
from workloads.blocks.tensor_parallel import entering
from workloads.ops import Comm, Gemm, MemoryOp
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
    t, h, columns = site.gathered, site.hidden, vocabulary_of_rank(vocabulary, site.tp)
    logits = t * columns
    norm = Passes(
        (MemoryOp("lm head: rmsnorm", "add_norm", site.tokens * h * 4),),
        (MemoryOp("lm head: rmsnorm backward", "norm_backward", site.tokens * h * 6, launches=3),),
        saved_bytes=site.tokens * h * BF16_BYTES * (1 if site.recipe.recomputes else 2),
    )
    product = Passes(
        (Gemm("lm head: logits", t, columns, h, BF16),),
        (Gemm("lm head: dgrad", t, h, columns, BF16, "dgrad"),),
        (Gemm("lm head: wgrad", columns, h, t, BF16, "wgrad"),),
    )
    loss = Passes(
        (
            MemoryOp("lm head: cast logits to FP32", "loss", logits * (2 + 4)),
            MemoryOp("lm head: log-sum-exp", "loss", logits * 4),
            *_sums(site),
        ),
        (MemoryOp("lm head: loss gradient", "loss", logits * (4 + 2)),),
    )
    before, behind = entering(site, "hidden (head)", h)
    return norm + before + product + behind + loss


def _sums(site: Site) -> tuple[Comm, ...]:
    """Maximum, sum and chosen logit of each token over the shares of a vocabulary, in FP32."""
    if site.tp == 1:
        return ()
    return (
        Comm("loss over the vocabulary", "all_reduce", ("tp",), site.gathered * 4.0, repeats=3),
    )


def vocabulary_of_rank(vocabulary: int, tp: int) -> int:
    """Return the columns that one of `tp` ranks has, the last ones padded."""
    return -(-vocabulary // tp)


def logits_bytes(site: Site, vocabulary: int) -> float:
    """FP32 logits of the one micro-batch that is in the loss."""
    return site.gathered * vocabulary_of_rank(vocabulary, site.tp) * 4.0
