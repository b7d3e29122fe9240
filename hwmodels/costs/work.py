"""The least that kernels do: FLOPs of tensor cores and bytes of HBM, and the roofline over them.

A roofline is what a cost model has to beat. It knows no tile, no launch and no efficiency.
"""

from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec


class Work(NamedTuple):
    """(rows,) FLOPs on tensor cores of a format family, multiply-adds counted as two, and bytes
    read and written once."""

    flops: Floats
    moved_bytes: Floats
    tensor_family: str


def roofline_s(chip: ChipSpec, work: Work) -> Floats:
    """Return the larger of FLOPs over peak and bytes over bandwidth, both of the datasheet.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    compute_s = work.flops / chip.tensor_flops_per_s(work.tensor_family)
    return np.asarray(np.maximum(compute_s, work.moved_bytes / chip.hbm_bytes_per_s))
