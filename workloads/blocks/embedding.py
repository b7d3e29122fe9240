"""Token embedding: rows of a table, gathered and added to, in BF16 whatever the recipe."""

from workloads.blocks import Site
from workloads.blocks.tensor_parallel import leaving
from workloads.ops import MemoryOp
from workloads.recipes import Passes


def embedding(site: Site) -> Passes:
    """Return the row gather and the scatter-add of its FP32 gradient.

    Rows are read and written in BF16; a BF16 gradient is added to an FP32 one. Tensor-parallel
    ranks have a share of the vocabulary each, so that rows of all of them are summed.
    """
    size = site.gathered * site.hidden
    rows = Passes(
        forward=(MemoryOp("embedding gather", "permute", size * 4),),
        weight=(MemoryOp("embedding gradient scatter-add", "permute", size * (2 + 4 + 4)),),
    )
    return rows + leaving(site, "embedding", site.hidden)
