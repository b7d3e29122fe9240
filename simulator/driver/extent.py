"""How much a run will play and hold, told before it is played.

Tasks are those that engines play, all draws of sampled inputs together. Bytes are those held at
once: of every task its duration, slowdown, begin and end, as floats; of every flow of a network
that is played its route and what fair shares need.
"""

from dataclasses import dataclass

from hwmodels.errors import InfeasibleError
from hwmodels.units import format_quantity
from simulator.driver.explicit import TILE_RANKS
from simulator.experiment import Experiment
from simulator.lower.blueprint import Blueprint

TASKS_MAX = 10**12
"""Some hours on two cores."""

BYTES_MAX = 16e9
"""The memory of a small computer."""

TASK_BYTES = 4 * 8
FLOW_BYTES = 400


@dataclass(frozen=True, slots=True)
class Extent:
    """What one run plays.

    Attributes:
        pipeline_tasks: of one pipeline, segment by segment.
        chunk_tasks: of all distinct chunks, on all ranks of a group, in all draws of their loads.
        tasks: of the whole run.
        held_bytes: at once.
    """

    pipeline_tasks: int
    chunk_tasks: int
    tasks: int
    held_bytes: float


def extent_of(experiment: Experiment, blueprint: Blueprint) -> Extent:
    """Return what a run of an experiment plays."""
    ranks, plan, load = experiment.ranks, experiment.plan, experiment.ranks.expert_load
    mesh = experiment.mesh
    chunks = [blueprint.chunks[key] for key in blueprint.keys]
    sizes = [len(chunk.graph.program) for chunk in chunks]
    steps = blueprint.steps_by_key.tolist()
    in_chunks = sum(map(int.__mul__, steps, sizes))
    pipeline_tasks = in_chunks + 2 * len(blueprint.steps) + len(blueprint.pipeline.links.sender)
    draws = ranks.draws if load.is_drawn else 1
    played = plan.ep if load.is_drawn or load.kind == "matrix" else 1
    chunk_tasks = sum(sizes) * draws * played
    moe = experiment.model.moe
    units = moe.routed_experts if moe and load.kind == "zipf" else plan.ep
    held = chunk_tasks + draws * sum(blueprint.slots) * units
    tasks = chunk_tasks + len(blueprint.pipeline.graph)
    if experiment.is_explicit:
        tasks += pipeline_tasks * experiment.pipelines
        slots = sum(count * chunk.slots for count, chunk in zip(steps, chunks, strict=True))
        held += pipeline_tasks * max(plan.ep, TILE_RANKS) + slots * units + 4 * mesh.ranks
    elif experiment.communication.nics == "shared":
        tasks += pipeline_tasks
        held += pipeline_tasks
    flows = 0
    if experiment.cluster.faults or experiment.unlike_links:
        flows = mesh.ranks * max(plan.pp, plan.ep // experiment.cluster.node.gpus)
    return Extent(
        pipeline_tasks,
        chunk_tasks,
        tasks * (1 + experiment.uncertainty.draws),
        float(held * TASK_BYTES + flows * FLOW_BYTES),
    )


def check_extent(experiment: Experiment, blueprint: Blueprint) -> None:
    """Refuse a run that would take days, or more memory than there is.

    Raises:
        InfeasibleError: it would; the message says what it is made of.
    """
    extent = extent_of(experiment, blueprint)
    made_of = (
        f"{extent.pipeline_tasks:,} tasks a pipeline, {experiment.pipelines:,} pipelines, "
        f"{extent.chunk_tasks:,} tasks of chunks, {experiment.uncertainty.draws:,} draws"
    )
    if extent.tasks > TASKS_MAX:
        raise InfeasibleError(
            f"run: at most {TASKS_MAX:.0e} tasks can be played, got {extent.tasks:.2e} ({made_of})"
        )
    if extent.held_bytes > BYTES_MAX:
        raise InfeasibleError(
            f"run: at most {format_quantity(BYTES_MAX, 'B')} can be held at once, "
            f"got {format_quantity(extent.held_bytes, 'B', 3)} ({made_of})"
        )
