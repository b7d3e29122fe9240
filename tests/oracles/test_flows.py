"""Flows that share links: ends worked out by hand, by fractions, by linear programs, and played."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engines import array, reference
from simulator.engines.graph import GraphBuilder
from simulator.network import fair
from simulator.network.fair import fair_rates, finish
from simulator.network.fair_loops import PLAIN, compiled
from simulator.network.flows import Flows
from tests.max_min import assert_max_min, exact_ends, lexicographic_rates, networks

EXACT = {"rel": 1e-9}

LARGE = networks(16, 8, st.one_of(st.integers(1, 4), st.floats(0.01, 100)))
SMALL = networks(6, 4, st.integers(1, 6))


def flows_of(crosses, moved_bytes, weight=1.0):
    """Flows of (flows, links) who crosses what."""
    link = np.where(crosses, np.arange(crosses.shape[1]), -1)
    return Flows.of(link, moved_bytes, weight)


def routes_of(crosses):
    return [np.flatnonzero(row).tolist() for row in crosses]


def sizes(draw, flows, least=0):
    """Bytes of some flows, often the same."""
    size = st.one_of(st.integers(least, 3), st.floats(0.1, 10))
    return np.array(draw(st.lists(size, min_size=flows, max_size=flows)), dtype=np.float64)


# By hand: a wide link 0 of 10 bytes/s and a narrow link 1 of 4


WIDE_AND_NARROW = [[0, -1], [0, 1], [-1, 1]]


def test_rates_by_hand():
    """Two share the narrow link, 2 each; the wide one's other flow has what they leave of it."""
    flows = Flows.of(WIDE_AND_NARROW, 1.0)
    assert fair_rates(flows, [10, 4]).tolist() == [8, 2, 2]


def test_ends_by_hand():
    """After 1 s the first has moved 8 bytes and the third 2; the second has 4 bytes/s for its last
    2 bytes.
    """
    times = finish(Flows.of(WIDE_AND_NARROW, [8, 4, 2]), [10, 4], batch=0)
    assert times.end_s.tolist() == [1, 1.5, 1]
    assert (times.allocations, times.closed_form, times.last_s) == (2, False, 1.5)


def test_flows_in_balance_end_together_without_a_division():
    """Of 8, 2 and 2 bytes both links are full for 1 s."""
    times = finish(Flows.of(WIDE_AND_NARROW, [8, 2, 2]), [10, 4])
    assert times.end_s.tolist() == [1, 1, 1]
    assert (times.allocations, times.closed_form) == (0, True)


def test_full_links_are_no_balance_where_sizes_are_not_as_rates():
    """Both links have 1 s to carry and could do so, but fair rates are halves of each: the small
    flow is over in 2/3 s, and the large ones have their links for themselves to the end.
    """
    flows = Flows.of([[0, 1], [0, -1], [1, -1]], [1, 2, 2])
    times = finish(flows, [3, 3], batch=0)
    assert not times.closed_form
    assert times.end_s == pytest.approx([2 / 3, 1, 1], rel=1e-15)


def test_one_flow_has_its_slowest_link():
    times = finish(Flows.of([[2, 0, 1]], 12), [3, 2, 4])
    assert (times.end_s.tolist(), times.closed_form) == ([6], True)


def test_two_sizes_on_one_link():
    """1 and 3 bytes over 2 bytes/s: 1 each, until the small one is over after 1 s."""
    times = finish(Flows.of([[0], [0]], [1, 3]), [2], batch=0)
    assert (times.end_s.tolist(), times.allocations) == ([1, 2], 2)


def test_local_and_empty_flows_end_at_once():
    flows = Flows.of([[-1, -1], [0, -1], [0, 1]], [5, 0, 6])
    assert finish(flows, [2, 3]).end_s.tolist() == [0, 0, 3]
    assert fair_rates(flows, [2, 3]).tolist() == [np.inf, 1, 1]
    assert finish(Flows.of(np.zeros((0, 2), int), 1), []).last_s == 0


