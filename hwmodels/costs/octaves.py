"""Where kernels lie, in doublings: coordinates for what measured rows add to a price.

A `Residual` learns over these. A distance of 1 is another shape: twice a size, twice a rate. What a
model says of a shape is as telling as the shape itself: its price, and the FLOP/s and bytes/s that
the price comes to, which say what held the kernel.
"""

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats
from hwmodels.costs.work import Work

LEAST = 2.0**-20
"""What stands for nothing."""


def octaves(price_s: Floats, work: Work, *sizes: npt.ArrayLike) -> Floats:
    """Return (rows, 3 + sizes) logarithms to base 2: price, FLOP/s, bytes/s, and sizes."""
    flops_per_s, bytes_per_s = work.flops / price_s, work.moved_bytes / price_s
    columns = np.broadcast_arrays(
        *(np.asarray(column, np.float64) for column in (price_s, flops_per_s, bytes_per_s, *sizes))
    )
    return np.stack([np.log2(np.maximum(np.ravel(column), LEAST)) for column in columns], axis=1)
