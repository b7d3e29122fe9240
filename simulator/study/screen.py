"""What a plan comes to, from closed forms: memory first, then the step by its schedule's form.

No step is listed and no pipeline is played. Each distinct part is played once, on one rank that
meets the load expected of the slowest; the schedule's `step_s` makes a step of the seconds of its
stages, and messages that fill and drain the pipeline and the end of the fullest rank are added.
Left out, so that a screen tells plans apart and is no result: faults, links between switches, what
sets single ranks apart, NICs that are shared, and messages that hold up a full pipeline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.driver.program import program_inputs
from simulator.engines import array
from simulator.engines.settle import settle
from simulator.experiment import Experiment
from simulator.lower.parts import part_graph
from simulator.network.exchange_pricer import ExchangePricer
from simulator.network.machine import Machine
from simulator.network.price import comm_s
from simulator.price.finite import check_finite
from simulator.price.kernels import KernelPricer
from simulator.price.optimizer import end_comms, end_kernels_s
from simulator.price.segments import (
    LoadGrid,
    SegmentPricer,
    SegmentPrices,
    collect_ops,
    table_rows,
)
from simulator.tell.headlines import MEMORY
from simulator.tell.metrics.training import Training
from workloads.memory import check_memory, memory_terms, rank_parameters
from workloads.optimizer import OptimizerStep, optimizer_step
from workloads.routing import lognormal_load, zipf_load
from workloads.scenarios.training import Outline, stage_message, training_outline
from workloads.scenarios.training_parts import PartKey, alike_stages, part_of
from workloads.schedules import filling, schedule
from workloads.schedules.stage_times import StageTimes
from workloads.schedules.step import Program, StepKind
from workloads.segments import Part
from workloads.weave import Weaver

NORMAL = NormalDist()
KINDS_OF_FORM: tuple[StepKind, ...] = ("F", "B", "Bi", "W", "FB")
"""Of steps, in the order of `StageTimes`."""


@dataclass(frozen=True, slots=True, eq=False)
class Screened:
    """What a screen knows of an experiment.

    Attributes:
        memory_bytes: terms of the fullest rank, and their `total`, those of a play.
    """

    metrics: Training
    memory_bytes: dict[str, float]

    @property
    def numbers(self) -> dict[str, float]:
        """Headline numbers and memory, by dotted path as of `simulator.tell.outcome`."""
        return self.metrics.numbers | {MEMORY.name: self.memory_bytes["total"]}


def memory_of(experiment: Experiment) -> dict[str, float]:
    """Return bytes by term of the fullest rank, and their `total`: those of a play.

    Raises:
        SpecError, InfeasibleError: as a play refuses plan, layout, batch or memory.
    """
    return _memory(experiment, _outline(experiment))


def screen(experiment: Experiment) -> Screened:
    """Return what an experiment comes to by closed forms.

    Raises:
        SpecError, InfeasibleError: as `memory_of`, or a price is not finite.
        OutOfRangeError: the profile lacks a kernel family.
    """
    outline = _outline(experiment)
    memory_bytes = _memory(experiment, outline)
    plan, profile = experiment.plan, experiment.profile
    library = profile.communication if profile else None
    sms, cluster = experiment.communication.sms, experiment.cluster
    machine = Machine.of_ports(cluster, library, sms, outline.routing)
    times = _stage_times(experiment, outline, machine)
    step_s = plan.pipeline_schedule.step_s(plan.pp, outline.microbatches, times)
    step_s += 2 * (plan.pp - 1) * _message_s(experiment, outline, machine)
    step_s += _end_s(experiment, outline, machine)
    return Screened(Training.of_step(experiment, step_s), memory_bytes)


def _outline(experiment: Experiment) -> Outline:
    return training_outline(**program_inputs(experiment))


def _memory(experiment: Experiment, outline: Outline) -> dict[str, float]:
    """Return the memory of the fullest rank: of as many micro-batches as fill the pipeline, for
    more hold no more.
    """
    plan, stages, placement = experiment.plan, outline.stages, outline.placement
    few = filling(plan.pipeline_schedule, plan.pp, outline.microbatches, plan.vpp)
    program = _first_steps(plan.schedule, plan.pp, few, plan.vpp)
    home_of = {rank: home for home in outline.homes for rank in home.ranks}
    by_rank = []
    for rank in range(plan.pp):
        home = home_of[rank]
        dense = len(home.ranks) * len(placement.pipelines)
        experts = dense // plan.ep
        by_rank.append(
            memory_terms(
                stages, home.stages, program[rank], dense, experts, plan.zero, experiment.recipe
            )
        )
    check_memory(by_rank, experiment.cluster.node.chip.hbm_capacity_bytes)
    fullest = max(by_rank, key=lambda terms: sum(terms.values()))
    return fullest | {"total": sum(fullest.values())}


@lru_cache(maxsize=64)
def _first_steps(name: str, pp: int, microbatches: int, vpp: int | None) -> Program:
    return schedule(name).steps(pp, microbatches, vpp)


def _stage_times(experiment: Experiment, outline: Outline, machine: Machine) -> StageTimes:
    """Return the seconds of all stages, NaN of what the schedule never does; stages alike are
    played once.
    """
    alike, plan, weaver = alike_stages(outline.stages), experiment.plan, Weaver()
    keys = {kind: _keys(kind, alike) for kind in _kinds(plan.schedule, plan.pp, plan.vpp)}
    distinct = list(dict.fromkeys(key for of_kind in keys.values() for key in of_kind))
    parts = [part_of(key, outline.stages, weaver) for key in distinct]
    found = dict(zip(distinct, _part_seconds(experiment, parts, machine), strict=True))
    columns = {kind: np.array([found[key] for key in of_kind]) for kind, of_kind in keys.items()}
    never = np.full(len(outline.stages), np.nan)
    return StageTimes(*(columns.get(kind, never) for kind in KINDS_OF_FORM))


def _keys(kind: StepKind, alike: Sequence[int]) -> list[PartKey]:
    """Return by stage the part of a kind of step, named by the first stages that do the same."""
    if kind == "FB":
        return [(kind, *of_stages) for of_stages in zip(alike, reversed(alike), strict=True)]
    return [(kind, stage, -1) if kind == "F" else (kind, -1, stage) for stage in alike]


@lru_cache(maxsize=64)
def _kinds(name: str, pp: int, vpp: int | None) -> tuple[StepKind, ...]:
    """Return the kinds of steps of a schedule, overlapped ones last."""
    program = _first_steps(name, pp, 2 * pp, vpp)
    found = {step.kind for steps in program for step in steps}
    return tuple(kind for kind in KINDS_OF_FORM if kind in found)


def _part_seconds(experiment: Experiment, parts: Sequence[Part], machine: Machine) -> list[float]:
    """Return the seconds of each part on the rank with the load expected of the slowest."""
    profile, chip = experiment.profile, experiment.cluster.node.chip
    pricer = SegmentPricer(
        KernelPricer(chip, profile, experiment.compute_sms),
        ExchangePricer.of(machine),
        KernelPricer(chip, profile, experiment.alone_sms),
        exposed_factor=1 / experiment.communication.exposed_rate,
    )
    loads = expected_loads(experiment)
    segments, rows = collect_ops([part.segments for part in parts])
    prices = pricer.prices(segments, LoadGrid.over(1.0, float(loads.max())))
    column = prices.grid.column(np.array([1.0, loads.max()]))
    found = []
    for part, row in zip(parts, rows, strict=True):
        graph = part_graph(part)
        alone_s = _alone_s(part, row, prices, column, pricer.exchanges, loads)
        factor = prices.factors_of(part.segments, row)
        done = settle(array, graph.graph, graph.pairs, alone_s, factor, 1)
        found.append(float(done.played.makespan_s[0]))
    return found


def _alone_s(
    part: Part,
    row: Ints,
    prices: SegmentPrices,
    column: Ints,
    exchanges: ExchangePricer,
    loads: Floats,
) -> Floats:
    """Return (tasks, 1) seconds of a part's segments with nothing beside them.

    Args:
        column: of the balanced load and of the slowest rank's.
        loads: (ep,) of all ranks.
    """
    meets = np.array([segment.load >= 0 for segment in part.segments], np.int64)
    rows = table_rows(row, len(prices.seconds) // 2, overlapped=part.overlapped)
    alone_s = prices.seconds[rows, column[meets]]
    slower = float(prices.exchange_slowdown(overlapped=part.overlapped))
    known: dict[tuple[str, float], float] = {}
    for place in np.flatnonzero(row < 0).tolist():
        comm = part.segments[place].comm
        assert comm is not None, "what is no kernel communicates"
        key = comm.kind, comm.size_bytes
        if key not in known:
            known[key] = float(exchanges.exchange_s(comm, loads)) * slower
        alone_s[place] = known[key]
    check_finite(alone_s, lambda place: f"seconds of {part.segments[place].label}")
    return np.asarray(alone_s[:, None])


def expected_loads(experiment: Experiment) -> Floats:
    """Return (ep,) loads as they are expected, the least first: normals at the places where those
    of a sample are on average, `(i - 3/8) / (n + 1/4)` (Blom, Statistical Estimates and Transformed
    Beta-Variables, 1958); given loads as the mean over layers.
    """
    load, ep, moe = experiment.ranks.expert_load, experiment.plan.ep, experiment.model.moe
    if load.kind == "matrix":
        rows = np.array(load.loads)
        return np.asarray((rows / rows.mean(axis=1, keepdims=True)).mean(axis=0))
    if not load.is_drawn:
        return np.ones(ep)
    if load.kind == "zipf" and moe is not None:
        # As a play has it the k-th most popular of all experts may sit anywhere: here one by one.
        order = np.arange(moe.routed_experts)
        dealt = order.reshape(-1, ep).T.ravel()
        return zipf_load(-dealt.astype(np.float64), load.exponent, ep, 1 / moe.top_k)
    places = (np.arange(1, ep + 1) - 0.375) / (ep + 0.25)
    return lognormal_load(np.array([NORMAL.inv_cdf(place) for place in places]), load.sigma)


def _message_s(experiment: Experiment, outline: Outline, machine: Machine) -> float:
    """Return the seconds of the slowest message from the first rank to the second."""
    if experiment.plan.pp == 1:
        return 0.0
    message = stage_message(experiment.model, experiment.batch)
    groups = outline.placement.pipelines[:, :2]
    return float(comm_s(message, groups, machine).seconds.max())


def _end_s(experiment: Experiment, outline: Outline, machine: Machine) -> float:
    """Return the seconds of the end of the step on the rank with the most parameters."""
    chip, end = experiment.cluster.node.chip, _fullest_end(experiment, outline)
    whole_chip = KernelPricer(chip, experiment.profile, chip.sms)
    (kernels_s,) = end_kernels_s((end,), end.update, [whole_chip])
    return float(end_comms((end,), machine).around(kernels_s).seconds()[0])


def _fullest_end(experiment: Experiment, outline: Outline) -> OptimizerStep:
    stages, placement = outline.stages, outline.placement
    of_home = {home: rank_parameters(stages, home.stages) for home in outline.homes}
    home = max(of_home, key=lambda each: of_home[each].total)
    return optimizer_step(
        of_home[home],
        placement.dense_replicas(home.ranks),
        placement.expert_replicas(home.ranks),
        placement.everyone,
        experiment.plan.zero,
        [table.seen_from(home.ranks[0], placement) for table in outline.tables],
        recipe=experiment.recipe,
    )
