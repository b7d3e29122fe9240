"""What a plan comes to, from closed forms: memory first, then the step by its schedule's form.

No step is listed and no pipeline is played. Each distinct part is played once, on one rank that
meets the load expected of the slowest (`part_seconds`); the schedule's `step_s` makes a step of the
seconds of its stages, and messages that fill and drain the pipeline and the end of the fullest rank
are added. Left out, so that a screen tells plans apart and is no result: faults, links between
switches, what sets single ranks apart, NICs that are shared, and messages that hold up a full
pipeline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from hwmodels.arrays import Floats
from simulator.driver.experts import expert_group, sent_share
from simulator.driver.program import program_inputs
from simulator.experiment import Experiment
from simulator.network.machine import Machine
from simulator.network.price import comm_s
from simulator.price.kernels import KernelPricer
from simulator.price.optimizer import end_comms, end_kernels_s
from simulator.study.part_seconds import Holding, Setting, Stock, part_seconds
from simulator.tell.headlines import MEMORY
from simulator.tell.metrics.training import Training
from workloads.memory import check_memory, memory_terms, rank_parameters
from workloads.optimizer import OptimizerStep, optimizer_step
from workloads.replicas import held_experts
from workloads.routing import lognormal_load, zipf_load
from workloads.scenarios.training import Outline, stage_message, training_outline
from workloads.schedules import filling, schedule
from workloads.schedules.stage_times import StageTimes
from workloads.schedules.step import Program, StepKind

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
    times = _stage_times(experiment, outline)
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
        dense = placement.dense_replicas(home.ranks).shape[1]
        experts = placement.expert_replicas(home.ranks).shape[1]
        by_rank.append(
            memory_terms(
                stages,
                home.stages,
                program[rank],
                dense,
                experts,
                plan.zero,
                experiment.recipe,
                outline.expert_group,
            )
        )
    check_memory(by_rank, experiment.cluster.node.chip.hbm_capacity_bytes)
    fullest = max(by_rank, key=lambda terms: sum(terms.values()))
    return fullest | {"total": sum(fullest.values())}


@lru_cache(maxsize=64)
def _first_steps(name: str, pp: int, microbatches: int, vpp: int | None) -> Program:
    return schedule(name).steps(pp, microbatches, vpp)


def _stage_times(experiment: Experiment, outline: Outline) -> StageTimes:
    """Return the seconds of all stages, NaN of what the schedule never does."""
    plan = experiment.plan
    setting = Setting.of(experiment, outline, expected_loads(experiment), sent_share(experiment))
    # Layers alike are one object (`workloads.stages`).
    layers = {id(layer): layer for stage in outline.stages for layer in stage}
    place = {name: number for number, name in enumerate(layers)}
    stock = Stock.of(list(layers.values()))
    stages = [tuple(place[id(layer)] for layer in stage) for stage in outline.stages]
    columns = {
        kind: np.array([part_seconds(setting, stock, part) for part in _holdings(kind, stages)])
        for kind in _kinds(plan.schedule, plan.pp, plan.vpp)
    }
    never = np.full(len(outline.stages), np.nan)
    return StageTimes(*(columns.get(kind, never) for kind in KINDS_OF_FORM))


def _holdings(kind: StepKind, stages: Sequence[tuple[int, ...]]) -> list[Holding]:
    """Return by stage the part of a kind of step."""
    if kind == "FB":
        pairs = zip(stages, reversed(stages), strict=True)
        return [Holding(kind, *of_stages) for of_stages in pairs]
    return [Holding(kind, at, ()) if kind == "F" else Holding(kind, (), at) for at in stages]


@lru_cache(maxsize=64)
def _kinds(name: str, pp: int, vpp: int | None) -> tuple[StepKind, ...]:
    """Return the kinds of steps of a schedule, overlapped ones last."""
    program = _first_steps(name, pp, 2 * pp, vpp)
    found = {step.kind for steps in program for step in steps}
    return tuple(kind for kind in KINDS_OF_FORM if kind in found)


def expected_loads(experiment: Experiment) -> Floats:
    """Return (ep,) loads as they are expected, the least first: normals at the places where those
    of a sample are on average, `(i - 3/8) / (n + 1/4)` (Blom, Statistical Estimates and Transformed
    Beta-Variables, 1958); given loads as the mean over layers.
    """
    load, ep, moe = experiment.ranks.expert_load, experiment.plan.ep, experiment.model.moe
    group = expert_group(experiment)
    if group is not None and group.lasting is not None and not (group.is_plain and load.is_drawn):
        return np.asarray(group.lasting.values.mean(axis=0))
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
    message = stage_message(experiment.model, experiment.plan, experiment.batch)
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
    experts = placement.expert_replicas(home.ranks)
    return optimizer_step(
        of_home[home],
        placement.dense_replicas(home.ranks),
        experts,
        placement.everyone,
        experiment.plan.zero,
        [table.seen_from(home.ranks[0], placement) for table in outline.tables],
        held_experts(stages, home.stages, experts, outline.expert_group),
        recipe=experiment.recipe,
    )
