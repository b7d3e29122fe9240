"""Laws of the array engine, over random graphs and replicas; seconds are eighths, so sums are
exact.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulator.engines.array import play, play_replicas

MOST_TASKS = 64  # of a graph that `task_graphs` draws: 4 streams, 14 events


@st.composite
def replicas(draw, graphs):
    """A graph, the size of its groups, and (tasks, replicas) durations."""
    graph, group = draw(graphs), draw(st.integers(1, 4))
    columns = group * draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**32 - 1))
    eighths = np.random.default_rng(seed).integers(0, 25, (len(graph), columns))
    return graph, group, eighths / 8


def columns(played):
    return {name: getattr(played, name) for name in ("end_s", "busy_s", "wait_s", "makespan_s")}


def critical_path(graph, duration_s):
    """Longest chain of dependencies, streams and collectives left aside, by relaxation."""
    end_s = duration_s.copy()
    task = np.repeat(np.arange(len(graph)), np.diff(graph.dependency_start))
    for _ in range(MOST_TASKS):
        np.maximum.at(end_s, task, end_s[graph.dependency] + duration_s[task])
    return end_s.max()


@given(st.data())
def test_twice_the_durations_are_twice_every_time(task_graphs, data):
    graph, group, duration_s = data.draw(replicas(task_graphs))
    once, twice = (columns(play_replicas(graph, k * duration_s, group)) for k in (1, 2))
    for name, values in once.items():
        assert (2 * values == twice[name]).all(), name


@given(st.data())
def test_renaming_the_replicas_of_a_group_changes_nothing(task_graphs, data):
    graph, group, duration_s = data.draw(replicas(task_graphs))
    order = np.arange(duration_s.shape[1])
    order[:group] = data.draw(st.permutations(range(group)))
    before = columns(play_replicas(graph, duration_s, group))
    after = columns(play_replicas(graph, duration_s[:, order], group))
    for name, values in before.items():
        assert (values[..., order] == after[name]).all(), name


@given(st.data())
def test_a_slower_task_never_makes_anything_earlier(task_graphs, data):
    graph, group, duration_s = data.draw(replicas(task_graphs))
    slowed = duration_s.copy()
    task = data.draw(st.integers(0, len(graph) - 1))
    slowed[task, data.draw(st.integers(0, duration_s.shape[1] - 1))] += 0.125
    before, after = (play_replicas(graph, seconds, group) for seconds in (duration_s, slowed))
    assert (after.end_s >= before.end_s).all()
    assert (after.makespan_s >= before.makespan_s).all()


@given(st.data())
def test_the_makespan_is_at_least_the_critical_path_and_the_busiest_stream(task_graphs, data):
    graph, group, duration_s = data.draw(replicas(task_graphs))
    played = play_replicas(graph, duration_s, group)
    for replica, seconds in enumerate(duration_s.T):
        assert played.makespan_s[replica] >= critical_path(graph, seconds)
    assert (played.makespan_s >= played.busy_s.max(axis=0)).all()
    timeline = play(graph)
    assert timeline.makespan_s >= critical_path(graph, graph.duration_s)


@given(st.data())
def test_work_and_waiting_never_exceed_the_makespan(task_graphs, data):
    """A stream works, waits in a collective, or waits for a dependency; the last is not counted."""
    graph, group, duration_s = data.draw(replicas(task_graphs))
    played = play_replicas(graph, duration_s, group)
    assert (played.wait_s >= 0).all()
    assert (played.busy_s + played.wait_s <= played.makespan_s).all()


@given(st.data())
def test_what_some_wait_others_are_blamed_for(task_graphs, data):
    """Within each group, to the last eighth: every collective has one that came last."""
    graph, group, duration_s = data.draw(replicas(task_graphs))
    played = play_replicas(graph, duration_s, group)
    assert (played.blame_s >= 0).all()
    for first in range(0, duration_s.shape[1], group):
        own = slice(first, first + group)
        assert played.blame_s[:, own].sum() == played.wait_s[:, own].sum()


@given(st.data())
def test_groups_do_not_touch_each_other(task_graphs, data):
    graph, group, duration_s = data.draw(replicas(task_graphs))
    slowed = duration_s.copy()
    slowed[:, :group] += 1
    before, after = (play_replicas(graph, seconds, group) for seconds in (duration_s, slowed))
    assert (after.end_s[:, group:] == before.end_s[:, group:]).all()


@given(st.data())
def test_lock_step_is_never_faster_than_going_alone(task_graphs, data):
    graph, group, duration_s = data.draw(replicas(task_graphs))
    alone, joined = (play_replicas(graph, duration_s, size) for size in (1, group))
    assert (joined.end_s >= alone.end_s).all()


@given(st.data())
def test_two_plays_are_the_same_to_the_last_bit(task_graphs, data):
    graph, group, duration_s = data.draw(replicas(task_graphs))
    once, again = (columns(play_replicas(graph, duration_s / 3, group)) for _ in range(2))
    for name, values in once.items():
        assert values.tobytes() == again[name].tobytes(), name
