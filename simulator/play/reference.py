"""The reference engine: the definition of what a task graph means, on SimPy processes.

One process a stream runs its tasks in order. It is written to be read; faster engines must agree
with it to rounding.
"""

from collections.abc import Generator
from itertools import pairwise

import numpy as np
import simpy

from hwmodels.errors import DeadlockError
from simulator.play.graph import TaskGraph
from simulator.play.timeline import Timeline

SHOWN_BLOCKED_TASKS = 4


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
            self.end_s[task] = self.env.now
            self.done[task].succeed()

    def blocked(self) -> list[str]:
        """Say of the first task stuck in each stream what it waits for."""
        stuck = []
        for stream in range(len(self.graph.streams)):
            tasks = np.flatnonzero((self.graph.stream == stream) & np.isnan(self.end_s))
            if len(tasks):
                stuck.append(self._waits_for(int(tasks[0])))
        return stuck

    def _waits_for(self, task: int) -> str:
        waiting = [d for d in self.graph.dependencies(task) if np.isnan(self.end_s[d])]
        if waiting:
            return f"{self.graph.name(task)} waits for {self.graph.name(int(waiting[0]))}"
        absent = np.flatnonzero(
            (self.graph.collective == self.graph.collective[task]) & np.isnan(self.ready_s)
        )
        return (
            f"{self.graph.name(task)} waits in its collective for {self.graph.name(int(absent[0]))}"
        )


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
    stuck = state.blocked()
    if stuck:
        more = (
            f" and {len(stuck) - SHOWN_BLOCKED_TASKS} more"
            if len(stuck) > SHOWN_BLOCKED_TASKS
            else ""
        )
        raise DeadlockError("; ".join(stuck[:SHOWN_BLOCKED_TASKS]) + more)
    return Timeline(graph, state.ready_s, state.start_s, state.end_s)
