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
    screen = losses(screened, search.document)
    able = screened[FEASIBLE].to_numpy(bool) & np.isfinite(screen).all(axis=1)
    number, screen = screened[POINT].to_numpy(np.int64)[able], screen[able]
    tried = np.isin(number, played[POINT])
    play = losses(played, search.document)
    good = played[FEASIBLE].to_numpy(bool) & np.isfinite(play).all(axis=1)
    good &= np.isin(played[POINT], number)
    play, number_played = play[good], played[POINT].to_numpy(np.int64)[good]
    left, at_best = number[~tried], screen[~tried]
    if not len(play):  # none yet, or none of them can run
        return set(left[undominated(at_best)].tolist())
    of_good = screen[np.searchsorted(number, number_played)]
    margin = np.maximum(search.spec.margin, _apart(of_good, play))
    at_best = at_best - margin * np.abs(at_best)
    return set(left[~_beaten(at_best, play)].tolist())


def _apart(screen: Floats, play: Floats) -> Floats:
    """Return (objectives,) by how much screen and play differ at most, relative to the screen;
    nothing can be told of a screen of 0.
    """
    apart = np.zeros_like(screen)
    np.divide(np.abs(play - screen), np.abs(screen), out=apart, where=screen != 0)
    return np.asarray(apart.max(axis=0))


def _beaten(values: Floats, front: Floats) -> Mask:
    """Return (rows,) whether one of the front is better in all of (rows, objectives)."""
    found = np.zeros(len(values), np.bool_)
    for best in front[undominated(front)]:
        found |= (best <= values).all(axis=1)
    return found
