"""What happened in one pipeline whose every segment was played: its segments, and its steps."""

from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats
from simulator.engines.timeline import Timeline
from simulator.lower.expansion import Expansion
from simulator.lower.pipeline import Pipeline


@dataclass(frozen=True, slots=True, eq=False)
class PipelineRecord:
    """What happened in one pipeline.

    Attributes:
        steps: timeline of the pipeline's graph of steps, messages and optimizer.
        segments: timeline of its expansion; of a longer graph, that of its first tasks.
    """

    steps: Timeline
    segments: Timeline

    @classmethod
    def of(
        cls,
        pipeline: Pipeline,
        expansion: Expansion,
        segments: Timeline,
        optimizer_start_s: Floats,
        optimizer_end_s: Floats,
    ) -> "PipelineRecord":
        """Return the record of a pipeline: a step lasts from its begin to its end.

        Args:
            optimizer_start_s, optimizer_end_s: (pp,) when each rank begins and ends it.
        """
        start_s, end_s, message = segments.start_s, segments.end_s, expansion.message
        begin_s = np.concatenate([end_s[expansion.begin], start_s[message], optimizer_start_s])
        until_s = np.concatenate([end_s[expansion.end], end_s[message], optimizer_end_s])
        graph = pipeline.graph.with_durations(until_s - begin_s)
        return cls(Timeline(graph, begin_s, begin_s, until_s), segments)
