"""Play one training step: workload, prices, ranks, pipeline."""

from collections.abc import Collection

import numpy as np

from simulator.driver.explicit import play_explicit
from simulator.driver.extent import check_extent
from simulator.driver.folded import play_folded
from simulator.experiment import EngineName, Experiment
from simulator.lower.blueprint import blueprint
from simulator.lower.played import Played
from simulator.lower.rank_seconds import RankSeconds
from simulator.lower.shared_nics import on_shared_nics
from simulator.play import array, reference
from simulator.play.engine import Engine
from simulator.price.collectives import ExchangePricer, link_rates, message_s
from simulator.price.fabric_slowdowns import FabricSlowdowns, fabric_slowdowns
from simulator.price.finite import check_finite
from simulator.price.group_ports import GroupPorts
from simulator.price.kernels import KernelPricer
from simulator.price.optimizer import optimizer_seconds
from simulator.price.segments import SegmentPricer
from workloads.memory import check_memory
from workloads.scenarios.training_step import TrainingStep

ENGINES: dict[EngineName, Engine] = {"array": array, "reference": reference}


def play(
    experiment: Experiment, *, pipelines: Collection[int] = (0,), critical: bool = False
) -> Played:
    """Play one training step.

    Args:
        pipelines: where all ranks are played, those whose timelines are kept, with their groups'.
        critical: keep there that of the group that ends the step, too.

    Raises:
        InfeasibleError: plan, layout, batch or memory cannot work, there is too much to play, or a
            price is not finite.
        OutOfRangeError: the profile lacks a kernel family.
    """
    plan = blueprint(experiment)
    workload, pipeline = plan.workload, plan.pipeline
    check_memory(workload.memory_bytes, experiment.cluster.node.chip.hbm_capacity_bytes)
    check_extent(experiment, plan)
    fabric = fabric_slowdowns(experiment, workload, pipeline.links.rank_pairs)
    unlike = fabric if experiment.unlike_links else None
    pricer = _pricer(experiment, workload, fabric if unlike is None else None)
    engine = ENGINES[experiment.ranks.engine]
    rng = np.random.default_rng(experiment.ranks.seed)
    folded = play_folded(experiment, plan, pricer, engine, rng)
    rates = pricer.exchanges.rates
    message = message_s(rates, workload.message_bytes, workload.placement.crosses)
    chip = experiment.cluster.node.chip
    all_sms = KernelPricer(chip, experiment.profile, chip.sms)
    optimizer = optimizer_seconds(workload.optimizer, plan.update_ops, all_sms, rates)
    check_finite(message.ravel(), lambda _: "seconds of a pipeline message")
    check_finite(optimizer.seconds(), lambda rank: f"optimizer seconds of pipeline rank {rank}")
    slowest = pipeline.links.of_messages(message.max(axis=2))
    timeline = folded.of_mean_rank(engine.play(folded.timed(slowest, optimizer.seconds())))
    explicit, shared = None, None
    if experiment.is_explicit:
        ranks = RankSeconds.of(experiment, folded, pricer, message, unlike)
        explicit = play_explicit(ranks, engine, optimizer, pipelines=pipelines, critical=critical)
    elif experiment.communication.nics == "shared":
        nics = on_shared_nics(folded, pricer, workload.message_bytes, optimizer)
        shared = nics.played(folded, engine.play(nics.graph))
    return Played(experiment, plan, folded, timeline, explicit, shared, pricer, fabric)


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
