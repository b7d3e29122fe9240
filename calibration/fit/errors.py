"""How far prices are from measured times."""

from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of prices, as fractions of the measured time.

    Attributes:
        median, p90: of |price / measured - 1|.
        bias: median of price / measured - 1.
        rows: how many.
    """

    median: float
    p90: float
    bias: float
    rows: int

    @classmethod
    def of(cls, log_error: Floats) -> "Errors":
        """Return the errors of log(price / measured)."""
        error = np.expm1(log_error)
        size = np.abs(error)
        return cls(
            float(np.median(size)),
            float(np.percentile(size, 90)),
            float(np.median(error)),
            len(error),
        )