def test_a_row_of_three_is_three_rows():
    three = Flows.of([[0, 1], [0, -1]], [2, 5], [3, 1])
    apart = Flows.of([[0, 1]] * 3 + [[0, -1]], [2, 2, 2, 5])
    assert fair_rates(three, [8, 3]).tolist() == [1, 5]
    assert fair_rates(apart, [8, 3]).tolist() == [1, 1, 1, 5]
    assert finish(three, [7, 3], 0).end_s.tolist() == [2, 1.25]
    assert finish(apart, [7, 3], 0).end_s.tolist() == [2, 2, 2, 1.25]


def test_a_batch_ends_with_its_last():
    """Over 3 bytes/s: due after 1 and 1.02 s, both end then; the third has moved 1.02 bytes and has
    the link for its other 2.98. Exactly, two share 3 bytes/s after 1 s, and all end in 6.02 / 3.
    """
    flows = Flows.of([[0]] * 3, [1, 1.02, 4])
    times = finish(flows, [3], batch=0.05)
    assert times.end_s == pytest.approx([1.02, 1.02, 1.02 + 2.98 / 3], rel=1e-15)
    assert times.allocations == 2
    exact = finish(flows, [3], batch=0)
    assert exact.end_s == pytest.approx([1, 1 + 0.02 / 1.5, 6.02 / 3], rel=1e-15)
    assert exact.allocations == 3


def test_a_batch_may_bring_the_last_end_forward():
    """Rounding up delays what is in a batch, and with it what meets that; but those that hold up
    the first flow on link 1 are themselves held up on link 2, and leave it more. It stays above
    the 3 s that link 0 is busy.
    """
    routes = [[0, 1], [2], [2, 1], [2, 1], [0], [2, 1]]
    moved_bytes, bytes_per_s = [8, 4.5, 5, 5.5, 1, 1.5], [3, 8, 7]
    flows = Flows.of([[*route, -1][:2] for route in routes], moved_bytes)
    exact = finish(flows, bytes_per_s, batch=0)
    assert exact.last_s == pytest.approx(float(exact_ends(routes, moved_bytes, bytes_per_s)[0]))
    assert 3 < finish(flows, bytes_per_s, batch=0.2).last_s < exact.last_s < 3.04


@pytest.mark.parametrize("ranks", [2, 7, 64])
def test_an_even_exchange_is_its_ports_bytes_over_their_rate(ranks):
    source, target = np.nonzero(~np.eye(ranks, dtype=bool))
    times = finish(Flows.of(np.stack([source, ranks + target], axis=1), 3e6), [50e9] * 2 * ranks)
    assert times.closed_form
    assert times.end_s == pytest.approx((ranks - 1) * 3e6 / 50e9, rel=1e-12)


def test_groups_apart_end_each_in_its_own_time():
    """An even exchange beside one that is not: only that is divided."""
    flows = Flows.of([[0], [0], [1], [1]], [2, 2, 1, 3])
    times = finish(flows, [1, 2], batch=0)
    assert times.end_s.tolist() == [4, 4, 1, 2]
    assert (times.allocations, times.closed_form) == (2, False)


# By solvers that are not ours


@given(LARGE)
def test_each_flow_is_held_by_a_full_link_on_which_none_is_faster(network):
    crosses, bytes_per_s = network
    assert_max_min(crosses, bytes_per_s, fair_rates(flows_of(crosses, 1), bytes_per_s))


@settings(max_examples=60)
@given(SMALL, st.data())
def test_rates_are_those_of_linear_programs(network, data):
    crosses, bytes_per_s = network
    weight = np.array(data.draw(st.lists(st.integers(1, 3), min_size=6)))[: len(crosses)]
    weight = np.resize(weight, len(crosses))
    expected = lexicographic_rates(np.repeat(crosses, weight, axis=0), bytes_per_s)
    rate = fair_rates(flows_of(crosses, 1, weight), bytes_per_s)
    assert np.repeat(rate, weight) == pytest.approx(expected, **EXACT)


@given(SMALL, st.data())
def test_ends_are_those_of_fractions(network, data):
    crosses, bytes_per_s = network
    moved_bytes = sizes(data.draw, len(crosses))
    expected = [float(end) for end in exact_ends(routes_of(crosses), moved_bytes, bytes_per_s)]
    times = finish(flows_of(crosses, moved_bytes), bytes_per_s, batch=0)
    assert times.end_s == pytest.approx(expected, **EXACT)


