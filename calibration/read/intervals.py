"""Sets of time intervals as columns: what they cover, how they share it, what lies beside others.

The ends of all intervals cut time into pieces. Of each piece it is known how many run; sums over
pieces, looked up at the two ends of an interval, say what holds inside it. Nothing is a loop.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwmodels.arrays import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Intervals that may overlap: (intervals,) seconds, none ending before it starts."""

    start_s: Floats
    end_s: Floats

    def __len__(self) -> int:
        return len(self.start_s)

    def take(self, index: Any) -> "Intervals":
        """Return the intervals at `index` (positions or a mask)."""
        return Intervals(self.start_s[index], self.end_s[index])

    @property
    def covered_s(self) -> float:
        """Seconds in which at least one of them runs."""
        cuts, running = self._pieces()
        return float((np.diff(cuts) * (running > 0)).sum())

    @property
    def span_s(self) -> float:
        """Seconds from the first start to the last end."""
        return float(self.end_s.max() - self.start_s.min()) if len(self) else 0.0

    def shares_s(self) -> Floats:
        """Return (intervals,) seconds; those that run side by side share them equally.

        All of them add up to what is covered.
        """
        cuts, running = self._pieces()
        return _inside(self, cuts, np.diff(cuts) / np.maximum(running, 1))

    def beside_s(self, others: "Intervals") -> Floats:
        """Return (intervals,) seconds of each in which at least one of `others` runs."""
        cuts, running = others._pieces()
        return _inside(self, cuts, np.diff(cuts) * (running > 0))

    def _pieces(self) -> tuple[Floats, Ints]:
        """Return (cuts,) where intervals start or end, and (cuts - 1,) how many run between."""
        cuts = np.unique(np.concatenate([self.start_s, self.end_s]))
        steps = np.zeros(len(cuts), np.int64)
        np.add.at(steps, np.searchsorted(cuts, self.start_s), 1)
        np.add.at(steps, np.searchsorted(cuts, self.end_s), -1)
        return cuts, np.cumsum(steps)[:-1]


def _inside(intervals: Intervals, cuts: Floats, pieces_s: Floats) -> Floats:
    """Return (intervals,) how much of the pieces between `cuts` lies inside of each.

    Pieces count in proportion where an interval ends inside of one.
    """
    if not len(cuts):
        return np.zeros(len(intervals))
    before = np.concatenate([[0.0], np.cumsum(pieces_s)])
    ends = (np.interp(side, cuts, before) for side in (intervals.start_s, intervals.end_s))
    start, end = ends
    return np.asarray(end - start)
