"""Laws of playing a task graph, over random graphs; durations are eighths, so sums are exact."""

from functools import cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulator.engines.graph import TaskGraph, tile
from simulator.engines.reference import play


def critical_path(graph):
    """Longest chain of dependencies, streams and collectives left aside."""

    @cache
    def end(task):
        waits = (end(int(d)) for d in graph.dependencies(task))
        return max(waits, default=0.0) + graph.duration_s[task]

    return max(end(task) for task in range(len(graph)))


@given(st.data())
def test_the_makespan_is_at_least_the_critical_path(task_graphs, data):
    graph = data.draw(task_graphs)
    assert play(graph).makespan_s >= critical_path(graph)


@given(st.data())
def test_the_makespan_is_at_least_the_busiest_stream(task_graphs, data):
    graph = data.draw(task_graphs)
    timeline = play(graph)
    work = [graph.duration_s[graph.stream == s].sum() for s in range(len(graph.streams))]
    assert timeline.busy_s().tolist() == work
    assert timeline.makespan_s >= max(work)


@given(st.data())
def test_everything_is_done_in_order_and_nothing_before_it_can_be(task_graphs, data):
    """Tasks of a stream do not overlap, follow their dependencies and take their own time."""
    graph = data.draw(task_graphs)
    timeline = play(graph)
    assert (timeline.end_s - timeline.start_s == graph.duration_s).all()
    assert (timeline.wait_s >= 0).all()
    for stream in range(len(graph.streams)):
        own = np.flatnonzero(graph.stream == stream)
        assert (timeline.end_s[own[:-1]] <= timeline.ready_s[own[1:]]).all()
    for task in range(len(graph)):
        assert (timeline.end_s[graph.dependencies(task)] <= timeline.ready_s[task]).all()
    for collective in set(graph.collective[graph.collective >= 0].tolist()):
        members = graph.collective == collective
        assert set(timeline.start_s[members]) == {timeline.ready_s[members].max()}


@given(st.data())
def test_twice_the_durations_are_twice_every_time(task_graphs, data):
    graph = data.draw(task_graphs)
    once, twice = play(graph), play(graph.with_durations(2 * graph.duration_s))
    for column in ("ready_s", "start_s", "end_s"):
        assert (2 * getattr(once, column) == getattr(twice, column)).all()


@given(st.data())
def test_renumbering_streams_changes_nothing(task_graphs, data):
    graph = data.draw(task_graphs)
    new = np.array(data.draw(st.permutations(range(len(graph.streams)))))
    names = tuple(graph.streams[old] for old in np.argsort(new))
    renamed = TaskGraph(
        new[graph.stream],
        graph.duration_s,
        graph.dependency_start,
        graph.dependency,
        graph.collective,
        graph.label,
        names,
        graph.labels,
    )
    assert [renamed.name(t) for t in range(len(graph))] == [
        graph.name(t) for t in range(len(graph))
    ]
    assert play(renamed).start_s.tolist() == play(graph).start_s.tolist()


@given(st.data())
def test_renaming_the_ranks_of_a_group_changes_nothing(task_graphs, data):
    """The ranks of a tiled graph in another order have the same times in that order."""
    rank = data.draw(task_graphs)
    ranks = data.draw(st.integers(1, 3))
    eighths = st.lists(st.integers(0, 24), min_size=len(rank), max_size=len(rank))
    seconds = np.array([data.draw(eighths) for _ in range(ranks)]) / 8
    order = data.draw(st.permutations(range(ranks)))
    before = play(tile(rank, seconds)).start_s.reshape(ranks, -1)
    after = play(tile(rank, seconds[order])).start_s.reshape(ranks, -1)
    assert after.tolist() == before[order].tolist()


@given(st.data())
def test_two_plays_are_the_same_to_the_last_bit(task_graphs, data):
    graph = data.draw(task_graphs)
    seconds = graph.duration_s / 3
    once, again = (play(graph.with_durations(seconds)) for _ in range(2))
    for column in ("ready_s", "start_s", "end_s"):
        assert getattr(once, column).tobytes() == getattr(again, column).tobytes()


@given(st.data())
def test_a_slower_task_never_makes_anything_earlier(task_graphs, data):
    graph = data.draw(task_graphs)
    slowed = graph.duration_s.copy()
    slowed[data.draw(st.integers(0, len(graph) - 1))] += data.draw(st.integers(1, 24)) / 8
    before, after = play(graph), play(graph.with_durations(slowed))
    assert (after.start_s >= before.start_s).all()
    assert (after.end_s >= before.end_s).all()