def played_ends(play, crosses, bytes_per_s, moved_bytes):
    """Ends of a graph of one task for each flow."""
    builder = GraphBuilder()
    for link, capacity in enumerate(bytes_per_s):
        builder.link(f"l{link}", capacity)
    for flow, row in enumerate(crosses):
        links = np.flatnonzero(row).tolist()
        builder.add(f"s{flow}", "x", moved_bytes=moved_bytes[flow], links=links)
    return play(builder.build()).end_s


@pytest.mark.parametrize("play", [reference.play, array.play], ids=["reference", "array"])
@given(LARGE, st.data())
def test_ends_are_those_of_tasks_with_transfers(play, network, data):
    crosses, bytes_per_s = network
    moved_bytes = sizes(data.draw, len(crosses))
    times = finish(flows_of(crosses, moved_bytes), bytes_per_s, batch=0)
    assert times.end_s == pytest.approx(played_ends(play, *network, moved_bytes), **EXACT)


# The closed form against the loops, and these against themselves compiled


def played(flows, bytes_per_s, batch=0.0, loops=PLAIN):
    """End of each flow and divisions, without the closed form."""
    rows = np.flatnonzero((flows.moved_bytes > 0) & (flows.route >= 0).any(axis=1))
    capacity = np.asarray(bytes_per_s, dtype=np.float64)
    net, rows = fair.crossings(flows, rows, capacity, loops)
    allocations = loops.play_some(net, batch, 0, len(net.flow_first) - 1)
    end_s = np.zeros(len(flows))
    end_s[rows] = net.end_s
    return end_s, allocations


@given(LARGE, st.floats(0.1, 10))
def test_flows_sized_by_their_fair_rates_are_in_balance(network, seconds):
    crosses, bytes_per_s = network
    rate = fair_rates(flows_of(crosses, 1), bytes_per_s)
    flows = flows_of(crosses, rate * seconds)
    times = finish(flows, bytes_per_s)
    assert times.closed_form
    assert times.end_s == pytest.approx(seconds, **EXACT)
    assert played(flows, bytes_per_s)[0] == pytest.approx(seconds, **EXACT)


@settings(max_examples=300)
@given(networks(5, 4, st.integers(1, 3)), st.data())
def test_the_closed_form_is_what_the_loops_play(network, data):
    """Small numbers, so that links are often in balance, some of them for longer than others."""
    crosses, bytes_per_s = network
    whole = st.integers(1, 3)
    moved_bytes = data.draw(st.lists(whole, min_size=len(crosses), max_size=len(crosses)))
    flows = flows_of(crosses, moved_bytes)
    busy_s = (np.array(moved_bytes) @ crosses) / bytes_per_s
    end_s, settled = fair.balanced_ends(flows, busy_s)
    if settled.all():
        assert end_s == pytest.approx(played(flows, bytes_per_s)[0], **EXACT)
    else:
        assert not finish(flows, bytes_per_s).closed_form


def test_compiled_loops_give_the_same_bits():
    rng = np.random.default_rng(3)
    source, target = np.nonzero(~np.eye(12, dtype=bool))
    flows = Flows.of(
        np.stack([source, 12 + target, 24 + source // 4], axis=1),
        rng.lognormal(0, 0.5, len(source)),
        rng.integers(1, 5, len(source)),
    )
    capacity = rng.uniform(1, 3, 27)
    for batch in (0.0, 0.02):
        plain, own = (played(flows, capacity, batch, loops) for loops in (PLAIN, compiled()))
        assert plain[0].tolist() == own[0].tolist()
        assert plain[1] == own[1]


def test_a_wrong_rate_is_seen():
    """The checks above are no formality: a link a little faster changes what they compare."""
    flows = Flows.of(WIDE_AND_NARROW, [8, 4, 2])
    exact = [float(end) for end in exact_ends([[0], [0, 1], [1]], [8, 4, 2], [10, 4])]
    assert finish(flows, [10, 4], 0).end_s == pytest.approx(exact, **EXACT)
    assert finish(flows, [10, 4.001], 0).end_s != pytest.approx(exact, **EXACT)
    heavier = replace(flows, weight=np.array([1, 1, 1.001]))
    assert finish(heavier, [10, 4], 0).end_s != pytest.approx(exact, **EXACT)
