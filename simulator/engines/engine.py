"""What plays task graphs; `simulator.engines.array` and `simulator.engines.reference` do."""

from typing import Protocol

from hwmodels.arrays import Floats, Ints
from simulator.engines.graph import TaskGraph
from simulator.engines.timeline import ReplicaTimeline, Timeline


class Engine(Protocol):
    """One graph, or many replicas of it."""

    def play(self, graph: TaskGraph) -> Timeline:
        """Run one graph."""

    def play_replicas(
        self, graph: TaskGraph, duration_s: Floats, group: int = 1, keep: Ints | None = None
    ) -> ReplicaTimeline:
        """Run (tasks, replicas) durations of one graph, collectives joining each group; record the
        ends of some tasks, or of all.
        """
