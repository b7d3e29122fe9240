"""Task graphs as arrays: what the builder collects, and what tiling repeats."""

import numpy as np
import pytest

from simulator.engines.graph import GraphBuilder, tile
from simulator.engines.timeline import Timeline

COLUMNS = ("stream", "duration_s", "dependency_start", "dependency", "collective", "label")


def small_graph():
    """Two streams: `a` then `c` on one, `b` after `a` and in a collective on the other."""
    builder = GraphBuilder()
    a = builder.add("compute", "a", 1.0)
    b = builder.add("comm", "b", 2.0, after=(a, None), collective=0)
    builder.add("compute", "c", 3.0, after=(a, b))
    return builder.build()


def test_a_built_graph_is_compressed_sparse_rows():
    graph = small_graph()
    assert graph.stream.tolist() == [0, 1, 0]
    assert graph.duration_s.tolist() == [1, 2, 3]
    assert graph.dependency_start.tolist() == [0, 0, 1, 3]
    assert graph.dependency.tolist() == [0, 0, 1]
    assert graph.collective.tolist() == [-1, 0, -1]
    assert (graph.streams, graph.labels) == (("compute", "comm"), ("a", "b", "c"))
    assert len(graph) == 3


def test_the_dependencies_of_a_task_are_its_row():
    graph = small_graph()
    assert [graph.dependencies(task).tolist() for task in range(3)] == [[], [0], [0, 1]]


def test_a_task_may_be_told_later_what_it_waits_for():
    builder = GraphBuilder()
    first = builder.add("s", "first")
    second = builder.add("t", "second")
    builder.depend(first, second)
    graph = builder.build()
    assert graph.dependencies(first).tolist() == [second]
    assert graph.dependencies(second).tolist() == []


def test_labels_and_streams_of_one_name_are_one():
    builder = GraphBuilder()
    for stream in ("s", "t", "s"):
        builder.add(stream, "same")
    graph = builder.build()
    assert graph.label.tolist() == [0, 0, 0]
    assert graph.stream.tolist() == [0, 1, 0]


def test_a_task_is_named_by_label_and_stream():
    assert small_graph().name(1) == "'b' on comm"


def test_other_durations_leave_the_graph_alone():
    graph = small_graph()
    slower = graph.with_durations(np.array([5.0, 6.0, 7.0]))
    assert slower.duration_s.tolist() == [5, 6, 7]
    assert graph.duration_s.tolist() == [1, 2, 3]
    assert slower.dependency is graph.dependency


def test_transfers_are_compressed_sparse_rows_beside_the_tasks():
    builder = GraphBuilder()
    nic, spine = builder.link("nic", 5.0), builder.link("spine", 9.0)
    builder.add("s", "near", moved_bytes=3, links=[nic])
    builder.add("s", "op", 1.0)
    builder.add("s", "far", 0.5, moved_bytes=4, links=[nic, spine])
    transfers = builder.build().transfers
    assert transfers.moved_bytes.tolist() == [3, 0, 4]
    assert transfers.link_start.tolist() == [0, 1, 1, 3]
    assert transfers.link.tolist() == [nic, nic, spine]
    assert transfers.link_bytes_per_s.tolist() == [5, 9]
    assert transfers.links == ("nic", "spine")
    assert transfers.moves.tolist() == [True, False, True]
    assert transfers.links_of(2).tolist() == [nic, spine]


def test_a_graph_in_which_nothing_moves_has_no_transfers():
    builder = GraphBuilder()
    builder.link("nic", 5.0)
    builder.add("s", "op", 1.0)
    assert builder.build().transfers is None


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_tiling_is_building_every_rank_by_hand(ranks):
    """Same streams, labels and dependencies in each copy; a collective is one of all copies."""
    seconds = np.arange(3.0 * ranks).reshape(ranks, 3)
    builder = GraphBuilder()
    for r in range(ranks):
        a = builder.add(f"rank {r}/compute", "a", seconds[r, 0])
        b = builder.add(f"rank {r}/comm", "b", seconds[r, 1], after=(a,), collective=0)
        builder.add(f"rank {r}/compute", "c", seconds[r, 2], after=(a, b))
    by_hand, tiled = builder.build(), tile(small_graph(), seconds)
    for column in COLUMNS:
        assert np.array_equal(getattr(tiled, column), getattr(by_hand, column)), column
        assert getattr(tiled, column).dtype == getattr(by_hand, column).dtype, column
    assert (tiled.streams, tiled.labels) == (by_hand.streams, by_hand.labels)


def test_a_timeline_sums_work_by_stream_and_waits_by_task():
    """Streams: compute works 1 + 3, comm 2 after waiting 0.5 for its collective."""
    timeline = Timeline(
        small_graph(),
        ready_s=np.array([0.0, 1.0, 3.5]),
        start_s=np.array([0.0, 1.5, 3.5]),
        end_s=np.array([1.0, 3.5, 6.5]),
    )
    assert timeline.busy_s().tolist() == [4, 2]
    assert timeline.wait_s.tolist() == [0, 0.5, 0]
    assert timeline.makespan_s == 6.5
