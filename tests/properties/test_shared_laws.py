"""Laws of transfers over shared links, over random graphs, in both engines."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.engines import array, reference
from simulator.engines.transfers import Transfers
from tests.random_graphs import random_graph, with_transfers

CLOSE = {"rel": 1e-9, "abs": 1e-12}

seeds = st.integers(0, 2**32 - 1)
in_both_engines = pytest.mark.parametrize(
    "play", [reference.play, array.play], ids=["reference", "array"]
)


def graph_of_seed(seed):
    rng = random.Random(seed)
    return with_transfers(rng, random_graph(rng, most_streams=8, most_events=16, most_after=2))


def columns(timeline):
    return np.array([timeline.ready_s, timeline.start_s, timeline.end_s])


def alone_s(graph):
    """Seconds of each task if its transfer meets no other."""
    transfers = graph.transfers
    return graph.duration_s + [
        transfers.moved_bytes[task] / transfers.link_bytes_per_s[links].min() if len(links) else 0
        for task in range(len(graph))
        for links in [transfers.links_of(task)]
    ]


def carried_bytes(transfers):
    """Bytes that cross each link."""
    moved_bytes = np.repeat(transfers.moved_bytes, np.diff(transfers.link_start))
    return np.bincount(transfers.link, weights=moved_bytes, minlength=len(transfers.links))


@in_both_engines
@given(seed=seeds)
def test_transfers_that_never_meet_are_tasks_of_their_own_time(play, seed):
    """With links of its own, a transfer is a task of `duration + bytes / capacity`."""
    graph = graph_of_seed(seed)
    shared = graph.transfers
    own = Transfers(
        shared.moved_bytes,
        shared.link_start,
        np.arange(len(shared.link)),
        shared.link_bytes_per_s[shared.link],
        tuple(f"l{crossing}" for crossing in range(len(shared.link))),
    )
    static = replace(graph, transfers=None, duration_s=alone_s(graph))
    met, expected = play(replace(graph, transfers=own)), play(static)
    assert columns(met) == pytest.approx(columns(expected), **CLOSE)


@in_both_engines
@given(seed=seeds)
def test_a_transfer_is_never_faster_than_alone(play, seed):
    graph = graph_of_seed(seed)
    timeline = play(graph)
    took_s = timeline.end_s - timeline.start_s
    assert (took_s >= alone_s(graph) - 1e-9).all()
    ordinary = ~graph.transfers.moves
    assert took_s[ordinary] == pytest.approx(graph.duration_s[ordinary], **CLOSE)


@in_both_engines
@given(seed=seeds)
def test_the_makespan_is_at_least_the_bytes_of_the_busiest_link(play, seed):
    graph = graph_of_seed(seed)
    busiest_s = (carried_bytes(graph.transfers) / graph.transfers.link_bytes_per_s).max()
    assert play(graph).makespan_s >= busiest_s * (1 - 1e-9)


@in_both_engines
@given(seed=seeds)
def test_the_only_link_is_full_whenever_anything_moves(play, seed):
    """With one link in all, something moves for as long as all bytes take at full speed."""
    graph = graph_of_seed(seed)
    transfers = replace(
        graph.transfers,
        link=np.zeros(len(graph), dtype=np.int64),
        link_start=np.arange(len(graph) + 1),
        link_bytes_per_s=np.array([3.0]),
        links=("nic",),
    )
    timeline = play(replace(graph, transfers=transfers))
    moving = np.flatnonzero(transfers.moves)
    spans = sorted(
        zip(
            timeline.start_s[moving] + graph.duration_s[moving], timeline.end_s[moving], strict=True
        )
    )
    moved_s, until = 0.0, 0.0
    for begin, end in spans:
        moved_s += max(0.0, end - max(begin, until))
        until = max(until, end)
    assert moved_s * 3 == pytest.approx(transfers.moved_bytes.sum(), **CLOSE)


@in_both_engines
@given(seed=seeds)
def test_twice_the_durations_and_bytes_are_twice_every_time(play, seed):
    """To the last bit: powers of two change no digit."""
    graph = graph_of_seed(seed)
    twice = replace(
        graph,
        duration_s=2 * graph.duration_s,
        transfers=replace(graph.transfers, moved_bytes=2 * graph.transfers.moved_bytes),
    )
    assert (columns(play(twice)) == 2 * columns(play(graph))).all()


@in_both_engines
@given(seed=seeds)
def test_half_the_capacity_is_twice_the_bytes(play, seed):
    graph = graph_of_seed(seed)
    transfers = graph.transfers
    half = replace(transfers, link_bytes_per_s=transfers.link_bytes_per_s / 2)
    twice = replace(transfers, moved_bytes=2 * transfers.moved_bytes)
    slow, heavy = (play(replace(graph, transfers=changed)) for changed in (half, twice))
    assert (columns(slow) == columns(heavy)).all()


@in_both_engines
@given(seed=seeds, data=st.data())
def test_renaming_the_links_changes_nothing(play, seed, data):
    """Links in another order, and the links of each transfer listed backwards."""
    graph = graph_of_seed(seed)
    transfers = graph.transfers
    new = np.array(data.draw(st.permutations(range(len(transfers.links)))))
    old = np.argsort(new)
    rows = [new[transfers.links_of(task)][::-1] for task in range(len(graph))]
    renamed = Transfers(
        transfers.moved_bytes,
        transfers.link_start,
        np.concatenate([np.zeros(0, dtype=np.int64), *rows]),
        transfers.link_bytes_per_s[old],
        tuple(transfers.links[link] for link in old),
    )
    before, after = play(graph), play(replace(graph, transfers=renamed))
    assert columns(after) == pytest.approx(columns(before), **CLOSE)


@in_both_engines
@given(seed=seeds)
def test_a_link_with_room_for_all_changes_nothing(play, seed):
    """Though it connects transfers that had nothing to do with each other."""
    graph = graph_of_seed(seed)
    transfers = graph.transfers
    crossing = transfers.link_start[:-1][transfers.moves]
    wide = Transfers(
        transfers.moved_bytes,
        transfers.link_start + np.append(0, np.cumsum(transfers.moves)),
        np.insert(transfers.link, crossing, len(transfers.links)),
        np.append(transfers.link_bytes_per_s, 1e6),
        (*transfers.links, "wide"),
    )
    before, after = play(graph), play(replace(graph, transfers=wide))
    assert columns(after) == pytest.approx(columns(before), **CLOSE)


@in_both_engines
@given(seed=seeds)
def test_two_plays_are_the_same_to_the_last_bit(play, seed):
    once, again = (columns(play(graph_of_seed(seed))) for _ in range(2))
    assert once.tobytes() == again.tobytes()
