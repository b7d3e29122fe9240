"""Laws of searches: no point that was left out is best, a front is what comparing all gives, and
rounds end.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from simulator.study.document import SweepSpec
from simulator.study.pareto import front, undominated
from simulator.study.searches import Search, rounds
from simulator.tell.headlines import Headline
from simulator.tell.study_table import FEASIBLE, POINT, AxisColumn, StudyDocument

LESS, MORE = Headline("cost", "cost", "", "less"), Headline("gain", "gain", "", "more")


def document(objectives):
    return StudyDocument(
        name="s", title="t", axes=(AxisColumn(name="x", title="x"),), columns=(LESS, MORE),
        objectives=objectives, points=1, digest="", asked={}, base={}, version="",
    )  # fmt: skip


@dataclass
class World:
    """Points whose screen and play are known; keeps which were looked at."""

    objectives: tuple[str, ...]
    screen: np.ndarray
    play: np.ndarray
    screened: np.ndarray
    able: np.ndarray
    looked_at: dict[str, list[int]] = field(default_factory=lambda: {"screen": [], "play": []})

    def frame(self, fidelity):
        points = sorted(self.looked_at[fidelity])
        values = {"screen": self.screen, "play": self.play}[fidelity][points]
        able = {"screen": self.screened, "play": self.able}[fidelity][points]
        columns = {name: np.where(able, column, np.nan)
                   for name, column in zip(self.objectives, values.T, strict=True)}  # fmt: skip
        return pd.DataFrame({POINT: np.array(points, np.int64), FEASIBLE: able, **columns})

    def search(self, margin, batch):
        """Look at what is asked for, round by round; return how many rounds there were."""
        spec = SweepSpec(kind="search", margin=margin)
        order = list(range(len(self.screen)))
        asked = Search(spec, document(self.objectives), order, self.frame, batch)
        count = 0
        for tasks in rounds(asked):
            count += 1
            assert count <= len(order) + 1
            for fidelity, points in tasks:
                assert len(points) <= batch
                assert not set(points) & set(self.looked_at[fidelity])
                self.looked_at[fidelity] += points
        return count


@st.composite
def worlds(draw, margin):
    count, width = draw(st.integers(1, 40)), draw(st.integers(1, 2))
    screen = draw(npst.arrays(np.float64, (count, width), elements=st.floats(0.1, 10)))
    off = draw(npst.arrays(np.float64, (count, width), elements=st.floats(-margin, margin)))
    masks = npst.arrays(np.bool_, count)
    screened = draw(masks)
    able = screened & draw(masks)
    return World(("cost", "gain")[:width], screen, screen * (1 + 0.999 * off), screened, able)


@settings(max_examples=300)
@given(worlds(0.2), st.integers(1, 7))
def test_what_was_left_out_beats_nothing_that_was_played(world, batch):
    """Screen and play differ by less than the margin."""
    world.search(0.2, batch)
    assert world.looked_at["screen"] == list(range(len(world.screen)))
    signs = np.array([1.0, -1.0])[: len(world.objectives)]
    left = world.able.copy()
    left[world.looked_at["play"]] = False
    played = [point for point in world.looked_at["play"] if world.able[point]]
    for point in np.flatnonzero(left):
        truth = world.play[point] * signs
        assert any((world.play[other] * signs <= truth).all() for other in played)


@settings(max_examples=200)
@given(worlds(0.9), st.integers(1, 7))
def test_rounds_end_however_wrong_the_screen_is(world, batch):
    """And what cannot run by the screen is never played."""
    world.search(0.0, batch)
    assert world.screened[world.looked_at["play"]].all()
    assert bool(world.looked_at["play"]) == bool(world.screened.any())


def test_a_screen_of_nothing_is_no_reason_to_stop():
    screen = np.zeros((4, 1))
    everything = np.ones(4, np.bool_)
    world = World(("cost",), screen, np.arange(4.0)[:, None], everything, everything)
    world.search(0.05, 2)
    assert 0 in world.looked_at["play"]


few = st.integers(0, 4).map(float)  # few numbers, so that many are equal


@settings(max_examples=300)
@given(npst.arrays(np.float64, st.tuples(st.integers(0, 30), st.integers(1, 3)), elements=few))
def test_a_front_is_what_comparing_all_with_all_gives(values):
    expected = [
        not any((other <= value).all() and (other < value).any() for other in values)
        for value in values
    ]
    assert undominated(values).tolist() == expected


@given(
    npst.arrays(np.float64, (12, 2), elements=st.floats(1, 9) | st.just(np.nan)),
    npst.arrays(np.bool_, 12),
)
def test_a_front_holds_who_can_run_and_whose_numbers_are_known(values, able):
    frame = pd.DataFrame({"cost": values[:, 0], "gain": values[:, 1], FEASIBLE: able})
    found = front(frame, document(("cost", "gain")))
    known = able & np.isfinite(values).all(axis=1)
    assert not found[~known].any()
    assert found.any() == known.any()
    for row in np.flatnonzero(known & ~found):
        better = (values[found, 0] <= values[row, 0]) & (values[found, 1] >= values[row, 1])
        assert better.any()
