"""The array engine against graphs done by hand, the reference engine, and its loops in Python."""

import os
import random
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest

from hwmodels.errors import DeadlockError, InputError
from simulator.play import array, loops, reference
from simulator.play.graph import GraphBuilder, TaskGraph, tile
from simulator.play.loops import PLAIN, compiled
from simulator.play.order import order_of
from tests.random_graphs import graph_of, random_graph, wild_graph

COLUMNS = ("ready_s", "start_s", "end_s")
REPLICA_COLUMNS = ("kept", "end_s", "busy_s", "wait_s", "blame_s", "makespan_s")
NONE = np.zeros(0, dtype=np.int64)


@pytest.fixture(autouse=True, scope="module")
def _compiled_loops():
    """Small graphs would be played by the loops as they stand until the compiler is loaded."""
    compiled()


def built(*tasks):
    """A graph of (stream, label, seconds, [labels waited for], collective or -1)."""
    builder = GraphBuilder()
    index = {
        label: builder.add(stream, label, seconds, collective=collective)
        for stream, label, seconds, _, collective in tasks
    }
    for _, label, _, after, _ in tasks:
        for other in after:
            builder.depend(index[label], index[other])
    return builder.build()


def outcome(engine, graph):
    """Times of all tasks as bytes, or the message of the deadlock."""
    try:
        timeline = engine(graph)
    except DeadlockError as error:
        return str(error)
    return [getattr(timeline, column).tobytes() for column in COLUMNS]


def numbers(value):
    """Every number in nested mappings and sequences, in order."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from numbers(part)
    elif not isinstance(value, str):
        yield value


def plain_play(graph):
    return array.play(graph, PLAIN)


# By hand


@pytest.fixture(params=[array.play, plain_play], ids=["compiled", "plain"])
def play(request):
    return request.param


def test_a_blocked_task_holds_up_what_is_behind_it_in_its_stream(play):
    """`b` waits for `x`; `c` could start at once and may not pass it."""
    graph = built(("s", "b", 1, ["x"], -1), ("s", "c", 1, [], -1), ("t", "x", 5, [], -1))
    timeline = play(graph)
    assert timeline.start_s.tolist() == [5, 6, 0]
    assert timeline.end_s.tolist() == [6, 7, 5]


def test_streams_meet_at_the_latest_dependency(play):
    """Diamond: `a` to `b` (3 s) and `c` (1 s), `d` after both."""
    timeline = play(
        built(
            ("s", "a", 2, [], -1),
            ("t", "b", 3, ["a"], -1),
            ("u", "c", 1, ["a"], -1),
            ("s", "d", 1, ["b", "c"], -1),
        )
    )
    assert timeline.ready_s.tolist() == [0, 2, 2, 5]
    assert timeline.end_s.tolist() == [2, 5, 3, 6]


def test_members_of_a_collective_start_together_when_the_last_is_ready(play):
    """Ready at 1, 4 and 2; all start at 4, run their own time, and waited 3, 0 and 2."""
    timeline = play(
        built(
            ("s", "a", 1, [], -1),
            ("t", "b", 4, [], -1),
            ("u", "c", 2, [], -1),
            ("s", "x", 1, [], 0),
            ("t", "y", 2, [], 0),
            ("u", "z", 3, [], 0),
        )
    )
    assert timeline.end_s[3:].tolist() == [5, 6, 7]
    assert timeline.wait_s.tolist() == [0, 0, 0, 3, 0, 2]
    assert timeline.busy_s().tolist() == [2, 6, 5]


def test_an_empty_graph_ends_at_once_and_a_stream_without_tasks_is_idle(play):
    assert play(graph_of([], [], [], [], 2)).makespan_s == 0
    assert play(graph_of([1], [2.0], [[]], [-1], 3)).busy_s().tolist() == [0, 2, 0]


def test_replicas_meet_at_each_collective_of_their_group():
    """Compute of 1, 3, 2 and 6 s, then an exchange of 1 s that pairs of replicas start together."""
    graph = built(("compute", "work", 1, [], -1), ("comm", "exchange", 1, ["work"], 0))
    played = array.play_replicas(graph, np.array([[1.0, 3, 2, 6], [1, 1, 1, 1]]), group=2)
    assert played.end_s.tolist() == [[1, 3, 2, 6], [4, 4, 7, 7]]
    assert played.wait_s.tolist() == [[0, 0, 0, 0], [2, 0, 4, 0]]
    assert played.blame_s.tolist() == [[0, 0, 0, 0], [0, 2, 0, 4]]
    assert played.busy_s.tolist() == [[1, 3, 2, 6], [1, 1, 1, 1]]
    assert played.makespan_s.tolist() == [4, 4, 7, 7]


# Against the reference engine


@pytest.mark.parametrize("seed", range(8))
def test_random_graphs_play_as_in_the_reference_engine(seed):
    """To the last bit: both add the same durations to the same maxima. 8 x 1,000 graphs."""
    rng = random.Random(seed)
    for _ in range(1000):
        graph = random_graph(rng)
        assert outcome(array.play, graph) == outcome(reference.play, graph)


@pytest.mark.parametrize("seed", range(2))
def test_graphs_that_cannot_finish_are_refused_in_the_words_of_the_reference_engine(seed):
    """2 x 1,000 graphs, of which most lock."""
    rng = random.Random(f"wild {seed}")
    locked = 0
    for _ in range(1000):
        graph = wild_graph(rng)
        expected = outcome(reference.play, graph)
        assert outcome(array.play, graph) == expected
        locked += isinstance(expected, str)
    assert 300 < locked < 900


def random_replicas(rng, graph, dtype):
    """Group size and (tasks, replicas) durations."""
    group = rng.choice([1, 2, 3])
    replicas = group * rng.randint(1, 3)
    numbers = np.random.default_rng(rng.getrandbits(32))
    duration_s = numbers.exponential(size=(len(graph), replicas))
    duration_s[numbers.random(duration_s.shape) < 0.2] = 0
    return group, duration_s.astype(dtype)


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


def some_tasks(rng, graph):
    """A few tasks of a graph, in any order."""
    return np.array(rng.sample(range(len(graph)), rng.randint(1, len(graph))), dtype=np.int64)


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


def test_a_training_step_is_the_same_in_both_engines(short_run):
    """Every metric of DeepSeek-V3's step, chunks settled by playing them again and again."""
    step, expected = short_run(), short_run(("ranks.engine", "reference"))
    assert (step.play.engine, expected.play.engine) == ("array", "reference")
    assert step.play.tasks == expected.play.tasks
    assert step.metrics.step_time_s == pytest.approx(expected.metrics.step_time_s, rel=1e-9)
    times = (list(numbers(result.metrics.model_dump())) for result in (step, expected))
    assert next(times) == pytest.approx(next(times), rel=1e-9, abs=1e-12)


