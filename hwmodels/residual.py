"""What measured kernels add to a cost model: a factor that is interpolated between them.

A cost model prices a family with a dozen constants. What it leaves over, measured / priced, is the
same for shapes that are alike, so it is read off the measured ones nearby: in coordinates that the
family's `features` give, the logarithm of the factor is their mean,

    log factor(x) = sum_i w_i log(measured_i / priced_i) / (sum_i w_i + w_none)
    w_i = exp(-|x - x_i|^2 / 2)

over the nearest rows (Nadaraya, Theory of Probability and Its Applications 9, 1964; Watson,
Sankhya A 26, 1964). `w_none` stands for a row that says there is nothing to add, so the factor
goes to 1 where no shape like it was measured.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.errors import CalibrationError

NEIGHBOURS = 16
NOTHING_TO_ADD = 0.1
"""w_none, in rows of the very shape asked for."""


@dataclass(frozen=True, eq=False)
class Residual:
    """Measured rows of one family, to interpolate between.

    Attributes:
        features: (rows, d) where they lie; a distance of 1 is another shape.
        log_ratio: (rows,) log(measured / priced).

    Raises:
        CalibrationError: no rows, or one that is not finite.
    """

    features: Floats
    log_ratio: Floats

    def __post_init__(self) -> None:
        rows = len(self.log_ratio)
        if not rows or self.features.shape[:1] != (rows,):
            raise CalibrationError(
                f"residual: must have as many features as ratios, and some; got "
                f"{len(self.features)} and {rows}"
            )
        if not (np.isfinite(self.features).all() and np.isfinite(self.log_ratio).all()):
            raise CalibrationError("residual: features and ratios must be finite numbers")

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree  # noqa: PLC0415 - only what has measured rows needs it

        return cKDTree(self.features)

    def factor(self, features: Floats) -> Floats:
        """Return (points,) what prices are multiplied by at `features` (points, d)."""
        nearest = min(NEIGHBOURS, len(self.log_ratio))
        distance, index = self._tree.query(features, k=np.arange(1, nearest + 1))
        weight = np.exp(-0.5 * distance**2)
        total = weight.sum(axis=-1) + NOTHING_TO_ADD
        return np.asarray(np.exp((weight * self.log_ratio[index]).sum(axis=-1) / total))
