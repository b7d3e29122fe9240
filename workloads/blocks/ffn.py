"""Gated feed-forward block: `down(silu(gate(x)) * up(x))`, dense or as the shared expert.

Up and gate projections are one product of `2 * width` columns (SwiGLU, arXiv 2002.05202).
"""

from typing import Literal

from hwmodels.units import Width
from workloads.blocks import FFNSpec, Site, share_of
from workloads.blocks.tensor_parallel import entering, leaving
from workloads.recipes import BF16_BYTES, Operand, Passes

SCALES = 5
"""Small kernels of a pass of the expert layer in the trace: for the scales of the shared expert's
two products, for those of the routed ones two and a multiplication. A dense FFN is given them too.
"""


class GatedFFN(FFNSpec):
    """A dense FFN that every token visits.

    Attributes:
        width: intermediate width.
    """

    kind: Literal["gated"] = "gated"
    width: Width

    def parameters(self, hidden: int, *, activated: bool = False) -> int:
        """Gate, up and down: `3 h width`."""
        return 3 * hidden * self.width

    def passes(self, site: Site) -> Passes:
        """Return norm, cast of what both projections read, and the FFN."""
        t, h, recipe = site.tokens, site.hidden, site.recipe
        norm = recipe.norm("ffn", t, h)
        entered = Passes(forward=recipe.cast("hidden (ffn)", t, h))
        return (
            norm
            + entered
            + recipe.scale_transposes(SCALES, SCALES)
            + gated(site, "dense", self.width)
            + recipe.again((*norm.forward, *entered.forward), t * h * BF16_BYTES)
        )

    def shard(self, tp: int, etp: int = 1) -> "GatedFFN":
        """Deal out the columns of the first product and the rows of the second."""
        return self.model_copy(update={"width": share_of(self.width, "FFN width", "tp", tp)})


def gated(site: Site, name: str, width: int) -> Passes:
    """Return the kernels of a gated FFN, of which a rank has `width`, on rows that a cast was asked
    of.

    The gradient of what it gives comes in the format of products, as in the trace, where it was
    cast for the wire.
    """
    tokens, hidden, recipe = site.gathered, site.hidden, site.recipe
    came, made = Operand.QUANTISED, Operand.READY
    before, behind = entering(site, f"hidden ({name})", hidden)
    return (
        before
        + recipe.linear(f"{name} up+gate", tokens, 2 * width, hidden, x=recipe.asked_for)
        + behind
        + recipe.swiglu(name, tokens, width)
        + recipe.linear(f"{name} down", tokens, hidden, width, x=made, dy=came)
        + leaving(site, name, hidden)
    )
