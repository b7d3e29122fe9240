"""A host that launches kernels on one device: closed forms of who waits for whom."""

import numpy as np
import pytest

from simulator.driver.launches import as_graph_s, one_by_one_s
from simulator.engines import array, reference
from simulator.lower.launches import Launch, launch_graph

COUNT = 12
LABELS = [f"op {number}" for number in range(COUNT)]


def seconds(value: float) -> np.ndarray:
    return np.full(COUNT, value)


def test_a_host_slower_than_the_device_is_the_time_but_for_the_last_kernel() -> None:
    assert one_by_one_s(LABELS, seconds(2.0), seconds(5.0)) == COUNT * 5.0 + 2.0


def test_a_device_slower_than_the_host_waits_for_the_first_launch_alone() -> None:
    assert one_by_one_s(LABELS, seconds(5.0), seconds(2.0)) == 2.0 + COUNT * 5.0


def test_a_host_that_waits_for_every_kernel_adds_its_launches_to_them() -> None:
    for kernel_s, issue_s in ((2.0, 5.0), (5.0, 2.0)):
        time_s = one_by_one_s(LABELS, seconds(kernel_s), seconds(issue_s), waits=True)
        assert time_s == COUNT * (kernel_s + issue_s)


def test_a_graph_is_its_kernels() -> None:
    assert as_graph_s(np.arange(COUNT, dtype=np.float64)) == sum(range(COUNT))


def test_nothing_launched_takes_no_time() -> None:
    assert one_by_one_s([], np.zeros(0), np.zeros(0)) == as_graph_s(np.zeros(0)) == 0.0


@pytest.mark.parametrize("engine", [array, reference])
def test_a_long_kernel_hides_launches_until_the_device_has_caught_up(engine) -> None:
    """By hand: queued at 1, 2, 3 and 13; run from 1 to 9, 9 to 10, 10 to 11, and 13 to 14."""
    launches = [
        Launch("a", 1.0, (8.0,)),
        Launch("b", 1.0, (1.0,)),
        Launch("c", 1.0, (1.0,)),
        Launch("d", 10.0, (1.0,)),
    ]
    timeline = engine.play(launch_graph(launches))
    graph = timeline.graph
    on_device = graph.stream == graph.streams.index("compute")
    assert timeline.start_s[on_device].tolist() == [1.0, 9.0, 10.0, 13.0]
    assert timeline.makespan_s == 14.0


@pytest.mark.parametrize("engine", [array, reference])
def test_who_waits_in_between_launches_the_next_when_the_device_is_done(engine) -> None:
    """By hand: both of the first launch end at 1 + 4 + 3; the next is queued at 8 + 1."""
    launches = [Launch("a", 1.0, (4.0, 3.0), waits=True), Launch("b", 1.0, (2.0,))]
    assert engine.play(launch_graph(launches)).makespan_s == 8.0 + 1.0 + 2.0


def test_a_wait_is_for_all_that_was_queued_and_over_at_once_where_nothing_was() -> None:
    wait = Launch("nothing", 2.0, (), waits=True)
    launches = [wait, Launch("a", 1.0, (9.0,)), wait, Launch("b", 1.0, (1.0,))]
    assert array.play(launch_graph(launches)).makespan_s == 2.0 + 1.0 + 9.0 + 1.0 + 1.0
