"""What happened: when each task was ready, started and ended."""

from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.engines.graph import TaskGraph


@dataclass(frozen=True, slots=True)
class Timeline:
    """Spans of all tasks of a graph, as columns in the graph's order.

    Attributes:
        ready_s: the stream was free and the dependencies done; from here to `start_s` a member
            of a collective waits for the others, holding its stream.
        start_s, end_s: the task ran.
    """

    graph: TaskGraph
    ready_s: Floats
    start_s: Floats
    end_s: Floats

    @property
    def makespan_s(self) -> float:
        """End of the last task."""
        return float(self.end_s.max(initial=0.0))

    @property
    def wait_s(self) -> Floats:
        """Seconds each task waited for the other members of its collective."""
        return self.start_s - self.ready_s

    def busy_s(self) -> Floats:
        """Seconds each stream worked, waiting excluded; one entry a stream."""
        busy = np.zeros(len(self.graph.streams))
        np.add.at(busy, self.graph.stream, self.end_s - self.start_s)
        return busy


@dataclass(frozen=True, slots=True, eq=False)
class ReplicaTimeline:
    """What happened in every replica of a graph.

    Attributes:
        kept: tasks whose ends were recorded.
        end_s: (kept, replicas) when each of them ended.
        busy_s: (streams, replicas) seconds of work.
        wait_s: (streams, replicas) seconds of waiting for the other members of collectives.
        blame_s: (streams, replicas) seconds that others waited for this one, the last to come;
            those who come last together share them.
        makespan_s: (replicas,) end of the last task.
    """

    graph: TaskGraph
    kept: Ints
    end_s: Floats
    busy_s: Floats
    wait_s: Floats
    blame_s: Floats
    makespan_s: Floats

    def take(self, replicas: Ints | slice) -> "ReplicaTimeline":
        """Return what happened in some of the replicas."""
        columns = self.end_s, self.busy_s, self.wait_s, self.blame_s, self.makespan_s
        return ReplicaTimeline(
            self.graph, self.kept, *(column[..., replicas] for column in columns)
        )

    def put(self, replicas: Ints, other: "ReplicaTimeline") -> None:
        """Overwrite what happened in some of the replicas with all of another's."""
        for name in ("end_s", "busy_s", "wait_s", "blame_s", "makespan_s"):
            getattr(self, name)[..., replicas] = getattr(other, name)
