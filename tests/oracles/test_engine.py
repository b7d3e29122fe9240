"""The reference engine against graphs done by hand and an independent longest path."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.errors import DeadlockError
from simulator.engines.graph import GraphBuilder, TaskGraph, tile
from simulator.engines.reference import play


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


def spans(timeline):
    """Start and end by label."""
    graph = timeline.graph
    return {
        graph.labels[graph.label[task]]: (
            float(timeline.start_s[task]),
            float(timeline.end_s[task]),
        )
        for task in range(len(graph))
    }


def test_a_stream_runs_its_tasks_first_in_first_out():
    timeline = play(built(("s", "a", 1, [], -1), ("s", "b", 2, [], -1), ("s", "c", 3, [], -1)))
    assert spans(timeline) == {"a": (0, 1), "b": (1, 3), "c": (3, 6)}


def test_a_blocked_task_holds_up_what_is_behind_it_in_its_stream():
    """`b` waits for `x`; `c` could start at once and may not pass it."""
    timeline = play(built(("s", "b", 1, ["x"], -1), ("s", "c", 1, [], -1), ("t", "x", 5, [], -1)))
    assert spans(timeline) == {"x": (0, 5), "b": (5, 6), "c": (6, 7)}


def test_streams_run_beside_each_other_and_meet_at_the_latest_dependency():
    """Diamond: `a` to `b` (3 s) and `c` (1 s), `d` after both."""
    timeline = play(
        built(
            ("s", "a", 2, [], -1),
            ("t", "b", 3, ["a"], -1),
            ("u", "c", 1, ["a"], -1),
            ("s", "d", 1, ["b", "c"], -1),
        )
    )
    assert spans(timeline) == {"a": (0, 2), "b": (2, 5), "c": (2, 3), "d": (5, 6)}
    assert timeline.ready_s.tolist() == [0, 2, 2, 5]


def test_members_of_a_collective_start_together_when_the_last_is_ready():
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
    assert [spans(timeline)[label] for label in "xyz"] == [(4, 5), (4, 6), (4, 7)]
    assert timeline.wait_s.tolist() == [0, 0, 0, 3, 0, 2]
    assert timeline.busy_s().tolist() == [2, 6, 5]


def test_a_waiting_member_holds_its_stream():
    timeline = play(
        built(
            ("s", "x", 1, [], 0), ("s", "a", 1, [], -1), ("t", "b", 3, [], -1), ("t", "y", 1, [], 0)
        )
    )
    assert spans(timeline) == {"b": (0, 3), "x": (3, 4), "y": (3, 4), "a": (4, 5)}


def test_two_collectives_follow_the_order_of_the_streams():
    timeline = play(
        built(
            ("s", "x0", 1, [], 0),
            ("s", "x1", 1, [], 1),
            ("t", "y0", 5, [], 0),
            ("t", "y1", 1, [], 1),
        )
    )
    assert spans(timeline) == {"x0": (0, 1), "y0": (0, 5), "x1": (5, 6), "y1": (5, 6)}


def test_tasks_without_duration_take_no_time_and_keep_their_order():
    timeline = play(
        built(("s", "a", 0, [], -1), ("s", "b", 0, ["c"], -1), ("t", "c", 0, ["a"], -1))
    )
    assert spans(timeline) == {"a": (0, 0), "b": (0, 0), "c": (0, 0)}
    assert timeline.makespan_s == 0


def test_a_stream_without_tasks_is_idle_and_an_empty_graph_ends_at_once():
    none = np.zeros(0, dtype=np.int64)
    start = np.zeros(1, dtype=np.int64)
    empty = TaskGraph(none, np.zeros(0), start, none, none, none, ("s", "t"), ())
    assert play(empty).makespan_s == 0
    graph = built(("s", "a", 2, [], -1))
    idle = TaskGraph(
        graph.stream + 1,
        graph.duration_s,
        graph.dependency_start,
        graph.dependency,
        graph.collective,
        graph.label,
        ("idle", "s", "also idle"),
        graph.labels,
    )
    assert play(idle).busy_s().tolist() == [0, 2, 0]


def test_tiled_ranks_meet_at_each_collective():
    """Two ranks compute 1 and 3 s, then exchange for 1 s: both are done at 4 s."""
    builder = GraphBuilder()
    compute = builder.add("compute", "compute")
    builder.add("comm", "exchange", after=(compute,), collective=0)
    timeline = play(tile(builder.build(), np.array([[1.0, 1.0], [3.0, 1.0]])))
    assert timeline.end_s.tolist() == [1, 4, 3, 4]
    assert timeline.wait_s.tolist() == [0, 2, 0, 0]


# Graphs that cannot finish


def refusal(*tasks):
    with pytest.raises(DeadlockError) as error:
        play(built(*tasks))
    return str(error.value)


def test_a_cycle_is_named_with_what_each_task_waits_for():
    message = refusal(("s", "a", 1, ["b"], -1), ("t", "b", 1, ["a"], -1))
    assert message == "'a' on s waits for 'b' on t; 'b' on t waits for 'a' on s"


def test_a_collective_that_lacks_a_member_names_who_is_missing():
    """`y` never becomes ready, for it waits for what comes after `x`."""
    message = refusal(("s", "x", 1, [], 0), ("s", "z", 1, [], -1), ("t", "y", 1, ["z"], 0))
    assert message == "'x' on s waits in its collective for 'y' on t; 'y' on t waits for 'z' on s"


def test_two_collectives_in_opposite_orders_lock_each_other_out():
    message = refusal(
        ("s", "x0", 1, [], 0),
        ("s", "x1", 1, [], 1),
        ("t", "y1", 1, [], 1),
        ("t", "y0", 1, [], 0),
    )
    assert message == (
        "'x0' on s waits in its collective for 'y0' on t; "
        "'y1' on t waits in its collective for 'x1' on s"
    )


def test_a_dependency_later_in_the_same_stream_is_named():
    message = refusal(("s", "a", 1, ["b"], -1), ("s", "b", 1, [], -1))
    assert message == "'a' on s waits for 'b' on s"


def test_a_task_that_waits_for_itself_is_named():
    assert refusal(("s", "a", 1, ["a"], -1)) == "'a' on s waits for 'a' on s"


def test_what_could_run_did_and_only_blocked_tasks_are_named():
    message = refusal(("s", "fine", 1, [], -1), ("t", "a", 1, ["b"], -1), ("t", "b", 1, [], -1))
    assert message == "'a' on t waits for 'b' on t"


def test_a_large_deadlock_is_cut_short():
    """A ring of seven streams: four are named, three counted."""
    ring = [(f"s{i}", f"t{i}", 1, [f"t{(i + 1) % 7}"], -1) for i in range(7)]
    message = refusal(*ring)
    assert message.endswith("'t3' on s3 waits for 't4' on s4 and 3 more")


# Random graphs against a longest path


def longest_path(graph):
    """Return start and end of every task by recursion over what each waits for.

    Raises:
        RecursionError: a task waits for itself, however far around.
    """
    before = {}
    last = {}
    for task, stream in enumerate(graph.stream.tolist()):
        before[task] = last.get(stream)
        last[stream] = task
    members = {}
    for task, collective in enumerate(graph.collective.tolist()):
        members.setdefault(collective, []).append(task)
    open_tasks = set()

    @cache
    def ready(task):
        if task in open_tasks:
            raise RecursionError(f"task {task} waits for itself")
        open_tasks.add(task)
        waits = [int(d) for d in graph.dependencies(task)]
        if before[task] is not None:
            waits.append(before[task])
        answer = max((start(t) + graph.duration_s[t] for t in waits), default=0.0)
        open_tasks.discard(task)
        return answer

    @cache
    def start(task):
        collective = int(graph.collective[task])
        if collective < 0:
            return ready(task)
        return max(ready(t) for t in members[collective])

    starts = np.array([start(task) for task in range(len(graph))])
    return starts, starts + graph.duration_s


@given(st.data())
def test_random_graphs_play_as_their_longest_path(task_graphs, data):
    """Exact: both add the same durations to the same maxima."""
    graph = data.draw(task_graphs)
    timeline = play(graph)
    start_s, end_s = longest_path(graph)
    assert timeline.start_s.tolist() == start_s.tolist()
    assert timeline.end_s.tolist() == end_s.tolist()


@st.composite
def wild_graphs(draw):
    """Graphs with any dependencies at all, most of which cannot finish."""
    builder = GraphBuilder()
    tasks = draw(st.integers(1, 7))
    for task in range(tasks):
        stream = draw(st.integers(0, 2))
        collective = draw(st.sampled_from([-1, -1, 0, 1]))
        builder.add(f"s{stream}", f"t{task}", draw(st.integers(0, 4)) / 4, collective=collective)
    for task, after in draw(
        st.lists(st.tuples(st.integers(0, tasks - 1), st.integers(0, tasks - 1)), max_size=5)
    ):
        builder.depend(task, after)
    return builder.build()


@given(wild_graphs())
def test_a_graph_finishes_exactly_when_nothing_waits_for_itself(graph):
    try:
        expected = longest_path(graph)[1].tolist()
    except RecursionError:
        with pytest.raises(DeadlockError):
            play(graph)
    else:
        assert play(graph).end_s.tolist() == expected
