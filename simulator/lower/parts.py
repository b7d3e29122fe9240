"""One chunk of one pipeline stage: its tasks, and what happened in it on every rank of its group.

Compute slows down while an exchange runs beside it and the exchange while compute does (measured
factors); `simulator.play.settle` finds the durations that go with what runs beside what.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats, Mask
from simulator.play.graph import GraphBuilder, TaskGraph
from simulator.play.order import ready_s
from simulator.play.settle import Pairs, Settled
from simulator.play.timeline import ReplicaTimeline, Timeline
from workloads.chunks import COMM, Segment
from workloads.schedules.step import StepKind


@dataclass(frozen=True, slots=True, eq=False)
class ChunkGraph:
    """The tasks of one rank in one kind of chunk, before any second is known.

    Attributes:
        program: the segment behind each task.
        on_comm: (tasks,) the task is on the communication stream.
        pairs: tasks of the communication and of the compute stream that may run together.
    """

    kind: StepKind
    program: tuple[Segment, ...]
    graph: TaskGraph
    on_comm: Mask
    pairs: Pairs


def chunk_graph(kind: StepKind, program: Sequence[Segment]) -> ChunkGraph:
    """Return the task graph of a chunk's program; every exchange is a collective."""
    builder = GraphBuilder()
    for place, segment in enumerate(program):
        collective = place if segment.is_exchange else -1
        builder.add(segment.stream, segment.label, after=segment.after, collective=collective)
    graph = builder.build()
    on_comm = np.array([segment.stream == COMM for segment in program], np.bool_)
    related = _related(program)
    pairs = np.argwhere(~related & on_comm[:, None] & ~on_comm[None, :])
    sides = (np.ascontiguousarray(side) for side in pairs.T)
    return ChunkGraph(kind, tuple(program), graph, on_comm, Pairs(*sides))


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
class ChunkPlay:
    """A chunk played on one or more expert groups; `draw` numbers these.

    Attributes:
        ranks: of one group.
        seconds: (tasks, groups * ranks) duration of every task.
        slowdown: (tasks,) by how much it is longer than alone, mean over ranks.
        rounds: until the last group settled.
    """

    graph: ChunkGraph
    ranks: int
    seconds: Floats
    slowdown: Floats
    played: ReplicaTimeline
    rounds: int

    @classmethod
    def of(cls, graph: ChunkGraph, ranks: int, alone_s: Floats, settled: Settled) -> "ChunkPlay":
        """Return a chunk as it was played; `alone_s` as `simulator.play.settle` takes it."""
        mean = _ratio(settled.seconds.sum(axis=1), alone_s.sum(axis=1))
        return cls(graph, ranks, settled.seconds, mean, settled.played, settled.rounds)

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
        """(draws,) until the slowest rank is done: the next stage's exchanges join them all.

        Without an exchange of its own a chunk holds nobody, and this is the mean over ranks.
        """
        by_rank_s = self.by_rank_s
        return np.asarray(by_rank_s.max(axis=1) if self.is_joined else by_rank_s.mean(axis=1))

    @property
    def is_joined(self) -> bool:
        """Whether exchanges hold its ranks together."""
        return any(segment.is_exchange for segment in self.graph.program)

    @property
    def mean_wait_s(self) -> float:
        """Mean seconds a rank waits for the others in one exchange, 0 without exchanges."""
        exchanges = sum(segment.is_exchange for segment in self.graph.program)
        return float(self.played.wait_s.sum(axis=0).mean() / exchanges) if exchanges else 0.0

    def busy_s(self, stream: str) -> float:
        """Mean over ranks of the seconds `stream` works."""
        streams = self.graph.graph.streams
        if stream not in streams:
            return 0.0
        return float(self.played.busy_s[streams.index(stream)].mean())

    def timeline(self, draw: int, rank: int = 0) -> Timeline:
        """Return what happened on one rank of one group, or where no exchange holds its ranks
        together on the mean of them.
        """
        first = draw * self.ranks
        own = slice(first, first + self.ranks)
        if self.is_joined:
            own = slice(first + rank, first + rank + 1)
        end_s, seconds = (each[:, own].mean(axis=1) for each in (self.played.end_s, self.seconds))
        graph = self.graph.graph.with_durations(seconds)
        return Timeline(graph, ready_s(graph, end_s), end_s - seconds, end_s)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotient, 1 where the denominator is 0."""
    ones = np.ones_like(numerator)
    return np.divide(numerator, denominator, out=ones, where=denominator > 0)
