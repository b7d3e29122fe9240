"""A whole pipeline: steps in each rank's order, messages between ranks, the end of the step.

A message leaves when its step ends and holds its rank's sending port; computing goes on meanwhile
and the receiving step waits for it. After its last step a rank waits for the ranks that hold the
same stages, or a table that it holds too, reduces gradients and updates its weights.

The graph is built once for a program; seconds come later, as often as they change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import DeadlockError
from simulator.engines.graph import TaskGraph, graph_of
from simulator.engines.timeline import Timeline
from workloads.ops import COMPUTE, SEND
from workloads.phases import END, IDLE
from workloads.steps import Step, StepTable

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class StepLinks:
    """Who waits for whom in a program; steps are numbered rank by rank.

    Attributes:
        first: number of each rank's first step, and one more for the end.
        rank: (steps,) rank of each step.
        sender, receiver: (messages,) step that sends each message, and rank that gets it; in the
            order in which each rank produces them.
        labels: of messages.
        local: (edges, 2) a step, and one of its own rank that it needs.
        remote: (edges, 2) a step, and the message it needs.
    """

    first: tuple[int, ...]
    rank: Ints
    sender: Ints
    receiver: Ints
    labels: tuple[str, ...]
    local: Ints
    remote: Ints

    def of_messages(self, hops: NDArray[T]) -> NDArray[T]:
        """Return (..., messages) the values of (..., ranks, ranks) from sending to receiving
        rank.
        """
        return np.asarray(hops[..., self.rank[self.sender], self.receiver])


def step_links(table: StepTable[Step]) -> StepLinks:
    """Return who waits for whom: a step that needs a token of another rank gets it by message.

    Raises:
        DeadlockError: a step waits for what no step produces.
    """
    first, rank, tokens = table.first, table.rank, table.tokens
    needy, needed = tokens.needs.T
    source = tokens.giver[needed]
    if (source < 0).any():
        blocked = int(needy[source < 0].min())
        raise DeadlockError(
            f"schedule cannot finish: step {blocked - first[rank[blocked]]} of rank "
            f"{rank[blocked]} waits for what no step produces"
        )
    is_local = rank[source] == rank[needy]
    ranks = len(first) - 1
    key = ((source * len(tokens.giver) + needed) * ranks + rank[needy])[~is_local]
    _, sample, number = np.unique(key, return_index=True, return_inverse=True)
    sent = needed[~is_local][sample]
    receiver = rank[needy[~is_local][sample]]
    named = zip(tokens.labels(sent), receiver.tolist(), strict=True)
    return StepLinks(
        first,
        rank,
        sender=tokens.giver[sent],
        receiver=receiver,
        labels=tuple(f"{token} to rank {r}" for token, r in named),
        local=np.stack([needy[is_local], source[is_local]], axis=1),
        remote=np.stack([needy[~is_local], number], axis=1),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """A pipeline as a task graph without seconds: all steps, all messages, an optimizer a rank.

    Attributes:
        homes: (ranks,) a number that ranks share which hold the same stages.
        rank, step: pipeline rank of each task, and its place in that rank's program, -1 for
            messages and optimizer.
        phase: of each task, as index into `table.phases`; -1 for messages.
    """

    graph: TaskGraph
    table: StepTable[Step]
    links: StepLinks
    homes: Ints
    rank: Ints
    step: Ints
    phase: Ints

    @property
    def program(self) -> tuple[tuple[Step, ...], ...]:
        """Steps of every rank, in order."""
        return self.table.steps

    @property
    def joined(self) -> Ints:
        """(ranks,) a number that ranks share which end the step together."""
        return self.graph.collective[-len(self.table.steps) :]

    @property
    def steps(self) -> int:
        """Steps of all ranks; they are the first tasks."""
        return self.links.first[-1]

    def timed(
        self, steps_s: Floats, message_s: Floats | float, optimizer_s: Sequence[float] | Floats
    ) -> TaskGraph:
        """Return the graph with seconds.

        Args:
            steps_s: (steps,) of each step, rank by rank.
            message_s: (messages,) that each holds the sending port; one number for all alike.
            optimizer_s: of the end of the step, by rank.
        """
        return self.graph.with_durations(self.seconds(steps_s, message_s, optimizer_s))

    def seconds(
        self, steps_s: Floats, message_s: Floats | float, optimizer_s: Sequence[float] | Floats
    ) -> Floats:
        """Return (tasks,) seconds; arguments as of `timed`."""
        messages = np.broadcast_to(message_s, len(self.links.sender))
        return np.concatenate([steps_s, messages, optimizer_s])


def build_pipeline(
    table: StepTable[Step], homes: Sequence[int], joined: Sequence[int] | None = None
) -> Pipeline:
    """Build the task graph of one pipeline: steps, then messages, then an optimizer a rank.

    Args:
        homes: ranks with the same number hold the same stages.
        joined: ranks with the same number start the optimizer together; `homes` do if left out.
    """
    links, ranks = step_links(table), len(table.steps)
    steps, messages = links.first[-1], len(links.sender)
    rank = np.concatenate([links.rank, links.rank[links.sender], np.arange(ranks)])
    is_message = np.zeros(len(rank), np.bool_)
    is_message[steps : steps + messages] = True
    collective = np.full(len(rank), -1)
    collective[steps + messages :] = homes if joined is None else joined
    sends = np.stack([steps + np.arange(messages), links.sender], axis=1)
    needs_message = links.remote + np.array([0, steps])
    labels = [step.label for of_rank in table.steps for step in of_rank]
    phase = np.full(len(rank), table.phases.index(END))
    phase[:steps] = table.phase
    phase[is_message] = -1
    place = np.full(len(rank), -1)
    place[:steps] = np.arange(steps) - np.repeat(links.first[:-1], np.diff(links.first))
    graph = graph_of(
        stream=2 * rank + is_message,
        edges=np.concatenate([links.local, needs_message, sends]),
        collective=collective,
        label=np.minimum(np.arange(len(rank)), steps + messages),
        streams=tuple(f"rank {r}/{name}" for r in range(ranks) for name in (COMPUTE, SEND)),
        labels=(*labels, *links.labels, END),
    )
    return Pipeline(graph, table, links, np.array(homes, np.int64), rank, place, phase)


@dataclass(frozen=True, slots=True, eq=False)
class RankTimes:
    """Seconds of each rank in one step, by phase; rows sum to the step.

    Attributes:
        phases: name -> (ranks,) seconds; `bubble` is what no step and no end of a step fills.
    """

    phases: dict[str, Floats]
    step_s: float


def rank_times(pipeline: Pipeline, timeline: Timeline) -> RankTimes:
    """Return where each rank's time went."""
    step_s, taken_s = timeline.makespan_s, timeline.end_s - timeline.start_s
    by_phase = times_by_phase(pipeline, taken_s[:, None], np.array([step_s]))
    return RankTimes(dict(zip(pipeline.table.phases, by_phase[..., 0], strict=True)), step_s)


def times_by_phase(pipeline: Pipeline, taken_s: Floats, step_s: Floats) -> Floats:
    """Return (phases, ranks, points) seconds that each rank spends in each phase.

    Args:
        taken_s: (tasks, points) of every task; step_s: (points,) of the whole.
    """
    phases, ranks, points = pipeline.table.phases, len(pipeline.program), taken_s.shape[1]
    booked = pipeline.phase >= 0
    place = pipeline.phase[booked] * ranks + pipeline.rank[booked]
    cell = place[:, None] * points + np.arange(points)
    sums = np.bincount(cell.ravel(), taken_s[booked].ravel(), len(phases) * ranks * points)
    by_phase: Floats = sums.astype(np.float64).reshape(len(phases), ranks, points)
    by_phase[phases.index(IDLE)] = step_s - by_phase.sum(axis=0)
    return by_phase
