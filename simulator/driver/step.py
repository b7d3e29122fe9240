"""Play one training step: workload, prices, ranks, pipeline."""

from collections.abc import Collection

import numpy as np

from simulator.driver.explicit import play_explicit
from simulator.driver.extent import check_extent
from simulator.driver.folded import play_folded
from simulator.driver.program import program_of
from simulator.experiment import Experiment
from simulator.lower.lowered import lower
from simulator.lower.played import Played
from simulator.lower.rank_seconds import RankSeconds
from simulator.lower.shared_nics import on_shared_nics
from simulator.play import array, reference
from simulator.play.engine import Engine
from simulator.price.collectives import ExchangePricer, link_rates, message_s
from simulator.price.fabric_slowdowns import FabricSlowdowns, Paths, fabric_slowdowns
from simulator.price.finite import check_finite
from simulator.price.group_ports import GroupPorts
from simulator.price.kernels import KernelPricer
from simulator.price.optimizer import optimizer_seconds
from simulator.price.segments import SegmentPricer
from simulator.ranks import EngineName
from workloads.memory import check_memory
from workloads.program import Program

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
    program = program_of(experiment)
    lowered = lower(program)
    pipeline, placement = lowered.pipeline, program.placement
    check_memory(program.memory_bytes, experiment.cluster.node.chip.hbm_capacity_bytes)
    check_extent(experiment, lowered)
    paths = paths_of(experiment)
    fabric = fabric_slowdowns(paths, program, lowered.message_pairs)
    unlike = fabric if paths.unlike else None
    pricer = _pricer(experiment, program, fabric if unlike is None else None)
    engine = ENGINES[experiment.ranks.engine]
    rng = np.random.default_rng(experiment.ranks.seed)
    folded = play_folded(experiment.ranks, lowered, pricer, engine, rng)
    rates = pricer.exchanges.rates
    message = message_s(rates, program.message.size_bytes, placement.crosses)
    chip = experiment.cluster.node.chip
    all_sms = KernelPricer(chip, experiment.profile, chip.sms)
    optimizer = optimizer_seconds(program.end, lowered.end_ops, all_sms, rates)
    check_finite(message.ravel(), lambda _: "seconds of a pipeline message")
    check_finite(optimizer.seconds(), lambda rank: f"optimizer seconds of pipeline rank {rank}")
    slowest = pipeline.links.of_messages(message.max(axis=2))
    timeline = folded.of_mean_rank(engine.play(folded.timed(slowest, optimizer.seconds())))
    explicit, shared = None, None
    if experiment.is_explicit:
        ranks = RankSeconds.of(experiment.ranks, folded, pricer, message, unlike)
        explicit = play_explicit(ranks, engine, optimizer, pipelines=pipelines, critical=critical)
    elif experiment.communication.nics == "shared":
        nics = on_shared_nics(folded, pricer, program.message.size_bytes, optimizer)
        shared = nics.played(folded, engine.play(nics.graph))
    return Played(experiment, lowered, folded, timeline, explicit, shared, pricer, fabric)


def paths_of(experiment: Experiment) -> Paths:
    """Return how bytes find their way over the network of an experiment."""
    routing, seed = experiment.communication.routing, experiment.ranks.seed
    return Paths(experiment.cluster, routing, seed, experiment.unlike_links)


def _pricer(
    experiment: Experiment, program: Program, fabric: FabricSlowdowns | None
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
        ExchangePricer(rates, tuple(map(GroupPorts.of, program.routing))),
        KernelPricer(chip, profile, experiment.alone_sms),
        exposed_factor=1 / experiment.communication.exposed_rate,
    )
