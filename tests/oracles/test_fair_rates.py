"""Max-min fair rates of both engines: against what defines them, and against linear programs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engines import array, reference
from simulator.engines.graph import GraphBuilder
from simulator.engines.loops import PLAIN, compiled
from simulator.engines.shared_reference import fair_rates
from tests.max_min import assert_max_min, lexicographic_rates, networks

ENGINES = {
    "reference": reference.play,
    "compiled": lambda graph: array.play(graph, compiled()),
    "plain": lambda graph: array.play(graph, PLAIN),
}


LARGE = networks(16, 8, st.one_of(st.integers(1, 4), st.floats(0.01, 100)))
SMALL = networks(6, 4, st.integers(1, 6))


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
