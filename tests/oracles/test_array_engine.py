"""The array engine against graphs done by hand, the reference engine, and its loops in Python."""

import os
import random
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest

from hwmodels.errors import DeadlockError, InputError
from simulator.engines import array, loops, reference
from simulator.engines.graph import GraphBuilder, TaskGraph
from simulator.engines.loops import PLAIN
from simulator.engines.order import order_of
from tests.random_graphs import graph_of, random_graph, wild_graph
from tests.replicas import NONE, REPLICA_COLUMNS, built, random_replicas, some_tasks

pytestmark = pytest.mark.usefixtures("compiled_loops")
COLUMNS = ("ready_s", "start_s", "end_s")


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


def test_a_training_step_is_the_same_in_both_engines(short_run):
    """Metrics and facts of DeepSeek-V3's step, parts settled by playing them again and again."""
    step, expected = short_run(), short_run(("ranks.engine", "reference"))
    assert (step.play.engine, expected.play.engine) == ("array", "reference")
    assert step.play.tasks == expected.play.tasks
    assert step.metrics.step_time_s == pytest.approx(expected.metrics.step_time_s, rel=1e-9)
    left_out = {"experiment", "uncertainty", "play", "provenance", "timing"}
    times = (list(numbers(result.model_dump(exclude=left_out))) for result in (step, expected))
    assert next(times) == pytest.approx(next(times), rel=1e-9, abs=1e-12)


# Against its own loops, run by the interpreter


def test_compiled_loops_give_the_bits_of_the_plain_ones():
    rng = random.Random("twin")
    for _ in range(200):
        graph = random_graph(rng)
        order, plain = order_of(graph), order_of(graph, PLAIN)
        for column in (each.name for each in fields(order) if each.name != "loops"):
            assert np.array_equal(getattr(order, column), getattr(plain, column)), column
        for one, twin in zip(order.recycled, plain.recycled, strict=True):
            assert np.array_equal(one, twin)
        assert outcome(array.play, graph) == outcome(plain_play, graph)
        group, duration_s = random_replicas(rng, graph, rng.choice([np.float64, np.float32]))
        for keep in (None, some_tasks(rng, graph), NONE):
            once = array.play_replicas(graph, duration_s, group, keep)
            twin = array.play_replicas(graph, duration_s, group, keep, PLAIN)
            for column in REPLICA_COLUMNS:
                a, b = getattr(once, column), getattr(twin, column)
                assert a.tobytes() == b.tobytes(), column


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
    assert order_of(builder.build()).recycled[2] <= 4


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


# Machine code


def test_machine_code_is_kept_for_the_next_process(tmp_path):
    """The second process finds on disk what the first one compiled."""
    script = """
from simulator.engines.array import play
from simulator.engines.graph import GraphBuilder
from simulator.engines.loops import compiled
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
