"""The pipeline of folded parts as it was played, on all points at once."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats
from simulator.engines.graph import TaskGraph
from simulator.engines.order import ready_s
from simulator.engines.timeline import Timeline
from simulator.lower.folded import FoldedColumns
from simulator.lower.pipeline import Pipeline, RankTimes, times_by_phase


def pipeline_seconds(folded: FoldedColumns, message_s: Floats, end_s: Floats) -> Floats:
    """Return (tasks, points) seconds of the pipeline's graph.

    Args:
        message_s: (messages, points) that each holds the sending port.
        end_s: (ranks, points) of the end of the step.
    """
    return np.concatenate([folded.steps_s + folded.lag_s, message_s, end_s])


class Spans(NamedTuple):
    """(tasks, ...) when tasks were ready, started and ended."""

    ready_s: Floats
    start_s: Floats
    end_s: Floats


def of_mean_rank(graph: TaskGraph, start_s: Floats, end_s: Floats, lag_s: Floats) -> Spans:
    """Return the spans of a pipeline, in which steps last until the slowest rank is done, as they
    are for the mean one: it goes on at once, and waits in the exchanges to come.

    Args:
        start_s, end_s: (tasks, ...) as played; steps are the first tasks.
        lag_s: (steps, ...) by which the slowest rank is behind.
    """
    end_s, steps = end_s.copy(), len(lag_s)
    end_s[:steps] -= lag_s
    came_s = ready_s(graph, end_s)
    start_s = np.maximum(start_s, came_s)  # rounding may leave it before
    start_s[:steps] = came_s[:steps]
    return Spans(came_s, start_s, end_s)


def timeline_of(graph: TaskGraph, spans: Spans) -> Timeline:
    """Return the timeline of spans of one pipeline."""
    return Timeline(graph.with_durations(spans.end_s - spans.start_s), *spans)


@dataclass(frozen=True, eq=False)
class FoldedPipeline:
    """One pipeline that stands for all.

    Attributes:
        held_s: (tasks, points) end of each task if steps last until the slowest rank is done.
        taken_s: (tasks, points) seconds of each then.
    """

    folded: FoldedColumns
    held_s: Floats
    taken_s: Floats

    @property
    def pipeline(self) -> Pipeline:
        """What was played."""
        return self.folded.lowered.pipeline

    @cached_property
    def spans(self) -> Spans:
        """(tasks, points) when each task was ready, started and ended."""
        start_s = self.held_s - self.taken_s
        return of_mean_rank(self.pipeline.graph, start_s, self.held_s, self.folded.lag_s)

    @cached_property
    def phase_s(self) -> Floats:
        """(phases, ranks, points) seconds; those of a rank sum to the step."""
        return times_by_phase(self.pipeline, self.spans.end_s - self.spans.start_s, self.step_s)

    @cached_property
    def step_s(self) -> Floats:
        """(points,) end of the last task."""
        return np.asarray(self.spans.end_s.max(axis=0))

    def times(self, point: int) -> RankTimes:
        """Return where the time of each pipeline rank went."""
        phases = self.pipeline.table.phases
        by_phase = dict(zip(phases, self.phase_s[..., point], strict=True))
        return RankTimes(by_phase, float(self.step_s[point]))

    def timeline(self, point: int) -> Timeline:
        """Return what happened on one point."""
        columns = (np.ascontiguousarray(column[:, point]) for column in self.spans)
        return timeline_of(self.pipeline.graph, Spans(*columns))