# Against its own loops, run by the interpreter


def test_compiled_loops_give_the_bits_of_the_plain_ones():
    rng = random.Random("twin")
    for _ in range(200):
        graph = random_graph(rng)
        order, plain = order_of(graph), order_of(graph, PLAIN)
        for column in (each.name for each in fields(order)):
            assert np.array_equal(getattr(order, column), getattr(plain, column)), column
        assert outcome(array.play, graph) == outcome(plain_play, graph)
        group, duration_s = random_replicas(rng, graph, rng.choice([np.float64, np.float32]))
        for keep in (None, some_tasks(rng, graph), NONE):
            once = array.play_replicas(graph, duration_s, group, keep)
            twin = array.play_replicas(graph, duration_s, group, keep, PLAIN)
            for column in REPLICA_COLUMNS:
                a, b = getattr(once, column), getattr(twin, column)
                assert a.tobytes() == b.tobytes(), column


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


# The order, worked out once


def test_the_order_is_kept_for_other_durations_and_not_for_another_graph():
    graph = random_graph(random.Random(1))
    assert order_of(graph) is order_of(graph.with_durations(2 * graph.duration_s))
    other = random_graph(random.Random(2))
    assert order_of(graph) is not order_of(other)


def test_a_long_graph_needs_few_rows():
    """Two streams in step for 1,000 tasks: two ends and the two being written are all it holds."""
    builder = GraphBuilder()
    last = None
    for task in range(500):
        last = builder.add("s", f"a{task}", 1.0, after=(last,))
        last = builder.add("t", f"b{task}", 1.0, after=(last,))
    assert order_of(builder.build()).rows <= 4


