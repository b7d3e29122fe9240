"""What tensor-parallel ranks pass each other around a pair of products split over them.

The first product has its columns split, the second its rows, so that a pair needs one sum over
ranks (Megatron-LM, arXiv 1909.08053 §3). With sequence parallelism each rank keeps a share of the
tokens between pairs: they are gathered before the first product and the sum is scattered behind
the second (arXiv 2205.05198 §4.2.2). Backward the two change places. What the first product read
is gathered again for its weight gradient while the gradient of its input is multiplied, which is
summed while weight gradients are (NVIDIA/Megatron-LM, core/tensor_parallel/layers.py).

Every rank has whole rows in BF16; bytes are of the whole buffer, as nccl-tests counts them.
"""

from workloads.blocks import Site
from workloads.ops import Beside, Comm, CommKind
from workloads.recipes import BF16_BYTES, Passes


def entering(site: Site, name: str, width: int) -> tuple[Passes, Passes]:
    """Return what comes before a product whose columns are split, and what right behind it.

    Args:
        name: of the tensor that it reads, of `width` elements a token.
    """
    if site.tp == 1:
        return Passes(), Passes()
    if not site.sequence_parallel:
        summed = _comm(site, f"sum d({name})", "all_reduce", width, "weights")
        return Passes(backward=(summed,)), Passes()
    gathered = _comm(site, f"gather {name}", "all_gather", width)
    scattered = _comm(site, f"scatter d({name})", "reduce_scatter", width, "weights")
    again = _comm(site, f"gather {name} again", "all_gather", width, "kernels")
    return Passes((gathered,), (scattered,)), Passes(backward=(again,))


def leaving(site: Site, name: str, width: int) -> Passes:
    """Return what comes behind a product whose rows are split and which gives a tensor `name`."""
    if site.tp == 1:
        return Passes()
    if not site.sequence_parallel:
        return Passes((_comm(site, f"sum {name}", "all_reduce", width),))
    scattered = _comm(site, f"scatter {name}", "reduce_scatter", width)
    gathered = _comm(site, f"gather d({name})", "all_gather", width)
    return Passes((scattered,), (gathered,))


def joined(site: Site, name: str, width: int) -> Passes:
    """Return what makes whole rows of a product whose columns are split; of their gradients each
    rank has its share of the columns already.
    """
    if site.tp == 1:
        return Passes()
    return Passes((_comm(site, f"gather {name}", "all_gather", width),))


def _comm(site: Site, name: str, kind: CommKind, width: int, beside: Beside = "") -> Comm:
    return Comm(name, kind, ("tp",), float(site.gathered * width * BF16_BYTES), beside=beside)
