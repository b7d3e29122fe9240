"""Replicas that can never finish, or of which what is to be kept is not there."""

import re

import numpy as np
import pytest

from hwmodels.errors import DeadlockError, InputError
from simulator.driver.program import program_of
from simulator.engines import array, reference
from simulator.engines.graph import GraphBuilder, graph_of
from simulator.lower.expansion import expand
from simulator.lower.lowered import lower

ENGINES = [pytest.param(array, id="array"), pytest.param(reference, id="reference")]


def built(*tasks):
    """Graph of (stream, label, dependencies by label, collective)."""
    builder = GraphBuilder()
    for stream, label, _, collective in tasks:
        builder.add(stream, label, collective=collective)
    number = {label: task for task, (_, label, *_) in enumerate(tasks)}
    for task, (_, _, after, _) in enumerate(tasks):
        for other in after:
            builder.depend(task, number[other])
    return builder.build()


STUCK = {
    "cycle": (
        [("s", "a", ["c"], -1), ("t", "b", ["a"], -1), ("u", "c", ["b"], -1)],
        "'a' on s waits for 'c' on u; 'b' on t waits for 'a' on s; 'c' on u waits for 'b' on t",
    ),
    "cycle through a collective": (
        [("s", "a", ["b"], -1), ("s", "x", [], 0), ("t", "b", ["x"], -1)],
        "'a' on s waits for 'b' on t; 'b' on t waits for 'x' on s",
    ),
    "collective lacking a member": (
        [("s", "x", [], 0), ("t", "y", ["z"], 0), ("t", "z", [], -1)],
        "'x' on s waits in its collective for 'y' on t; 'y' on t waits for 'z' on t",
    ),
    "collectives in another order": (
        [("s", "x", [], 0), ("s", "y", [], 1), ("t", "v", [], 1), ("t", "w", [], 0)],
        "'x' on s waits in its collective for 'w' on t; 'v' on t waits in its collective for "
        "'y' on s",
    ),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("keep", [None, [0]], ids=["all", "one kept"])
@pytest.mark.parametrize(("replicas", "group"), [(1, 1), (4, 2), (6, 6)])
@pytest.mark.parametrize("name", STUCK)
def test_replicas_that_can_never_finish_say_what_waits_for_what(
    engine, keep, replicas, group, name
):
    tasks, message = STUCK[name]
    graph = built(*tasks)
    kept = None if keep is None else np.array(keep)
    with pytest.raises(DeadlockError) as error:
        engine.play_replicas(graph, np.ones((len(graph), replicas)), group, kept)
    if engine is array:
        assert str(error.value) == message
    else:  # it plays copies side by side, so it names more of them: the first are the same
        told = re.sub(r"rank \d+/", "", str(error.value))
        assert told.startswith(message.split(";")[0])


def test_a_pipeline_of_which_a_rank_waits_for_what_comes_later_is_refused(small_experiment):
    """The first step of rank 0 waits for the last message that comes back to it."""
    expansion = expand(lower(program_of(small_experiment())))
    graph = expansion.graph
    tasks = np.arange(len(graph))
    edges = np.stack([np.repeat(tasks, np.diff(graph.dependency_start)), graph.dependency], axis=1)
    back = np.array([[expansion.begin[0], expansion.message[-1]]])
    columns = (graph.collective, graph.label, graph.streams, graph.labels)
    stuck = graph_of(graph.stream, np.concatenate([edges, back]), *columns)
    seconds = np.ones((len(graph), 16))
    array.play_replicas(graph, seconds, 8)
    with pytest.raises(DeadlockError, match="'begin' on rank 0/compute waits for 'message' on"):
        array.play_replicas(stuck, seconds, 8)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([0, 3], r"keep: tasks must be from 0 to 2, got \[0, 3\]"),
        ([-1], r"keep: tasks must be from 0 to 2, got \[-1\]"),
        ([1, 0, 1], "keep: must name each task once"),
    ],
)
def test_tasks_to_keep_that_are_not_there_or_there_twice_are_refused(keep, message):
    graph = built(("s", "a", [], -1), ("s", "b", [], -1), ("t", "c", ["a"], -1))
    with pytest.raises(InputError, match=message):
        array.play_replicas(graph, np.ones((3, 2)), keep=np.array(keep))