# Graphs that cannot finish, and wrong input


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            [("s", "a", 1, ["b"], -1), ("t", "b", 1, ["a"], -1)],
            "'a' on s waits for 'b' on t; 'b' on t waits for 'a' on s",
        ),
        (
            [("s", "x", 1, [], 0), ("s", "z", 1, [], -1), ("t", "y", 1, ["z"], 0)],
            "'x' on s waits in its collective for 'y' on t; 'y' on t waits for 'z' on s",
        ),
        (
            [("s", "x", 1, [], 0), ("s", "y", 1, [], 0)],
            "'x' on s waits in its collective for 'y' on s",
        ),
        (
            [(f"s{i}", f"t{i}", 1, [f"t{(i + 1) % 7}"], -1) for i in range(7)],
            "'t0' on s0 waits for 't1' on s1; 't1' on s1 waits for 't2' on s2; "
            "'t2' on s2 waits for 't3' on s3; 't3' on s3 waits for 't4' on s4 and 3 more",
        ),
    ],
    ids=["cycle", "collective", "collective of one stream", "long ring"],
)
def test_a_deadlock_names_what_waits_for_what(play, tasks, message):
    with pytest.raises(DeadlockError) as error:
        play(built(*tasks))
    assert str(error.value) == message


def test_replicas_of_a_graph_that_cannot_finish_are_refused():
    graph = built(("s", "a", 1, ["b"], -1), ("t", "b", 1, ["a"], -1))
    with pytest.raises(DeadlockError, match="'a' on s waits for 'b' on t"):
        array.play_replicas(graph, np.ones((2, 4)))


def test_a_large_graph_that_cannot_finish_is_refused():
    """A ring around 200,000 tasks on 1,000 streams: the last of all holds up the first."""
    tasks = np.arange(200_000)
    graph = TaskGraph(
        stream=tasks % 1000,
        duration_s=np.ones(len(tasks)),
        dependency_start=np.arange(len(tasks) + 1),
        dependency=(tasks - 1) % len(tasks),
        collective=np.full(len(tasks), -1),
        label=np.zeros(len(tasks), dtype=np.int64),
        streams=tuple(f"s{i}" for i in range(1000)),
        labels=("op",),
    )
    with pytest.raises(DeadlockError, match=r"'op' on s0 waits for 'op' on s999; .* and 996 more"):
        array.play(graph)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream": [0, 2]}, "stream must lie in 0 to 1, got 0 to 2"),
        ({"dependency": [-1]}, "dependency must lie in 0 to 1, got -1 to -1"),
        ({"dependency_start": [0, 2, 1]}, "dependency_start must rise from 0 to 1"),
        ({"collective": [0]}, "2 tasks have 2 rows of dependencies and 1 collectives"),
        ({"duration_s": [1.0]}, "2 tasks have 1 durations"),
        ({"duration_s": [1.0, -2.0]}, "duration_s: must be 0 s or more, got -2.0"),
        ({"duration_s": [1.0, np.nan]}, "duration_s: must be 0 s or more, got nan"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_columns_that_would_be_read_outside_are_refused(play, changes, message):
    graph = built(("s", "a", 1, [], -1), ("t", "b", 1, ["a"], -1))
    broken = replace(graph, **{name: np.array(values) for name, values in changes.items()})
    with pytest.raises(InputError) as error:
        play(broken)
    assert message in str(error.value)


def test_other_durations_are_counted_though_the_order_is_kept():
    graph = built(("s", "a", 1, [], -1), ("t", "b", 1, ["a"], -1))
    array.play(graph)
    with pytest.raises(InputError, match="2 tasks have 1 durations"):
        array.play(graph.with_durations(np.ones(1)))


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


# Machine code


def test_machine_code_is_kept_for_the_next_process(tmp_path):
    """The second process finds on disk what the first one compiled."""
    script = """
from simulator.play.array import play
from simulator.play.graph import GraphBuilder
from simulator.play.loops import compiled
builder = GraphBuilder()
builder.add("s", "a", 1.0)
compiled()  # a graph this small does not ask for the compiler
assert play(builder.build()).makespan_s == 1
print(sum(compiled().play_once.stats.cache_hits.values()))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    hits = [
        subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for _ in range(2)
    ]
    assert hits == ["0", "1"]


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch):
    import numba

    def njit(cache, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda loop: loop

    monkeypatch.setattr(numba, "njit", njit)
    assert loops.compiled.__wrapped__() == PLAIN
