"""One part: its tasks, and what happened in it on every rank of its group.

Compute slows down while an exchange runs beside it and the exchange while compute does (measured
factors); `simulator.engines.settle` finds the durations that go with what runs beside what.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats, Mask
from simulator.engines.graph import GraphBuilder, TaskGraph
from simulator.engines.order import ready_s
from simulator.engines.settle import Pairs, Settled
from simulator.engines.timeline import ReplicaTimeline, Timeline
from workloads.ops import COMM
from workloads.segments import Part, Segment


@dataclass(frozen=True, slots=True, eq=False)
class PartGraph:
    """The tasks of one rank in one part, before any second is known.

    Attributes:
        on_comm: (tasks,) the task is on the communication stream.
        pairs: tasks of the communication and of the compute stream that may run together.
    """

    part: Part
    graph: TaskGraph
    on_comm: Mask
    pairs: Pairs

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segment behind each task."""
        return self.part.segments


def part_graph(part: Part) -> PartGraph:
    """Return the task graph of a part; every communication is a collective."""
    builder = GraphBuilder()
    for place, segment in enumerate(part.segments):
        collective = -1 if segment.comm is None else place
        builder.add(segment.stream, str(segment.label), after=segment.after, collective=collective)
    graph = builder.build()
    on_comm = np.array([segment.stream == COMM for segment in part.segments], np.bool_)
    related = _related(part.segments)
    pairs = np.argwhere(~related & on_comm[:, None] & ~on_comm[None, :])
    sides = (np.ascontiguousarray(side) for side in pairs.T)
    return PartGraph(part, graph, on_comm, Pairs(*sides))


def _related(program: Sequence[Segment]) -> Mask:
    """Return whether one of two tasks waits for the other, directly or through others."""
    waits = np.eye(len(program), dtype=np.bool_)
    last: dict[str, int] = {}
    for place, segment in enumerate(program):
        before = [last[segment.stream]] if segment.stream in last else []
        for earlier in (*segment.after, *before):
            waits[place] |= waits[earlier]
        last[segment.stream] = place
    return np.asarray(waits | waits.T)


@dataclass(frozen=True, slots=True, eq=False)
class PartPlay:
    """A part played on one or more expert groups; `draw` numbers these.

    Attributes:
        ranks: of one group.
        seconds: (tasks, groups * ranks) duration of every task.
        slowdown: (tasks,) by how much it is longer than alone, mean over ranks.
        rounds: until the last group settled.
    """

    graph: PartGraph
    ranks: int
    seconds: Floats
    slowdown: Floats
    played: ReplicaTimeline
    rounds: int

    @classmethod
    def of(cls, graph: PartGraph, ranks: int, alone_s: Floats, settled: Settled) -> "PartPlay":
        """Return a part as it was played; `alone_s` as `simulator.engines.settle` takes it."""
        mean = mean_slowdown(settled.seconds, alone_s, 1)[:, 0]
        rounds = int(settled.rounds.max())
        return cls(graph, ranks, settled.seconds, mean, settled.played, rounds)

    @property
    def draws(self) -> int:
        """Groups played."""
        return int(self.seconds.shape[1]) // self.ranks

    @property
    def by_rank_s(self) -> Floats:
        """(draws, ranks) until each rank is done."""
        return self.played.makespan_s.reshape(-1, self.ranks)

    @property
    def duration_s(self) -> Floats:
        """(draws,) as of `durations_s`."""
        return durations_s(self.by_rank_s, joined=self.is_joined)

    @property
    def is_joined(self) -> bool:
        """Whether exchanges hold its ranks together."""
        return bool(self._exchanges)

    @property
    def _exchanges(self) -> int:
        return sum(segment.comm is not None for segment in self.graph.segments)

    @property
    def mean_wait_s(self) -> float:
        """Mean seconds a rank waits for the others in one exchange, 0 without exchanges."""
        return float(mean_wait_s(self.played, self._exchanges, 1)[0])

    def busy_s(self, stream: str) -> float:
        """Mean over ranks of the seconds `stream` works."""
        return float(mean_busy_s(self.played, stream, 1)[0])

    def timeline(self, draw: int, rank: int = 0) -> Timeline:
        """Return what happened on one rank of one group, or where no exchange holds its ranks
        together on the mean of them.
        """
        first = draw * self.ranks
        replicas = slice(first, first + self.ranks)
        if self.is_joined:
            replicas = slice(first + rank, first + rank + 1)
        columns = self.played.end_s, self.seconds
        end_s, seconds = (column[:, replicas].mean(axis=1) for column in columns)
        graph = self.graph.graph.with_durations(seconds)
        return Timeline(graph, ready_s(graph, end_s), end_s - seconds, end_s)


def mean_slowdown(seconds: Floats, alone_s: Floats, points: int) -> Floats:
    """Return (tasks, points) by how much tasks take longer than alone, mean over the replicas of a
    point, which lie side by side; 1 for tasks that take no time.
    """
    took_s, would_s = (
        column.reshape(len(column), points, -1).sum(axis=2) for column in (seconds, alone_s)
    )
    ones = np.ones_like(took_s)
    return np.asarray(np.divide(took_s, would_s, out=ones, where=would_s > 0))


def durations_s(by_rank_s: Floats, *, joined: bool) -> Floats:
    """Return (...) seconds until the slowest rank is done: the next step's exchanges join them all.
    A part without an exchange holds nobody: the mean over ranks.

    Args:
        by_rank_s: (..., ranks) until each rank is done.
    """
    return np.asarray(by_rank_s.max(axis=-1) if joined else by_rank_s.mean(axis=-1))


def mean_busy_s(played: ReplicaTimeline, stream: str, points: int) -> Floats:
    """Return (points,) seconds that a stream works, mean over the replicas of each point."""
    streams = played.graph.streams
    if stream not in streams:
        return np.zeros(points)
    return _mean(played.busy_s[streams.index(stream)], points)


def mean_wait_s(played: ReplicaTimeline, exchanges: int, points: int) -> Floats:
    """Return (points,) seconds that a rank waits for the others in one of `exchanges`, likewise."""
    return _mean(played.wait_s.sum(axis=0), points) / max(1, exchanges)


def _mean(replicas: Floats, points: int) -> Floats:
    return np.asarray(replicas.reshape(points, -1).mean(axis=1))
