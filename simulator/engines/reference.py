"""The reference engine: the definition of what a task graph means, on SimPy processes.

One process a stream runs its tasks in order, and one divides the links that tasks share. It is
written to be read; faster engines must agree with it to rounding.
"""

from collections.abc import Generator
from itertools import pairwise

import numpy as np
import simpy

from hwmodels.arrays import Floats, Ints
from simulator.engines.deadlock import check_finished
from simulator.engines.graph import TaskGraph, tile
from simulator.engines.shared_reference import SharedLinks
from simulator.engines.timeline import ReplicaTimeline, Timeline


class _Play:
    """State of one run."""

    def __init__(self, graph: TaskGraph) -> None:
        self.graph = graph
        self.env = simpy.Environment()
        self.done = [self.env.event() for _ in range(len(graph))]
        self.ready_s = np.full(len(graph), np.nan)
        self.start_s = np.full(len(graph), np.nan)
        self.end_s = np.full(len(graph), np.nan)
        members = graph.collective[graph.collective >= 0]
        self.missing = np.bincount(members) if len(members) else np.zeros(0, dtype=np.int64)
        self.gathered = [self.env.event() for _ in self.missing]
        self.links: SharedLinks | None = None
        self.moves = np.zeros(len(graph), dtype=np.bool_)
        if graph.transfers is not None:
            self.links = SharedLinks(self.env, graph.transfers)
            self.moves = graph.transfers.moves

    def stream(self, tasks: list[int]) -> Generator[simpy.Event, None, None]:
        """Run the tasks of one stream in order."""
        for task in tasks:
            for dependency in self.graph.dependencies(task):
                if not self.done[dependency].processed:
                    yield self.done[dependency]
            self.ready_s[task] = self.env.now
            collective = self.graph.collective[task]
            if collective >= 0:
                self.missing[collective] -= 1
                if self.missing[collective] == 0:
                    self.gathered[collective].succeed()
                yield self.gathered[collective]
            self.start_s[task] = self.env.now
            yield self.env.timeout(self.graph.duration_s[task])
            if self.links is not None and self.moves[task]:
                yield self.links.move(task)
            self.end_s[task] = self.env.now
            self.done[task].succeed()


def play(graph: TaskGraph) -> Timeline:
    """Run `graph` from time zero and return its timeline.

    Raises:
        DeadlockError: some tasks can never start; names them and what each waits for.
    """
    state = _Play(graph)
    order = np.argsort(graph.stream, kind="stable")
    bounds = np.searchsorted(graph.stream[order], np.arange(len(graph.streams) + 1))
    for first, last in pairwise(bounds.tolist()):
        state.env.process(state.stream(order[first:last].tolist()))
    state.env.run()
    check_finished(graph, ~np.isnan(state.ready_s), ~np.isnan(state.end_s))
    return Timeline(graph, state.ready_s, state.start_s, state.end_s)


def play_replicas(
    graph: TaskGraph, duration_s: Floats, group: int = 1, keep: Ints | None = None
) -> ReplicaTimeline:
    """Run replicas of `graph`, each with durations of its own, group after group.

    Args:
        duration_s: (tasks, replicas).
        group: replicas that join each collective together.
        keep: tasks whose ends are recorded, all of them without it.

    Raises:
        DeadlockError: some tasks can never start.
    """
    streams, replicas = len(graph.streams), duration_s.shape[1]
    kept = np.arange(len(graph)) if keep is None else np.asarray(keep, dtype=np.int64)
    end_s = np.empty((len(kept), replicas))
    busy_s, wait_s, blame_s = (np.zeros((streams, replicas)) for _ in range(3))
    makespan_s = np.zeros(replicas)
    for first in range(0, replicas, group):
        in_group = slice(first, first + group)
        timeline = play(tile(graph, duration_s[:, in_group].T))
        end_s[:, in_group] = timeline.end_s.reshape(group, -1).T[kept]
        makespan_s[in_group] = timeline.end_s.reshape(group, -1).max(axis=1, initial=0.0)
        busy_s[:, in_group] = timeline.busy_s().reshape(group, streams).T
        waited = np.zeros(streams * group)
        np.add.at(waited, timeline.graph.stream, timeline.wait_s)
        wait_s[:, in_group] = waited.reshape(group, streams).T
        blame_s[:, in_group] = _blame_s(timeline).reshape(group, streams).T
    return ReplicaTimeline(graph, kept, end_s, busy_s, wait_s, blame_s, makespan_s)


def _blame_s(timeline: Timeline) -> Floats:
    """Return for each stream the seconds that others waited for it; the last ones share them."""
    graph = timeline.graph
    blame_s = np.zeros(len(graph.streams))
    for number in np.unique(graph.collective[graph.collective >= 0]):
        members = np.flatnonzero(graph.collective == number)
        ready_s = timeline.ready_s[members]
        last = members[ready_s == ready_s.max()]
        waited_s = timeline.wait_s[members].sum()
        np.add.at(blame_s, graph.stream[last], waited_s / len(last))
    return blame_s
