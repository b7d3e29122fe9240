"""A training step as it was played: everything that metrics, facts and pictures are drawn from."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

from hwmodels.errors import InputError
from simulator.engines.timeline import Timeline
from simulator.experiment import Experiment
from simulator.lower.explicit import ExplicitPlay
from simulator.lower.folded import FoldedPlay
from simulator.lower.folded_pipeline import FoldedPipeline
from simulator.lower.lowered import Lowered
from simulator.lower.parts import PartPlay
from simulator.lower.pipeline import Pipeline, RankTimes, rank_times
from simulator.lower.record import PipelineRecord
from simulator.lower.shared_nics import SharedNics
from simulator.price.fabric_slowdowns import FabricSlowdowns
from simulator.price.segments import OpSeconds, SegmentPricer
from workloads.program import Program


@dataclass(frozen=True, eq=False)
class Played:
    """One training step: what was played, with what prices, and what happened.

    Attributes:
        whole: the pipeline of folded parts, on this point and those played beside it.
        folded: every distinct part, played with each draw of the expert load.
        explicit: what every rank did, if all were played.
        shared: one pipeline whose traffic meets on its NICs, if they are shared.
        fabric: what the network slows down, where it may.
    """

    experiment: Experiment
    whole: FoldedPipeline
    folded: FoldedPlay
    explicit: ExplicitPlay | None
    shared: SharedNics | None
    pricer: SegmentPricer
    fabric: FabricSlowdowns | None = None

    @property
    def lowered(self) -> Lowered:
        """The program as graphs."""
        return self.folded.lowered

    @cached_property
    def folded_timeline(self) -> Timeline:
        """Of the pipeline of folded parts, each kind of traffic on a NIC of its own."""
        return self.whole.timeline(self.folded.point)

    @property
    def program(self) -> Program:
        """What the ranks of one pipeline do."""
        return self.lowered.program

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline of steps as a task graph."""
        return self.lowered.pipeline

    @property
    def parts(self) -> dict[Hashable, PartPlay]:
        """Every distinct part."""
        return self.folded.parts

    @property
    def pipelines(self) -> int:
        """Pipelines played one by one: all, or one that stands for all."""
        return 1 if self.explicit is None else self.explicit.finish_s.shape[1]

    def record(self, pipeline: int = 0) -> PipelineRecord | None:
        """Return all that happened in one pipeline; None where its segments were not played.

        Raises:
            InputError: there is no such pipeline, or its timeline was not kept.
        """
        if not 0 <= pipeline < self.pipelines:
            played = "" if self.explicit else ", as only one was played"
            raise InputError(
                f"pipeline: must be from 0 to {self.pipelines - 1}{played}, got {pipeline}"
            )
        if self.explicit is None:
            return None if self.shared is None else self.shared.record
        return self.explicit.record(self.lowered, pipeline)

    def timeline(self, pipeline: int = 0) -> Timeline:
        """Return steps, messages and optimizer of a pipeline: the folded one, the one whose NICs
        are shared, or one of all.
        """
        record = self.record(pipeline)
        return self.folded_timeline if record is None else record.steps

    @cached_property
    def times(self) -> RankTimes:
        """Where the time of each pipeline rank went."""
        if self.explicit is not None:
            return self.explicit.times
        if self.shared is not None:
            return rank_times(self.pipeline, self.timeline())
        return self.whole.times(self.folded.point)

    @property
    def tasks(self) -> int:
        """Tasks played: every draw of every part on all its ranks, the pipeline of steps, and
        where all ranks were played all of theirs, or where NICs are shared those of one pipeline.
        """
        folded = self.folded.tasks + len(self.pipeline.graph)
        if self.shared is not None:
            return folded + len(self.shared.nics.graph)
        return folded + (self.explicit.tasks if self.explicit else 0)

    @cached_property
    def op_seconds(self) -> list[OpSeconds]:
        """Compute seconds of one pipeline at balanced load, op by op."""
        seconds = (self.lowered.compute_runs * self.folded.prices.op_s).sum(axis=0)
        rows = zip(self.lowered.segments.ops, seconds.tolist(), strict=True)
        return [OpSeconds(op, self.folded.prices.basis_of(op), taken_s) for op, taken_s in rows]
