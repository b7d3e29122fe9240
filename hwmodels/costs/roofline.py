"""The datasheet's roofline: the larger of FLOPs over peak and bytes over bandwidth.

What a cost model has to beat. It knows no tile, no launch and no efficiency.
"""

from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec


class Work(NamedTuple):
    """What a kernel does at least: FLOPs on tensor cores of a family, and bytes of HBM."""

    flops: Floats
    moved_bytes: Floats
    tensor_family: str


def roofline_s(chip: ChipSpec, work: Work) -> Floats:
    """Return seconds of work at the datasheet's rates.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    compute_s = work.flops / chip.tensor_flops_per_s(work.tensor_family)
    return np.asarray(np.maximum(compute_s, work.moved_bytes / chip.hbm_bytes_per_s))
