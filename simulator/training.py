"""A training step from experiment to timelines: workload, prices, chunks, pipeline."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from simulator.experiment import EngineName, Experiment
from simulator.play import array, reference
from simulator.play.chunk import ChunkPlay, Engine, play_chunk
from simulator.play.graph import Floats
from simulator.play.pipeline import Pipeline, RankTimes, build_pipeline, rank_times
from simulator.play.timeline import Timeline
from simulator.price.collectives import ExchangePricer, link_rates, message_s, ring_s
from simulator.price.kernels import KernelPricer
from simulator.price.layers import LayerPricer, OpSeconds
from workloads.layers import Layer, Phase
from workloads.layers.optimizer import GradientSync, OptimizerStep
from workloads.memory import check_memory
from workloads.routing import RoutingStatistics, expert_load
from workloads.scenarios.training_step import TrainingStep, training_step
from workloads.schedules.step import Step, StepKind

ChunkKey = tuple[StepKind, int, int]
"""Kind, forward stage and backward stage (-1 for none): chunks with one key take one time."""

ENGINES: dict[EngineName, Engine] = {"array": array.play, "reference": reference.play}

PHASES_OF_KIND: dict[StepKind, tuple[Phase, ...]] = {
    "F": ("F",),
    "Bi": ("B",),
    "B": ("B", "W"),
    "W": ("W",),
    "FB": ("B", "W"),
}
"""Phases of the backward (or only) chunk of a step; the forward of FB is counted apart."""


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """Everything one training step was made of; metrics and pictures are drawn from it.

    Attributes:
        chunks: every distinct chunk, played with each draw of the expert load.
        played: the one of them that each step of the program takes.
    """

    experiment: Experiment
    workload: TrainingStep
    chunks: dict[ChunkKey, tuple[ChunkPlay, ...]]
    played: dict[Step, ChunkPlay]
    pipeline: Pipeline
    timeline: Timeline
    pricer: LayerPricer

    @cached_property
    def times(self) -> RankTimes:
        """Where the time of each pipeline rank went."""
        return rank_times(self.pipeline, self.timeline)

    @property
    def tasks(self) -> int:
        """Tasks played: every draw of every chunk on all its ranks, and the pipeline of chunks."""
        chunks = (chunk for draws in self.chunks.values() for chunk in draws)
        return sum(len(chunk.timeline.graph) for chunk in chunks) + len(self.pipeline.graph)


def chunk_key(step: Step, alike: tuple[int, ...]) -> ChunkKey:
    """Return the key of a step; `alike` maps a stage to the first stage with the same layers."""
    forward = alike[step.forward.stage] if step.forward else -1
    backward = alike[step.backward.stage] if step.backward else -1
    return step.kind, forward, backward


def stages_alike(workload: TrainingStep) -> tuple[int, ...]:
    """Return for each stage the first stage with the same layers."""
    stages = workload.stages
    return tuple(stages.index(stage) for stage in stages)


def train(experiment: Experiment) -> TrainingRun:
    """Simulate one training step.

    Raises:
        InfeasibleError: plan, layout, batch or memory cannot work.
        OutOfRangeError: the profile lacks a kernel family.
    """
    workload = _workload(experiment)
    pricer = _pricer(experiment, workload)
    rng = np.random.default_rng(experiment.ranks.seed)
    chunks = _play_chunks(experiment, workload, pricer, rng)
    played = _deal(workload, chunks, rng)
    seconds = {id(chunk): chunk.duration_s for draws in chunks.values() for chunk in draws}
    rates = pricer.exchanges.rates
    pipeline = build_pipeline(
        workload.program,
        lambda step: seconds[id(played[step])],
        message_s(rates, workload.message_bytes),
        [_optimizer_s(experiment, pricer, step) for step in workload.optimizer],
        _optimizer_groups(experiment),
    )
    return TrainingRun(
        experiment,
        workload,
        chunks,
        played,
        pipeline,
        ENGINES[experiment.ranks.engine](pipeline.graph),
        pricer,
    )


def _workload(experiment: Experiment) -> TrainingStep:
    cluster = experiment.cluster
    workload = training_step(
        experiment.model,
        experiment.plan,
        experiment.batch,
        gpus=cluster.gpus,
        gpus_per_node=cluster.node.gpus,
        dispatch=experiment.communication.dispatch_format,
        combine=experiment.communication.combine_format,
        routed_nodes_max=experiment.communication.routed_nodes_max,
    )
    check_memory(workload.memory_bytes, cluster.node.chip.hbm_capacity_bytes)
    return workload


def _pricer(experiment: Experiment, workload: TrainingStep) -> LayerPricer:
    cluster, profile = experiment.cluster, experiment.profile
    rates = link_rates(
        cluster, profile.communication if profile else None, experiment.communication.sms
    )
    nobody = RoutingStatistics(nodes=1, gpus=1, nodes_per_token=0.0, gpus_per_token=0.0)
    return LayerPricer(
        KernelPricer(cluster.node.chip, profile, experiment.compute_sms),
        ExchangePricer(rates, workload.routing or nobody, cluster.node.gpus),
    )


def _play_chunks(
    experiment: Experiment, workload: TrainingStep, pricer: LayerPricer, rng: np.random.Generator
) -> dict[ChunkKey, tuple[ChunkPlay, ...]]:
    """Play each distinct chunk on one expert group, once for every draw of its loads.

    The layers of all are priced together, which is much faster.
    """
    alike, load = stages_alike(workload), experiment.ranks.expert_load
    drawn = experiment.ranks.draws if load.kind != "balanced" and load.sigma else 1
    keys = sorted({chunk_key(s, alike) for own in workload.program for s in own})
    halves = [
        [workload.stages[stage] if stage >= 0 else () for stage in stages]
        for _, *stages in keys
        for _ in range(drawn)
    ]
    loads = [_loads(experiment, sum(map(len, pair)), rng) for pair in halves]
    layers = [layer for pair in halves for half in pair for layer in half]
    priced = iter(pricer.price_all(layers, np.concatenate(loads)))
    pairs = iter(halves)
    engine = ENGINES[experiment.ranks.engine]

    def play(kind: StepKind) -> ChunkPlay:
        forward, backward = (list(islice(priced, len(half))) for half in next(pairs))
        return play_chunk(kind, forward, backward, engine)

    return {key: tuple(play(key[0]) for _ in range(drawn)) for key in keys}


def _deal(
    workload: TrainingStep, chunks: dict[ChunkKey, tuple[ChunkPlay, ...]], rng: np.random.Generator
) -> dict[Step, ChunkPlay]:
    """Give every step of the program one of its chunk's draws."""
    alike = stages_alike(workload)
    steps = [step for own in workload.program for step in own]
    choice = rng.random(len(steps))
    draws = (chunks[chunk_key(step, alike)] for step in steps)
    return {
        step: played[int(part * len(played))]
        for step, played, part in zip(steps, draws, choice.tolist(), strict=True)
    }


