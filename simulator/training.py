"""A training step from experiment to timelines: workload, prices, ranks, pipeline."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.blueprint import Blueprint, ChunkKey, blueprint
from simulator.experiment import EngineName, Experiment
from simulator.explicit import ExplicitPlay, play_explicit
from simulator.extent import check_extent
from simulator.fabric_slowdowns import FabricSlowdowns, fabric_slowdowns
from simulator.folded import FoldedPlay, play_folded
from simulator.play import array, reference
from simulator.play.chunk import ChunkPlay, Engine
from simulator.play.pipeline import Pipeline, RankTimes, rank_times
from simulator.play.timeline import Timeline
from simulator.price.collectives import ExchangePricer, link_rates, message_s
from simulator.price.finite import check_finite
from simulator.price.group_ports import GroupPorts
from simulator.price.kernels import KernelPricer
from simulator.price.optimizer import optimizer_seconds
from simulator.price.segments import OpSeconds, SegmentPricer
from simulator.record import PipelineRecord
from simulator.shared_nics import SharedNics, play_shared_nics
from workloads.memory import check_memory
from workloads.scenarios.training_step import TrainingStep

ENGINES: dict[EngineName, Engine] = {"array": array, "reference": reference}


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """Everything one training step was made of; metrics and pictures are drawn from it.

    Attributes:
        folded: every distinct chunk, played with each draw of the expert load.
        explicit: what every rank did, if all were played.
        shared: one pipeline whose traffic meets on its NICs, if they are shared.
        folded_timeline: of the pipeline of folded chunks, each kind of traffic on a NIC of its own.
        fabric: what the network slows down, where it may.
    """

    experiment: Experiment
    blueprint: Blueprint
    folded: FoldedPlay
    folded_timeline: Timeline
    explicit: ExplicitPlay | None
    shared: SharedNics | None
    pricer: SegmentPricer
    fabric: FabricSlowdowns | None = None

    @property
    def workload(self) -> TrainingStep:
        """What the ranks of one pipeline do."""
        return self.blueprint.workload

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline of chunks as a task graph."""
        return self.blueprint.pipeline

    @property
    def chunks(self) -> dict[ChunkKey, ChunkPlay]:
        """Every distinct chunk."""
        return self.folded.chunks

    @cached_property
    def timeline(self) -> Timeline:
        """Steps, messages and optimizer of a pipeline: the folded one, the one whose NICs are
        shared, or the first of all.
        """
        return self.folded_timeline if self.record is None else self.record.chunks

    @cached_property
    def record(self) -> PipelineRecord | None:
        """All that happened in the first pipeline, where its segments were played."""
        if self.shared is not None:
            return self.shared.record
        return self.explicit.record(0) if self.explicit else None

    @cached_property
    def times(self) -> RankTimes:
        """Where the time of each pipeline rank went."""
        if self.explicit is not None:
            return self.explicit.times
        return rank_times(self.pipeline, self.timeline)

    @property
    def tasks(self) -> int:
        """Tasks played: every draw of every chunk on all its ranks, the pipeline of chunks, and
        where all ranks were played all of theirs, or where NICs are shared those of one pipeline.
        """
        folded = self.folded.tasks + len(self.pipeline.graph)
        if self.shared is not None:
            return folded + len(self.shared.nics.graph)
        return folded + (self.explicit.tasks if self.explicit else 0)

    @cached_property
    def op_seconds(self) -> list[OpSeconds]:
        """Compute seconds of one pipeline at balanced load, op by op."""
        seconds = (self.blueprint.compute_runs * self.folded.prices.op_s).sum(axis=0)
        rows = zip(
            self.blueprint.segments.ops, self.folded.prices.basis, seconds.tolist(), strict=True
        )
        return [OpSeconds(*row) for row in rows]


def train(experiment: Experiment) -> TrainingRun:
    """Simulate one training step.

    Raises:
        InfeasibleError: plan, layout, batch or memory cannot work, there is too much to play, or a
            price is not finite.
        OutOfRangeError: the profile lacks a kernel family.
    """
    plan = blueprint(experiment)
    check_memory(plan.workload.memory_bytes, experiment.cluster.node.chip.hbm_capacity_bytes)
    check_extent(experiment, plan)
    fabric = fabric_slowdowns(experiment, plan)
    unlike = fabric if experiment.unlike_links else None
    pricer = _pricer(experiment, plan.workload, fabric if unlike is None else None)
    engine = ENGINES[experiment.ranks.engine]
    rng = np.random.default_rng(experiment.ranks.seed)
    folded = play_folded(experiment, plan, pricer, engine, rng)
    message = message_s(
        pricer.exchanges.rates, plan.workload.message_bytes, plan.workload.placement.crosses
    )
    chip = experiment.cluster.node.chip
    optimizer = optimizer_seconds(
        plan.workload.optimizer,
        plan.update_ops,
        KernelPricer(chip, experiment.profile, chip.sms),
        pricer.exchanges.rates,
    )
    check_finite(message.ravel(), lambda _: "seconds of a pipeline message")
    check_finite(optimizer.seconds(), lambda rank: f"optimizer seconds of pipeline rank {rank}")
    slowest = plan.pipeline.links.of_messages(message.max(axis=2))
    timeline = folded.play(engine, slowest, optimizer.seconds())
    explicit, shared = None, None
    if experiment.is_explicit:
        explicit = play_explicit(experiment, folded, pricer, engine, message, optimizer, unlike)
    elif experiment.communication.nics == "shared":
        size_bytes = plan.workload.message_bytes
        shared = play_shared_nics(folded, pricer, engine, size_bytes, optimizer)
    return TrainingRun(experiment, plan, folded, timeline, explicit, shared, pricer, fabric)


def _pricer(
    experiment: Experiment, workload: TrainingStep, fabric: FabricSlowdowns | None
) -> SegmentPricer:
    """Return the prices of an experiment.

    Args:
        fabric: slowdowns that all ranks feel alike.
    """
    cluster, profile = experiment.cluster, experiment.profile
    rates = link_rates(
        cluster, profile.communication if profile else None, experiment.communication.sms
    )
    if fabric is not None:
        rates = fabric.slowed(rates)
    chip = cluster.node.chip
    return SegmentPricer(
        KernelPricer(chip, profile, experiment.compute_sms),
        ExchangePricer(rates, tuple(map(GroupPorts.of, workload.routing))),
        KernelPricer(chip, profile, experiment.alone_sms),
    )
