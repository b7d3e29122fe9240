"""One chunk of one pipeline stage, played on every rank of its expert group in lock-step.

Compute slows down while an exchange runs beside it and the exchange while compute does (measured
factors), so durations and overlap are played in turn until they agree. Many groups, draws of the
expert load say, are played at once; each settles by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hwmodels.errors import MoesimError
from simulator.play.graph import Floats, GraphBuilder, Ints, Mask, TaskGraph, tile
from simulator.play.loops import loops_for
from simulator.play.timeline import ReplicaTimeline, Timeline
from workloads.chunks import COMM, Segment
from workloads.schedules.step import StepKind

SETTLED = 1e-5  # relative change of the makespan at which overlap and durations agree
UNDAMPED_ROUNDS, ROUNDS_MAX = 6, 40  # then every round goes half the way only


class Engine(Protocol):
    """What plays task graphs; `simulator.play.array` and `simulator.play.reference` do."""

    def play(self, graph: TaskGraph) -> Timeline:
        """Run one graph."""

    def play_replicas(
        self, graph: TaskGraph, duration_s: Floats, group: int = 1, keep: Ints | None = None
    ) -> ReplicaTimeline:
        """Run (tasks, replicas) durations of one graph, collectives joining each group; record the
        ends of some tasks, or of all.
        """


@dataclass(frozen=True, slots=True, eq=False)
class ChunkGraph:
    """The tasks of one rank in one kind of chunk, before any second is known.

    Attributes:
        program: the segment behind each task.
        on_comm: (tasks,) the task is on the communication stream.
        comm, compute: (pairs,) tasks that may run at the same time.
    """

    kind: StepKind
    program: tuple[Segment, ...]
    graph: TaskGraph
    on_comm: Mask
    comm: Ints
    compute: Ints


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
    comm, compute = (np.ascontiguousarray(side) for side in pairs.T)
    return ChunkGraph(kind, tuple(program), graph, on_comm, comm, compute)


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
    engine: Engine

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

    def timeline(self, draw: int) -> Timeline:
        """Return what happened in one group: `ranks` copies of the tasks, rank-major.

        Where no exchange joins them, each as the mean of them.
        """
        own = self.seconds[:, draw * self.ranks : (draw + 1) * self.ranks]
        if not self.is_joined:
            own = np.repeat(own.mean(axis=1, keepdims=True), self.ranks, axis=1)
        return self.engine.play(tile(self.graph.graph, own.T))


def play_chunk(
    graph: ChunkGraph, alone: Floats, factor: Floats, ranks: int, engine: Engine
) -> ChunkPlay:
    """Play a chunk on expert groups of `ranks` until overlap and durations agree.

    Args:
        alone: (tasks, groups * ranks) seconds of each task with the machine to itself.
        factor: (tasks,) slowdown of a task that runs wholly beside the other stream's work.
    """
    played = engine.play_replicas(graph.graph, alone, ranks)
    slowed = alone
    weight = np.ones(alone.shape[1])  # of what a round finds; 0 once a group has settled
    for rounds in range(1, ROUNDS_MAX):
        if rounds == UNDAMPED_ROUNDS + 1:
            weight /= 2
        before, slowed = played.makespan_s, _slowed(graph, played, alone, factor, slowed, weight)
        played = engine.play_replicas(graph.graph, slowed, ranks)
        moved = np.abs(played.makespan_s - before) > SETTLED * before
        weight[~np.repeat(moved.reshape(-1, ranks).any(axis=1), ranks)] = 0.0
        if not weight.any():
            mean = _ratio(slowed.sum(axis=1), alone.sum(axis=1))
            return ChunkPlay(graph, ranks, slowed, mean, played, rounds + 1, engine)
    raise MoesimError(
        f"chunk {graph.kind}: overlap and durations do not agree in {ROUNDS_MAX} rounds"
    )


def _slowed(
    graph: ChunkGraph,
    played: ReplicaTimeline,
    alone: Floats,
    factor: Floats,
    seconds: Floats,
    weight: Floats,
) -> Floats:
    """Return (tasks, replicas) durations that go with what ran beside what in `played`."""
    slowed = np.empty_like(seconds)
    loops_for(len(graph.comm) * seconds.shape[1]).slow_beside(
        graph.comm, graph.compute, alone, factor, played.end_s, seconds, weight, slowed
    )
    return slowed


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotient, 1 where the denominator is 0."""
    ones = np.ones_like(numerator)
    return np.divide(numerator, denominator, out=ones, where=denominator > 0)
