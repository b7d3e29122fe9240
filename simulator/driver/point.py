"""One experiment before it is played: its program, and what prices do not share with others."""

from dataclasses import dataclass, replace

from simulator.driver.experts import sent_share
from simulator.driver.extent import check_extent
from simulator.driver.program import program_of
from simulator.engines import array, reference
from simulator.engines.engine import Engine
from simulator.experiment import Experiment
from simulator.lower.lowered import Lowered, lower
from simulator.lower.scope import EVERY_RANK, FOLDED, Scope
from simulator.lower.spread import LoadDraw, draw_loads
from simulator.network.exchange_pricer import ExchangePricer
from simulator.network.machine import Machine
from simulator.price.collectives import CollectivePricer
from simulator.price.fabric_slowdowns import FabricSlowdowns, Paths, fabric_slowdowns
from simulator.price.kernels import KernelPricer
from simulator.price.messages import MessageTimes, message_times
from simulator.price.optimizer import EndComms, end_comms
from simulator.price.segments import SegmentPricer
from simulator.ranks import EngineName
from workloads.memory import check_memory
from workloads.program import Program

ENGINES: dict[EngineName, Engine] = {"array": array, "reference": reference}


@dataclass(frozen=True, eq=False)
class Point:
    """One experiment, checked, and ready to be played beside others of its program.

    Attributes:
        scope: what of it is played.
        draw: expert loads of folded parts.
        machine: what messages and rings are priced on.
        whole_chip: prices on all SMs, which the end of the step has.
        fabric: what the network slows exchanges down, where it may; None where it cannot.
    """

    experiment: Experiment
    lowered: Lowered
    scope: Scope
    pricer: SegmentPricer
    draw: LoadDraw
    machine: Machine
    whole_chip: KernelPricer
    fabric: FabricSlowdowns | None

    @property
    def unlike(self) -> FabricSlowdowns | None:
        """What the network slows down for exchanges of some ranks more than of others."""
        return self.fabric if self.experiment.unlike_links else None

    @property
    def engine(self) -> Engine:
        """What plays it."""
        return ENGINES[self.experiment.ranks.engine]

    @property
    def messages(self) -> MessageTimes:
        """From pipeline rank to pipeline rank, in each pipeline."""
        return message_times(self.lowered.program, self.lowered.message_pairs, self.machine)

    @property
    def end(self) -> EndComms:
        """Communication at the end of the step."""
        return end_comms(self.lowered.program.end, self.machine)


def point_of(experiment: Experiment) -> Point:
    """Return an experiment ready to be played.

    Raises:
        InfeasibleError: plan, layout, batch or memory cannot work, or there is too much to play.
        OutOfRangeError: the profile lacks a kernel family.
    """
    program = program_of(experiment)
    lowered = lower(program)
    chip = experiment.cluster.node.chip
    check_memory(program.memory_bytes, chip.hbm_capacity_bytes)
    check_extent(experiment, lowered)
    paths = paths_of(experiment)
    fabric = fabric_slowdowns(paths, program)
    exchange = 1.0 if fabric is None or paths.unlike else fabric.alike
    ports = _machine(experiment, program)
    machine = ports if fabric is None else Machine.on(paths.network, ports.library)
    return Point(
        experiment,
        lowered,
        scope_of(experiment),
        _pricer(experiment, ports, exchange, CollectivePricer(machine, program.placement)),
        draw_loads(experiment.ranks, lowered),
        machine,
        KernelPricer(chip, experiment.profile, chip.sms),
        fabric,
    )


def scope_of(experiment: Experiment) -> Scope:
    """Return what of an experiment is played."""
    played = EVERY_RANK if experiment.is_explicit else FOLDED
    return Scope(played, "shared" if experiment.communication.nics == "shared" else "own")


def paths_of(experiment: Experiment) -> Paths:
    """Return how bytes find their way over the network of an experiment."""
    routing, seed = experiment.communication.routing, experiment.ranks.seed
    return Paths(experiment.cluster, routing, seed, experiment.unlike_links)


def _machine(experiment: Experiment, program: Program) -> Machine:
    """Return NVLink and ports: what exchanges are priced on, and messages and rings where nothing
    else may slow them.
    """
    profile, sms = experiment.profile, experiment.communication.sms
    library = profile.communication if profile else None
    return Machine.of_ports(experiment.cluster, library, sms, program.routing)


def _pricer(
    experiment: Experiment, machine: Machine, slow: float, collectives: CollectivePricer
) -> SegmentPricer:
    """Return the prices of an experiment.

    Args:
        slow: by which NICs are slower in exchanges, for all ranks alike.
    """
    profile, chip = experiment.profile, experiment.cluster.node.chip
    exchanges = ExchangePricer.of(machine)
    return SegmentPricer(
        KernelPricer(chip, profile, experiment.compute_sms),
        replace(
            exchanges,
            rates=exchanges.rates.slowed(slow),
            codec_overhead=experiment.codec_overhead,
            sent=sent_share(experiment),
        ),
        collectives,
        KernelPricer(chip, profile, experiment.alone_sms),
        exposed_factor=1 / experiment.communication.exposed_rate,
    )
