"""Every point screened; those played that can still be best.

Screen and play differ by what the points played so far show, or by the study's margin if that is
more. A point can be best while none that was played beats its screen, moved that far to the good.
"""

from collections.abc import Iterator

import numpy as np

from hwmodels.arrays import Floats, Mask
from simulator.study.pareto import losses, undominated
from simulator.study.rows import Task
from simulator.study.searches import Search
from simulator.tell.study_table import FEASIBLE, POINT


def rounds(search: Search) -> Iterator[list[Task]]:
    """Yield all points to screen, then those to play, until no other can win."""
    yield search.tasks("screen", search.points)
    while points := _can_win(search):
        yield search.tasks("play", [point for point in search.points if point in points])


def _can_win(search: Search) -> set[int]:
    """Return points that were not played and can still be best."""
    screened, played = search.rows("screen"), search.rows("play")
    screened = screened[screened[FEASIBLE]]
    screen = losses(screened, search.document)
    number = screened[POINT].to_numpy(np.int64)
    tried = np.isin(number, played[POINT])
    if not tried.any():
        return set(number[undominated(screen)].tolist())
    good = played[played[FEASIBLE]]
    play = losses(good, search.document)
    place = np.searchsorted(number, good[POINT])
    margin = max(search.spec.margin, _apart(screen[place], play))
    at_best = screen - margin * np.abs(screen)
    left = ~tried & ~_beaten(at_best, play)
    return set(number[left].tolist())


def _apart(screen: Floats, play: Floats) -> float:
    """Return by how much screen and play differ at most, relative to the screen."""
    return float(np.max(np.abs(play / screen - 1), initial=0.0))


def _beaten(values: Floats, front: Floats) -> Mask:
    """Return (rows,) whether one of the front is better in all of (rows, objectives)."""
    found = np.zeros(len(values), np.bool_)
    for best in front[undominated(front)]:
        found |= (best <= values).all(axis=1)
    return found
