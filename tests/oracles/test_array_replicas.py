"""Replicas of a graph in the array engine: groups, blame and what is kept, by hand and against the
reference engine.
"""

import random

import numpy as np
import pytest

from hwmodels.errors import DeadlockError, InputError
from simulator.engines import array, reference
from simulator.engines.graph import tile
from tests.random_graphs import random_graph
from tests.replicas import NONE, REPLICA_COLUMNS, built, random_replicas, some_tasks

pytestmark = pytest.mark.usefixtures("compiled_loops")


# By hand


def test_replicas_meet_at_each_collective_of_their_group():
    """Compute of 1, 3, 2 and 6 s, then an exchange of 1 s that pairs of replicas start together."""
    graph = built(("compute", "work", 1, [], -1), ("comm", "exchange", 1, ["work"], 0))
    played = array.play_replicas(graph, np.array([[1.0, 3, 2, 6], [1, 1, 1, 1]]), group=2)
    assert played.end_s.tolist() == [[1, 3, 2, 6], [4, 4, 7, 7]]
    assert played.wait_s.tolist() == [[0, 0, 0, 0], [2, 0, 4, 0]]
    assert played.blame_s.tolist() == [[0, 0, 0, 0], [0, 2, 0, 4]]
    assert played.busy_s.tolist() == [[1, 3, 2, 6], [1, 1, 1, 1]]
    assert played.makespan_s.tolist() == [4, 4, 7, 7]


def test_the_last_to_come_is_blamed_in_its_own_stream_and_replica():
    """A collective on two streams of two replicas: ready at 1 and 3 s in one, 2 and 5 s in the
    other; the last waits for nobody, the others 4, 2 and 3 s for it.
    """
    graph = built(
        ("s", "a", 1, [], -1),
        ("t", "b", 1, [], -1),
        ("s", "x", 1, [], 0),
        ("t", "y", 1, [], 0),
    )
    seconds = np.array([[1.0, 2], [3, 5], [1, 1], [1, 1]])
    for engine in (array, reference):
        played = engine.play_replicas(graph, seconds, 2)
        assert played.wait_s.tolist() == [[4, 3], [2, 0]]
        assert played.blame_s.tolist() == [[0, 0], [0, 9]]
        alone = engine.play_replicas(graph, seconds, 1)
        assert alone.wait_s.tolist() == [[2, 3], [0, 0]]
        assert alone.blame_s.tolist() == [[0, 0], [2, 3]]


# Against the reference engine


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_group_of_replicas_plays_as_the_graph_tiled(dtype):
    rng = random.Random(f"replicas {dtype.__name__}")
    for _ in range(100):
        graph = random_graph(rng)
        group, duration_s = random_replicas(rng, graph, dtype)
        played = array.play_replicas(graph, duration_s, group)
        for first in range(0, duration_s.shape[1], group):
            own = slice(first, first + group)
            tiled = tile(graph, duration_s[:, own].T.astype(np.float64))
            expected = reference.play(tiled)
            assert played.end_s[:, own].T.ravel().tolist() == expected.end_s.tolist()
            busy_s = expected.busy_s().reshape(group, -1).T
            assert played.busy_s[:, own] == pytest.approx(busy_s, rel=1e-12, abs=1e-12)
            wait_s = np.zeros(len(tiled.streams))
            np.add.at(wait_s, tiled.stream, expected.wait_s)
            wait_s = wait_s.reshape(group, -1).T
            assert played.wait_s[:, own] == pytest.approx(wait_s, rel=1e-12, abs=1e-12)
            makespan_s = expected.end_s.reshape(group, -1).max(axis=1)
            assert played.makespan_s[own].tolist() == makespan_s.tolist()


def test_both_engines_play_groups_of_replicas_alike():
    """Random graphs and groups. Of two that come last together either may be blamed: where tasks
    that take no time make such a tie, blame is not compared.
    """
    rng = random.Random("engines")
    blamed = 0
    for _ in range(300):
        graph = random_graph(rng)
        group, duration_s = random_replicas(rng, graph, np.float64)
        keep = rng.choice([None, some_tasks(rng, graph), NONE])
        expected, found = (
            engine.play_replicas(graph, duration_s, group, keep) for engine in (reference, array)
        )
        assert found.kept.tolist() == expected.kept.tolist()
        assert found.end_s.tobytes() == expected.end_s.tobytes()
        assert found.makespan_s.tobytes() == expected.makespan_s.tobytes()
        assert found.busy_s == pytest.approx(expected.busy_s, rel=1e-12, abs=1e-12)
        assert found.wait_s == pytest.approx(expected.wait_s, rel=1e-12, abs=1e-12)
        if not ties(graph, duration_s, group):
            assert found.blame_s == pytest.approx(expected.blame_s, rel=1e-12, abs=1e-12)
            blamed += expected.blame_s.any()
    assert blamed > 50


