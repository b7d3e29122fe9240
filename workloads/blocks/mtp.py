"""Multi-token prediction: norm both inputs, project their concatenation, one more layer.

`h' = W [rmsnorm(h); rmsnorm(embed(next token))]` (arXiv 2412.19437 §2.2, eq. 21). Embedding and
head are those of the main model; the projection is a linear of the recipe.
"""

from workloads.blocks import Site, share_of
from workloads.blocks.tensor_parallel import entering, joined
from workloads.ops import MemoryOp
from workloads.recipes import BF16_BYTES, Passes


def mtp_projection(site: Site) -> Passes:
    """Return the embedding lookup, the two norms and the projection in front of the MTP layer.

    What is projected is kept as its product reads it; inputs of the norms are kept where nothing
    is computed again.
    """
    t, h, recipe = site.tokens, site.hidden, site.recipe
    kept = recipe.kept.bytes_of(t * 2 * h)
    if not recipe.recomputes:
        kept += t * 2 * h * BF16_BYTES
    before = Passes(
        forward=(
            MemoryOp("mtp: embedding gather", "permute", t * h * 4),
            MemoryOp("mtp: rmsnorm x2", "add_norm", t * h * 8, launches=2),
        ),
        backward=(
            MemoryOp("mtp: rmsnorm backward x2", "norm_backward", t * 2 * h * 10, launches=6),
        ),
        weight=(MemoryOp("mtp: embedding gradient scatter-add", "permute", t * h * 10),),
        saved_bytes=kept,
    )
    gathered, share = site.gathered, share_of(h, "hidden width", "tp", site.tp)
    entered, behind = entering(site, "both inputs (mtp)", 2 * h)
    projected = recipe.linear("mtp: eh_proj", gathered, share, 2 * h)
    return before + entered + projected + behind + joined(site, "mtp: eh_proj", h)


def projection_parameters(hidden: int) -> int:
    """Weights of the projection, `2h x h`."""
    return 2 * hidden * hidden


def parameters(hidden: int) -> int:
    """Parameters of the projection and the norms around it."""
    return projection_parameters(hidden) + 3 * hidden
