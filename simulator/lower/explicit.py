"""Every rank of every pipeline as it was played, segment by segment.

Collectives hold a group until its slowest member comes, so persistently loaded experts, slow GPUs,
jitter and stragglers show what no mean rank shows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError, listed
from simulator.engines.order import ready_s
from simulator.engines.timeline import ReplicaTimeline, Timeline
from simulator.lower.expansion import expand
from simulator.lower.lowered import Lowered
from simulator.lower.pipeline import RankTimes
from simulator.lower.record import PipelineRecord


class Meetings(NamedTuple):
    """What met on the NICs of all ranks; kinds as in `simulator.lower.nic_crossings`.

    Attributes:
        separate_step_s: the step if each kind of traffic had a NIC to itself.
        busy_s: (kinds, pp) seconds that each kind of traffic needs of its sender's NIC, mean over
            pipelines.
        delay_s: (kinds, pp) seconds by which others on its NICs lengthened it, likewise.
    """

    separate_step_s: float
    busy_s: Floats
    delay_s: Floats


class GroupTimeline(NamedTuple):
    """All that happened in the pipelines of one expert group.

    Attributes:
        seconds: (tasks, pipelines) duration of every task.
    """

    group: int
    played: ReplicaTimeline
    seconds: Floats


@dataclass(frozen=True, slots=True, eq=False)
class ExplicitPlay:
    """What every rank did in one step; a rank is (pipeline rank, pipeline).

    Attributes:
        phase_s: (phases, pp, dp) seconds; they sum to the step.
        compute_s, communication_s: (pp, dp) seconds of work by stream.
        wait_s: (pp, dp) seconds a rank waited for others in exchanges.
        blame_s: (pp, dp) seconds that it cost others there: waiting for it, the last to come, and
            what its slow links add to their exchanges.
        finish_s: (pp, dp) end of its last step.
        optimizer_start_s: (pp,) when all ranks whose gradients meet have ended their last step.
        optimizer_s: (pp,) seconds of the end of the step.
        step_s: until the last rank has updated its weights.
        tasks: played.
        groups: timelines that were kept, by group.
        meetings: what met on NICs, if they are shared.
    """

    phases: tuple[str, ...]
    phase_s: Floats
    compute_s: Floats
    communication_s: Floats
    wait_s: Floats
    blame_s: Floats
    finish_s: Floats
    optimizer_start_s: Floats
    optimizer_s: Floats
    step_s: float
    tasks: int
    groups: dict[int, GroupTimeline]
    meetings: Meetings | None = None

    @property
    def times(self) -> RankTimes:
        """Where the time of each pipeline rank went, mean over pipelines."""
        return RankTimes(
            dict(zip(self.phases, self.phase_s.mean(axis=2), strict=True)), self.step_s
        )

    def group(self, number: int) -> GroupTimeline:
        """Return the timeline of an expert group.

        Raises:
            InputError: it was not kept.
        """
        if number not in self.groups:
            kept = listed(map(str, self.groups)) or "none"
            raise InputError(f"expert group: must be one that was kept ({kept}), got {number}")
        return self.groups[number]

    def record(self, lowered: Lowered, pipeline: int) -> PipelineRecord:
        """Return all that happened in one pipeline of a group that was kept.

        Raises:
            InputError: its group was not.
        """
        whole, expansion = lowered.pipeline, expand(lowered)
        group, replica = lowered.program.placement.group_of_pipeline(pipeline)
        _, played, seconds = self.group(group)
        end_s, task_s = played.end_s[:, replica], seconds[:, replica]
        graph = expansion.graph.with_durations(task_s)
        segments = Timeline(graph, ready_s(graph, end_s), end_s - task_s, end_s)
        start_s = self.optimizer_start_s
        return PipelineRecord.of(whole, expansion, segments, start_s, start_s + self.optimizer_s)


def optimizer_start_s(lowered: Lowered, finish_s: Floats) -> Floats:
    """Return (pp,) when all ranks, of all pipelines, whose gradients meet have ended.

    Args:
        finish_s: (pp, dp) end of each rank's last step.
    """
    return largest_among(lowered.pipeline.joined, finish_s.max(axis=1))


def last_rank(lowered: Lowered, played: ExplicitPlay) -> tuple[int, int]:
    """Return (pipeline rank, pipeline) whose last step the end of the step waited for."""
    groups = lowered.pipeline.joined
    last = int(np.argmax(played.optimizer_start_s + played.optimizer_s))
    finish_s = np.where((groups == groups[last])[:, None], played.finish_s, -1.0)
    rank, pipeline = np.unravel_index(int(np.argmax(finish_s)), finish_s.shape)
    return int(rank), int(pipeline)


def largest_among(groups: Ints, values: Floats) -> Floats:
    """Return (pp,) the largest of (pp,) values among the pipeline ranks of one group."""
    latest = np.full(groups.max() + 1, -np.inf)
    np.maximum.at(latest, groups, values)
    return np.asarray(latest[groups])