def collectives(graph, duration_s, group):
    """Ready times (members, replicas of a group) of each collective of each group, and members."""
    for first in range(0, duration_s.shape[1], group):
        own = slice(first, first + group)
        ready_s = reference.play(tile(graph, duration_s[:, own].T)).ready_s.reshape(group, -1).T
        for number in np.unique(graph.collective[graph.collective >= 0]):
            members = np.flatnonzero(graph.collective == number)
            yield first, members, ready_s[members]


def ties(graph, duration_s, group):
    """Whether two members of some collective come last together."""
    return any(
        (ready_s == ready_s.max()).sum() > 1
        for *_, ready_s in collectives(graph, duration_s, group)
    )


@pytest.mark.parametrize("engine", [array, reference], ids=["array", "reference"])
def test_all_waiting_is_blamed_on_the_last_to_come(engine):
    """Collective by collective: what all members waited goes to the stream and the replica of the
    one that came last; so over the streams of a group blame sums to waiting.
    """
    rng = random.Random("blame")
    told = 0
    for _ in range(200):
        graph = random_graph(rng)
        group, duration_s = random_replicas(rng, graph, np.float64)
        played = engine.play_replicas(graph, duration_s, group)
        by_group = (
            column.reshape(len(graph.streams), -1, group).sum(axis=(0, 2))
            for column in (played.blame_s, played.wait_s)
        )
        assert next(by_group) == pytest.approx(next(by_group), rel=1e-12, abs=1e-12)
        if ties(graph, duration_s, group):
            continue
        blame_s = np.zeros_like(played.blame_s)
        for first, members, ready_s in collectives(graph, duration_s, group):
            last, replica = np.unravel_index(np.argmax(ready_s), ready_s.shape)
            waited = (ready_s.max() - ready_s).sum()
            blame_s[graph.stream[members[last]], first + replica] += waited
        assert played.blame_s == pytest.approx(blame_s, rel=1e-12, abs=1e-12)
        told += blame_s.any()
    assert told > 30


# Against replicas played alone, and the whole record


@pytest.mark.parametrize("threads", [True, False], ids=["threads", "in turn"])
def test_many_tiles_and_threads_change_no_bit(monkeypatch, threads):
    """300 replicas in groups of 3 are five tiles, were the graph not this small; each group alone
    is one.
    """
    monkeypatch.setattr(array, "CACHED_TASKS", 0)
    if threads:
        monkeypatch.setattr(array, "THREADED_TASKS", 0)
    rng = random.Random(5)
    graph = random_graph(rng)
    duration_s = np.random.default_rng(5).random((len(graph), 300))
    together = array.play_replicas(graph, duration_s, 3)
    for first in range(0, 300, 3):
        own = slice(first, first + 3)
        alone = array.play_replicas(graph, duration_s[:, own], 3)
        for column in REPLICA_COLUMNS[1:]:
            assert getattr(together, column)[..., own].tobytes() == getattr(alone, column).tobytes()


@pytest.mark.parametrize("engine", [array, reference], ids=["array", "reference"])
def test_what_is_kept_are_rows_of_the_whole_record(engine):
    """Some tasks in any order, or none for a summary; the rest is that of the whole record."""
    rng = random.Random("kept")
    for _ in range(200):
        graph = random_graph(rng)
        group, duration_s = random_replicas(rng, graph, np.float64)
        whole = engine.play_replicas(graph, duration_s, group)
        assert whole.kept.tolist() == list(range(len(graph)))
        for keep in (some_tasks(rng, graph), NONE):
            short = engine.play_replicas(graph, duration_s, group, keep)
            assert short.kept.tolist() == keep.tolist()
            assert short.end_s.shape == (len(keep), duration_s.shape[1])
            assert short.end_s.tobytes() == whole.end_s[keep].tobytes()
            for column in ("busy_s", "wait_s", "blame_s", "makespan_s"):
                assert getattr(short, column).tobytes() == getattr(whole, column).tobytes()


# Graphs that cannot finish, and wrong input


def test_replicas_of_a_graph_that_cannot_finish_are_refused():
    graph = built(("s", "a", 1, ["b"], -1), ("t", "b", 1, ["a"], -1))
    with pytest.raises(DeadlockError, match="'a' on s waits for 'b' on t"):
        array.play_replicas(graph, np.ones((2, 4)))


@pytest.mark.parametrize(
    ("duration_s", "group", "message"),
    [
        (np.ones((3, 4)), 1, r"one row for each of the 2 tasks .*, got shape \(3, 4\)"),
        (np.ones(2), 1, r"got shape \(2,\)"),
        (np.ones((2, 4)), 3, "group: must divide the 4 replicas, got 3"),
        (np.ones((2, 4)), 0, "group: must divide the 4 replicas, got 0"),
        (np.array([[1.0], [-1.0]]), 1, r"must be 0 s or more, got -1\.0"),
    ],
)
def test_durations_that_do_not_fit_the_graph_are_refused(duration_s, group, message):
    graph = built(("s", "a", 1, [], -1), ("t", "b", 1, ["a"], -1))
    with pytest.raises(InputError, match=message):
        array.play_replicas(graph, duration_s, group)
