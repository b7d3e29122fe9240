"""Replicas that move bytes over links of their own, and meet in collectives."""

import random
from dataclasses import fields

import numpy as np
import pytest

from simulator.engines import array, reference
from simulator.engines.graph import GraphBuilder
from simulator.engines.moving import Crossings, ReplicaNames, play_moving, tile_transfers
from simulator.engines.timeline import ReplicaTimeline
from tests.random_graphs import random_graph

ENGINES = pytest.mark.parametrize("engine", [array, reference], ids=["array", "reference"])


def crossings_of(rows, links):
    """Links that each task crosses, as CSR."""
    counts = [len(row) for row in rows]
    return Crossings(
        np.concatenate(([0], np.cumsum(counts, dtype=np.int64))),
        np.array([link for row in rows for link in row], np.int64),
        tuple(f"link {number}" for number in range(links)),
    )


def exchange_beside_message():
    """An exchange, then kernels; a message shares the link of the exchange."""
    builder = GraphBuilder()
    exchange = builder.add("comm", "exchange", collective=0)
    builder.add("compute", "kernels", after=(exchange,))
    builder.add("send", "message")
    return builder.build(), crossings_of([[0], [], [0]], 1)


@ENGINES
def test_who_meets_a_message_on_its_link_is_late_and_is_waited_for_afterwards(engine):
    """Two replicas exchange 4 bytes at 1 byte/s after 1 s; replica 1 also sends 2 bytes from the
    start. Until 3 s its link is shared: the message has 1 s alone and then half of the link, so it
    ends after 3 s; the exchange has moved 1 byte by then and ends at 6 instead of 5.
    """
    graph, crossings = exchange_beside_message()
    duration_s = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    moved = np.array([[4.0, 4.0], [0.0, 0.0], [0.0, 2.0]])
    found = play_moving(engine, graph, duration_s, crossings, moved, np.ones((1, 2)))
    assert found.played.end_s == pytest.approx(np.array([[5, 6], [6, 7], [0, 3]]))
    assert found.taken_s == pytest.approx(np.array([[5, 6], [1, 1], [0, 3]]))
    assert found.played.makespan_s == pytest.approx([6, 7])
    assert not found.played.wait_s.any()


@ENGINES
def test_a_collective_waits_for_the_replica_that_was_late_on_its_link(engine):
    """The same, and a second exchange that moves nothing: replica 0 waits 1 s for replica 1."""
    builder = GraphBuilder()
    builder.add("comm", "first", collective=0)
    builder.add("comm", "second", collective=1)
    builder.add("send", "message")
    crossings = crossings_of([[0], [], [0]], 1)
    duration_s = np.array([[1.0, 1.0], [0.5, 0.5], [0.0, 0.0]])
    moved = np.array([[4.0, 4.0], [0.0, 0.0], [0.0, 2.0]])
    played = play_moving(
        engine, builder.build(), duration_s, crossings, moved, np.ones((1, 2))
    ).played
    assert played.end_s[1] == pytest.approx([6.5, 6.5])
    assert played.wait_s[0] == pytest.approx([1, 0])
    assert played.blame_s[0] == pytest.approx([0, 1])
    assert played.busy_s[0] == pytest.approx([5.5, 6.5])


@ENGINES
@pytest.mark.parametrize("seed", range(40))
def test_without_bytes_replicas_are_played_as_columns_are(engine, seed):
    rng = random.Random(seed)
    graph = random_graph(rng)
    duration_s = np.random.default_rng(seed).exponential(size=(len(graph), rng.randint(1, 4)))
    rows = [[rng.randrange(3)] for _ in range(len(graph))]
    nothing, rates = np.zeros_like(duration_s), np.ones((3, duration_s.shape[1]))
    found = play_moving(engine, graph, duration_s, crossings_of(rows, 3), nothing, rates)
    expected = engine.play_replicas(graph, duration_s, duration_s.shape[1])
    assert found.taken_s == pytest.approx(duration_s, rel=1e-9, abs=1e-12)
    for field in fields(ReplicaTimeline)[1:]:
        one, other = (getattr(played, field.name) for played in (found.played, expected))
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12), field.name


@pytest.mark.parametrize("seed", range(40))
def test_engines_agree_on_replicas_that_move_bytes(seed):
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    graph = random_graph(rng)
    shape = len(graph), rng.randint(1, 4)
    rows = [rng.sample(range(3), rng.randint(0, 2)) for _ in range(len(graph))]
    asked = (
        graph,
        numbers.exponential(size=shape),
        crossings_of(rows, 3),
        numbers.exponential(size=shape),
        numbers.uniform(0.5, 2, (3, shape[1])),
    )
    one, other = (play_moving(engine, *asked) for engine in (array, reference))
    assert one.taken_s == pytest.approx(other.taken_s, rel=1e-9, abs=1e-12)
    for name in ("end_s", "busy_s", "wait_s", "makespan_s"):
        first, second = (getattr(each.played, name) for each in (one, other))
        assert first == pytest.approx(second, rel=1e-9, abs=1e-9), name
    # Who is the last may be another by rounding; what all are blamed for is what all waited.
    for each in (one, other):
        assert each.played.blame_s.sum() == pytest.approx(each.played.wait_s.sum(), abs=1e-9)


def test_each_replica_has_links_of_its_own():
    crossings = crossings_of([[1], [0, 1]], 2)
    moved, rates = np.array([[1.0, 2], [3, 4]]), np.array([[10.0, 20], [30, 40]])
    found = tile_transfers(crossings, moved, rates)
    assert [found.links_of(task).tolist() for task in range(4)] == [[1], [0, 1], [3], [2, 3]]
    assert found.moved_bytes.tolist() == [1, 3, 2, 4]
    assert found.link_bytes_per_s.tolist() == [10, 30, 20, 40]
    assert list(found.links) == [f"replica {r}/link {n}" for r in (0, 1) for n in (0, 1)]


def test_names_of_links_are_made_when_they_are_asked_for():
    names = ReplicaNames(("a", "b"), 10**9)
    assert len(names) == 2 * 10**9
    assert (names[-1], names[2]) == ("replica 999999999/b", "replica 1/a")
    assert names[1:3] == ["replica 0/b", "replica 1/a"]
    with pytest.raises(IndexError):
        names[2 * 10**9]