def _loads(experiment: Experiment, layers: int, rng: np.random.Generator) -> Floats:
    """Draw (layers, ranks) expert loads for one chunk, both halves of a pair on the same ranks."""
    load = experiment.ranks.expert_load
    return expert_load(load.kind, load.sigma, load.correlation, experiment.plan.ep, layers, rng)


def _optimizer_s(experiment: Experiment, pricer: LayerPricer, step: OptimizerStep) -> float:
    """Collectives and kernels one after another; kernels have the whole chip by then."""
    rates, gpus_per_node = pricer.exchanges.rates, experiment.cluster.node.gpus
    chip = experiment.cluster.node.chip
    whole_chip = KernelPricer(chip, experiment.profile, chip.sms)

    def collective_s(sync: GradientSync) -> float:
        replicas = sync.replicas
        return ring_s(rates, sync.bytes, replicas.members, replicas.members_per_node, gpus_per_node)

    kernels_s = float(whole_chip.price(step.update).total_s[0])
    return sum(map(collective_s, (*step.reduce, *step.gather))) + kernels_s


def _optimizer_groups(experiment: Experiment) -> list[int]:
    """Ranks that hold the same stages reduce gradients together."""
    plan = experiment.plan
    held = [frozenset(plan.stages_of_rank(rank)) for rank in range(plan.pp)]
    return [held.index(stages) for stages in held]


def op_seconds(run: TrainingRun) -> list[OpSeconds]:
    """Return the compute seconds of one pipeline at balanced load, op by op."""
    stages, alike = run.workload.stages, stages_alike(run.workload)
    times = Counter(chunk_key(step, alike) for own in run.workload.program for step in own)
    steps: list[tuple[Layer, Phase, int]] = []
    for (kind, forward, backward), count in times.items():
        halves: list[tuple[int, Phase]] = [(forward, "F")] if forward >= 0 else []
        if backward >= 0:
            halves += [(backward, phase) for phase in PHASES_OF_KIND[kind]]
        steps += [(layer, phase, count) for stage, phase in halves for layer in stages[stage]]
    return run.pricer.op_seconds(steps)
