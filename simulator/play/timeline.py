"""What happened: when each task was ready, started and ended."""

from dataclasses import dataclass

import numpy as np

from simulator.play.graph import Floats, TaskGraph


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
        end_s: (tasks, replicas) when each task ended; None if only the summary was recorded.
        busy_s: (streams, replicas) seconds of work.
        wait_s: (streams, replicas) seconds of waiting for the other members of collectives.
        makespan_s: (replicas,) end of the last task.
    """

    graph: TaskGraph
    end_s: Floats | None
    busy_s: Floats
    wait_s: Floats
    makespan_s: Floats
