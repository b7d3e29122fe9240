"""The answer of every cost function: how long each kernel takes, and what holds it there."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints

BOUNDS = ("compute", "memory", "latency", "sustained")
"""What can hold a kernel: its arithmetic and tile overheads, the bytes it moves, fixed times that
do not depend on its size, or the rate the chip sustains under load."""


class KernelTime(NamedTuple):
    """Times of many kernels; arrays broadcast to the shape of the arguments.

    Attributes:
        time_s: seconds, float64.
        bound_index: place in `BOUNDS` of what holds each kernel.
    """

    time_s: Floats
    bound_index: Ints

    @property
    def bound(self) -> npt.NDArray[np.str_]:
        """One of `BOUNDS` for each kernel."""
        return np.asarray(BOUNDS)[self.bound_index]


def smooth_maximum(exponent: float, *terms: Floats) -> Floats:
    """Return `(sum terms^exponent)^(1/exponent)`: never below the largest term, near it when the
    others are small. Scaled by the largest term, so that small seconds do not underflow.
    """
    largest = terms[0]
    for term in terms[1:]:
        largest = np.maximum(largest, term)
    safe = np.where(largest > 0, largest, 1.0)
    total = sum((term / safe) ** exponent for term in terms)
    return np.asarray(largest * total ** (1 / exponent), dtype=np.float64)
