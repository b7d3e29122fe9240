"""A whole pipeline: chunks in each rank's program order, messages between ranks, the optimizer.

Chunks of one kind and stage take one time (they are folded: played once on a whole expert group).
A message leaves when its chunk ends and holds its rank's sending port; computing goes on meanwhile
and the receiving chunk waits for it. After its last chunk a rank waits for the ranks that hold the
same stages, reduces gradients and updates its weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from simulator.play.graph import Floats, GraphBuilder, TaskGraph
from simulator.play.timeline import Timeline
from workloads.schedules.step import Program, Step, Token, needs, producers, stage_count

ChunkSeconds = Callable[[Step], float]
COMPUTE, SEND, OPTIMIZER = "compute", "send", "optimizer"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline as a task graph, and which step each task is (-1 for messages and optimizer)."""

    graph: TaskGraph
    program: Program
    rank: tuple[int, ...]
    step: tuple[int, ...]

    def compute_tasks(self, rank: int) -> list[int]:
        """Tasks of the chunks of `rank`, in program order."""
        return [
            t
            for t, (r, s) in enumerate(zip(self.rank, self.step, strict=True))
            if r == rank and s >= 0
        ]


def step_label(step: Step) -> str:
    """Return `F 12`, `B 3`, `FB 14|2` ...: kind and micro-batches."""
    parts = [str(chunk.microbatch) for chunk in (step.forward, step.backward) if chunk]
    return f"{step.kind} {'|'.join(parts)}"


def build_pipeline(
    program: Program,
    chunk_s: ChunkSeconds,
    message_s: float,
    optimizer_s: Sequence[float],
    optimizer_groups: Sequence[int],
) -> Pipeline:
    """Build the task graph of one pipeline.

    Args:
        chunk_s: seconds of a step's chunk.
        message_s: seconds one message holds the sending port.
        optimizer_s: seconds of the end of the step, by rank.
        optimizer_groups: ranks with the same number start the optimizer together.
    """
    builder, places = GraphBuilder(), _Places()
    first: list[int] = []  # task of each rank's first chunk; the others follow it
    for rank, own in enumerate(program):
        first.append(len(places.rank))
        for step in own:
            builder.add(f"rank {rank}/{COMPUTE}", step_label(step), chunk_s(step))
        places.add(rank, range(len(own)))
    stages, home = stage_count(program), producers(program)
    wanted = [[needs(step, stages) for step in own] for own in program]
    sent = _add_messages(home, wanted, first, builder, message_s, places)
    for rank, rows in enumerate(wanted):
        for task, tokens in enumerate(rows, first[rank]):
            for token in tokens:
                source, index = home[token]
                builder.depend(task, first[rank] + index if source == rank else sent[token, rank])
    for rank, seconds in enumerate(optimizer_s):
        builder.add(f"rank {rank}/{COMPUTE}", OPTIMIZER, seconds, collective=optimizer_groups[rank])
        places.add(rank, [-1])
    return Pipeline(builder.build(), program, tuple(places.rank), tuple(places.step))


@dataclass(slots=True)
class _Places:
    """Rank and step of each task added so far."""

    rank: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)

    def add(self, rank: int, steps: Sequence[int]) -> None:
        self.rank += [rank] * len(steps)
        self.step += steps


def _add_messages(
    home: Mapping[Token, tuple[int, int]],
    wanted: Sequence[Sequence[tuple[Token, ...]]],
    first: Sequence[int],
    builder: GraphBuilder,
    message_s: float,
    places: _Places,
) -> dict[tuple[Token, int], int]:
    """Append a message for each token another rank needs; return the task by token and rank."""
    targets: dict[Token, set[int]] = {}
    for rank, rows in enumerate(wanted):
        for token in chain.from_iterable(rows):
            if home[token][0] != rank:
                targets.setdefault(token, set()).add(rank)
    sent = {}
    for token, (rank, index) in home.items():  # in the order in which a rank produces them
        for target in sorted(targets.get(token, ())):
            label = f"{token.phase} {token.microbatch} to rank {target}"
            sent[token, target] = builder.add(
                f"rank {rank}/{SEND}", label, message_s, after=(first[rank] + index,)
            )
            places.add(rank, [-1])
    return sent


@dataclass(frozen=True, slots=True)
class RankTimes:
    """Seconds of each rank in one step, by phase; rows sum to the step.

    Attributes:
        phases: name -> (ranks,) seconds; `bubble` is what no chunk and no optimizer fills.
    """

    phases: dict[str, Floats]
    step_s: float


PHASE_OF_KIND = {
    "F": "forward",
    "B": "backward",
    "Bi": "backward",
    "W": "weight",
    "FB": "forward_backward",
}


def rank_times(pipeline: Pipeline, timeline: Timeline) -> RankTimes:
    """Return where each rank's time went."""
    ranks = len(pipeline.program)
    names = ("forward", "bubble", "backward", "weight", "forward_backward", "optimizer")
    phases = {name: np.zeros(ranks) for name in names}
    seconds = timeline.end_s - timeline.start_s
    for task, (rank, index) in enumerate(zip(pipeline.rank, pipeline.step, strict=True)):
        if index >= 0:
            phases[PHASE_OF_KIND[pipeline.program[rank][index].kind]][rank] += seconds[task]
        elif pipeline.graph.labels[pipeline.graph.label[task]] == OPTIMIZER:
            phases["optimizer"][rank] += seconds[task]
    step_s = timeline.makespan_s
    phases["bubble"] = step_s - np.sum(list(phases.values()), axis=0)
    return RankTimes(phases, step_s)
