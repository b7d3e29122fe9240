"""Max-min fair rates of both engines: against what defines them, and against linear programs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from simulator.play import array, reference
from simulator.play.graph import GraphBuilder
from simulator.play.loops import PLAIN, compiled
from simulator.play.network import fair_rates

CLOSE = 1 + 1e-9

ENGINES = {
    "reference": reference.play,
    "compiled": lambda graph: array.play(graph, compiled()),
    "plain": lambda graph: array.play(graph, PLAIN),
}


@st.composite
def networks(draw, most_transfers, most_links, capacities):
    """(transfers, links) who crosses what, and (links,) capacities."""
    links = draw(st.integers(1, most_links))
    routes = st.lists(st.integers(0, links - 1), min_size=1, unique=True)
    drawn = draw(st.lists(routes, min_size=1, max_size=most_transfers))
    crosses = np.array([[link in route for link in range(links)] for route in drawn])
    return crosses, np.array([draw(capacities) for _ in range(links)], dtype=np.float64)


LARGE = networks(16, 8, st.one_of(st.integers(1, 4), st.floats(0.01, 100)))
SMALL = networks(6, 4, st.integers(1, 6))


def assert_max_min(crosses, bytes_per_s, rate):
    """No link carries more than it can, and each transfer has a full link on which nobody is faster
    than it: that holds for one division of the links and no other.
    """
    carried = rate @ crosses
    assert (carried <= bytes_per_s * CLOSE).all()
    full = carried * CLOSE >= bytes_per_s
    fastest = (crosses * rate[:, None]).max(axis=0)
    held = crosses & full & (rate[:, None] * CLOSE >= fastest)
    assert held.any(axis=1).all()


def lexicographic_rates(crosses, bytes_per_s):
    """Max-min as it is often defined: make the smallest rate as large as it can be, then the next.

    A linear program finds how far all open rates can rise together; another, for each of them,
    whether it could be more while the others are no less.
    """
    transfers = len(crosses)
    lowest, highest = np.zeros(transfers), np.full(transfers, np.inf)
    while np.isinf(highest).any():
        open_rates = np.flatnonzero(np.isinf(highest))
        rise = (np.arange(transfers)[:, None] == open_rates).sum(axis=1)
        level = largest(crosses, bytes_per_s, lowest, highest, common=rise)
        lowest[open_rates] = level
        for transfer in open_rates:
            alone = (np.arange(transfers) == transfer) * 1
            if largest(crosses, bytes_per_s, lowest, highest, goal=alone) < level + 1e-6:
                highest[transfer] = level
    return highest


def largest(crosses, bytes_per_s, lowest, highest, common=None, goal=None):
    """The largest rate of `goal`, or the largest that all rates in `common` can be."""
    transfers, links = crosses.shape
    # Variables: the rates, and the level that those in `common` have to reach.
    full = np.hstack([crosses.T, np.zeros((links, 1))])
    reach = np.zeros((0, transfers + 1))
    if common is not None:
        reach = np.hstack([-np.diag(common), common[:, None]])[common > 0]
    wanted = np.append(np.zeros(transfers), 1) if goal is None else np.append(goal, 0)
    solved = linprog(
        -wanted,
        A_ub=np.vstack([full, reach]),
        b_ub=np.append(bytes_per_s, np.zeros(len(reach))),
        bounds=[*zip(lowest, highest, strict=True), (0, None if goal is None else 0)],
    )
    assert solved.status == 0, solved.message
    return -solved.fun


def all_from_zero(crosses, bytes_per_s, moved_bytes):
    """A graph whose transfers all start at once."""
    builder = GraphBuilder()
    for link, capacity in enumerate(bytes_per_s):
        builder.link(f"l{link}", capacity)
    for transfer, row in enumerate(crosses):
        links = np.flatnonzero(row).tolist()
        builder.add(f"s{transfer}", "x", moved_bytes=moved_bytes[transfer], links=links)
    return builder.build()


def test_progressive_filling_by_hand():
    """Over 10 and 4 bytes/s: one on the wide link, one on both, one on the narrow."""
    crosses = np.array([[True, False], [True, True], [False, True]])
    assert fair_rates(crosses, np.array([10, 4])).tolist() == [8, 2, 2]


@given(LARGE)
def test_each_transfer_is_held_by_a_full_link_on_which_none_is_faster(network):
    assert_max_min(*network, fair_rates(*network))


@settings(max_examples=60)
@given(SMALL)
def test_the_smallest_rate_is_as_large_as_it_can_be_and_so_is_the_next(network):
    expected = lexicographic_rates(*network)
    assert fair_rates(*network) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("play", ENGINES.values(), ids=ENGINES)
@given(network=LARGE)
def test_transfers_sized_by_their_fair_rates_all_end_together(play, network):
    """A rate too low would end later, and one too high earlier."""
    rate = fair_rates(*network)
    assert_max_min(*network, rate)
    timeline = play(all_from_zero(*network, moved_bytes=3 * rate))
    assert timeline.end_s == pytest.approx(3, rel=1e-9)


@pytest.mark.parametrize("play", ENGINES.values(), ids=ENGINES)
@settings(max_examples=30)
@given(network=SMALL)
def test_transfers_sized_by_linear_programs_all_end_together(play, network):
    timeline = play(all_from_zero(*network, moved_bytes=3 * lexicographic_rates(*network)))
    assert timeline.end_s == pytest.approx(3, rel=1e-9)


def test_rates_that_are_not_fair_are_seen():
    """Feasible and full, but the second could have more of what the first has."""
    crosses, bytes_per_s = np.array([[True], [True]]), np.array([4.0])
    assert_max_min(crosses, bytes_per_s, np.array([2.0, 2.0]))
    for unfair in ([3.0, 1.0], [1.9, 1.9], [2.1, 2.1]):
        with pytest.raises(AssertionError):
            assert_max_min(crosses, bytes_per_s, np.array(unfair))
