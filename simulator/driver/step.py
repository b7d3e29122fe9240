"""Play one training step: workload, prices, ranks, pipeline."""

from collections.abc import Collection
from dataclasses import replace

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
from simulator.network.comm_times import AS_PRICED
from simulator.network.exchange_pricer import ExchangePricer
from simulator.network.machine import Machine
from simulator.play import array, reference
from simulator.play.engine import Engine
from simulator.price.fabric_slowdowns import Paths, fabric_slowdowns
from simulator.price.finite import check_finite
from simulator.price.kernels import KernelPricer
from simulator.price.messages import message_times
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
    pipeline = lowered.pipeline
    check_memory(program.memory_bytes, experiment.cluster.node.chip.hbm_capacity_bytes)
    check_extent(experiment, lowered)
    paths = paths_of(experiment)
    fabric = fabric_slowdowns(paths, program, lowered.message_pairs)
    unlike = fabric if paths.unlike else None
    exchange, slow = (1.0, AS_PRICED) if fabric is None or unlike else fabric.alike
    machine = _machine(experiment, program)
    pricer = _pricer(experiment, machine, exchange)
    engine = ENGINES[experiment.ranks.engine]
    rng = np.random.default_rng(experiment.ranks.seed)
    folded = play_folded(experiment.ranks, lowered, pricer, engine, rng)
    messages = message_times(program, lowered.message_pairs, machine, slow)
    message = messages.seconds
    chip = experiment.cluster.node.chip
    all_sms = KernelPricer(chip, experiment.profile, chip.sms)
    optimizer = optimizer_seconds(program.end, lowered.end_ops, all_sms, machine, slow)
    check_finite(message.ravel(), lambda _: "seconds of a pipeline message")
    check_finite(optimizer.seconds(), lambda rank: f"optimizer seconds of pipeline rank {rank}")
    slowest = pipeline.links.of_messages(message.max(axis=2))
    timeline = folded.of_mean_rank(engine.play(folded.timed(slowest, optimizer.seconds())))
    explicit, shared = None, None
    if experiment.is_explicit:
        ranks = RankSeconds.of(experiment.ranks, folded, pricer, message, unlike)
        explicit = play_explicit(ranks, engine, optimizer, pipelines=pipelines, critical=critical)
    elif experiment.communication.nics == "shared":
        nics = on_shared_nics(folded, pricer, messages, optimizer)
        shared = nics.played(folded, engine.play(nics.graph))
    return Played(experiment, lowered, folded, timeline, explicit, shared, pricer, fabric)


def paths_of(experiment: Experiment) -> Paths:
    """Return how bytes find their way over the network of an experiment."""
    routing, seed = experiment.communication.routing, experiment.ranks.seed
    return Paths(experiment.cluster, routing, seed, experiment.unlike_links)


def _machine(experiment: Experiment, program: Program) -> Machine:
    """Return what communication is priced on; what slows ports beside it is priced apart."""
    profile, sms = experiment.profile, experiment.communication.sms
    library = profile.communication if profile else None
    return Machine.of_ports(experiment.cluster, library, sms, program.routing)


def _pricer(experiment: Experiment, machine: Machine, slow: float) -> SegmentPricer:
    """Return the prices of an experiment.

    Args:
        slow: by which NICs are slower in exchanges, for all ranks alike.
    """
    profile, chip = experiment.profile, experiment.cluster.node.chip
    exchanges = ExchangePricer.of(machine)
    return SegmentPricer(
        KernelPricer(chip, profile, experiment.compute_sms),
        replace(exchanges, rates=exchanges.rates.slowed(slow)),
        KernelPricer(chip, profile, experiment.alone_sms),
        exposed_factor=1 / experiment.communication.exposed_rate,
    )
