"""How the numbers of a column are shown: in one unit, rounded once: what is kept is read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats
from simulator.tell.headlines import UNITS, Unit

Numbers = Sequence[float] | Floats

SPREAD_MAX = 1e3
"""Largest ratio of a column's numbers that still have the same decimals: the smallest would be left
with too few digits."""

EXACT = 1e-12
"""Relative error below which a number is what it was rounded to: what dividing by a unit adds."""

SMALLER: dict[str, tuple[Unit, ...]] = {
    "s": (Unit(1e-3, " ms"), Unit(1e-6, " µs")),
    "bytes": (Unit(1e6, " MB"), Unit(1e3, " kB"), Unit(1.0, " B")),
    "B/s": (Unit(1e6, " MB/s"),),
    "watts": (Unit(1.0, " W"),),
    "USD": (Unit(1e3, " k USD"), Unit(1.0, " USD")),
}
"""Units below those of `UNITS`, the largest first."""


class Digits(NamedTuple):
    """How a column is shown.

    Attributes:
        unit: what its numbers are divided by, and what stands behind them.
        decimals: of every number; None where each has `digits` significant ones.
    """

    unit: Unit
    decimals: int | None
    digits: int

    def rounded(self, values: Floats) -> Floats:
        """Return numbers as they are shown, in the column's unit."""
        scaled = np.asarray(values, dtype=np.float64) / self.unit.scale
        if self.decimals is not None:
            return np.round(scaled, self.decimals)
        texts = [f"{value:.{self.digits}g}" for value in scaled.tolist()]
        return np.array(texts, dtype=np.float64)

    def text(self, value: float) -> str:
        """Return one number without its unit: `1,234.5`."""
        if self.decimals is not None:
            return f"{value / self.unit.scale:,.{self.decimals}f}"
        return f"{value / self.unit.scale:.{self.digits}g}"


def unit_for(values: Numbers, unit: str) -> Unit:
    """Return the unit in which the largest of some numbers is at least 1.

    Args:
        values: in the base unit; those that are not finite do not count.
        unit: a key of `UNITS`.
    """
    largest, units = max(_sizes(values), default=0.0), (UNITS[unit], *SMALLER.get(unit, ()))
    fitting = (each for each in units if largest >= each.scale)
    return next(fitting, units[-1] if largest else units[0])


def digits_for(values: Numbers, unit: Unit, digits: int) -> Digits:
    """Return how to show a column.

    Args:
        values: in the base unit; those that are not finite do not count.
        digits: significant digits of the largest.
    """
    sizes = _sizes(values)
    if not len(sizes):
        return Digits(unit, 0, digits)
    largest, least = float(sizes.max()), float(sizes.min())
    if largest > SPREAD_MAX * least:
        return Digits(unit, None, digits)
    decimals = max(0, digits - 1 - int(np.floor(np.log10(largest / unit.scale))))
    scaled = sizes / unit.scale
    while decimals and np.allclose(np.round(scaled, decimals - 1), scaled, rtol=EXACT, atol=0.0):
        decimals -= 1  # what is 20 in every row is not shown as 20.000
    return Digits(unit, decimals, digits)


def _sizes(values: Numbers) -> Floats:
    """Return how far from zero numbers are, without those that are zero or not finite."""
    sizes = np.abs(np.asarray(values, dtype=np.float64))
    return np.asarray(sizes[np.isfinite(sizes) & (sizes > 0)])
