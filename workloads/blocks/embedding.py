"""Token embedding: rows of a table, gathered and added to, in BF16 whatever the recipe."""

from workloads.blocks import Site
from workloads.ops import MemoryOp
from workloads.recipes import Passes


def embedding(site: Site) -> Passes:
    """Return the row gather and the scatter-add of its FP32 gradient.

    Rows are read and written in BF16; a BF16 gradient is added to an FP32 one.
    """
    size = site.tokens * site.hidden
    return Passes(
        forward=(MemoryOp("embedding gather", "permute", size * 4),),
        weight=(MemoryOp("embedding gradient scatter-add", "permute", size * (2 + 4 + 4)),),
    )
