"""How much a run will play and hold, told before it is played.

Tasks are those that engines play, all draws of sampled inputs together. Bytes are those held at
once: of every task its duration, slowdown, begin and end, as floats; of every flow of a network
that is played its route and what fair shares need.
"""

from dataclasses import dataclass

from hwmodels.errors import InfeasibleError
from hwmodels.units import format_quantity
from simulator.driver.explicit import MOVING_TASK_BYTES, TILE_RANKS
from simulator.experiment import Experiment
from simulator.lower.lowered import Lowered
from simulator.lower.spread import drawn_units

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
        part_tasks: of all distinct parts, on all ranks of a group, in all draws of their loads.
        tasks: of the whole run.
        held_bytes: at once.
    """

    pipeline_tasks: int
    part_tasks: int
    tasks: int
    held_bytes: float


def extent_of(experiment: Experiment, lowered: Lowered) -> Extent:
    """Return what a run of an experiment plays."""
    ranks, plan, load = experiment.ranks, experiment.plan, experiment.ranks.expert_load
    mesh = lowered.program.placement.mesh
    shared, pipeline_tasks = experiment.communication.nics == "shared", lowered.tasks_of_pipeline
    draws = ranks.draws if load.is_drawn else 1
    played = plan.ep if load.is_drawn or load.kind in ("matrix", "measured") else 1
    part_tasks = lowered.tasks_of_parts * draws * played
    units = drawn_units(ranks, lowered.program)
    held = part_tasks + draws * sum(lowered.loads) * units
    tasks = part_tasks + len(lowered.pipeline.graph)
    if experiment.is_explicit:
        times = 2 if shared else 1  # with shared NICs and with separate ones
        tasks += pipeline_tasks * (mesh.ranks // mesh.size("pp")) * times
        if shared:
            held += pipeline_tasks * plan.ep * MOVING_TASK_BYTES // TASK_BYTES
        held += pipeline_tasks * max(plan.ep, TILE_RANKS) + 4 * mesh.ranks
        held += lowered.slots_of_pipeline * units
    elif shared:
        tasks += pipeline_tasks
        held += pipeline_tasks
    flows = 0
    if experiment.cluster.faults or experiment.unlike_links:
        flows = mesh.ranks * max(plan.pp, plan.ep // experiment.cluster.node.gpus)
    return Extent(
        pipeline_tasks,
        part_tasks,
        tasks * (1 + experiment.uncertainty.draws),
        float(held * TASK_BYTES + flows * FLOW_BYTES),
    )


def check_extent(experiment: Experiment, lowered: Lowered) -> None:
    """Refuse a run that would take days, or more memory than there is.

    Raises:
        InfeasibleError: it would; the message says what it is made of.
    """
    extent = extent_of(experiment, lowered)
    if extent.tasks <= TASKS_MAX and extent.held_bytes <= BYTES_MAX:
        return
    made_of = (
        f"{extent.pipeline_tasks:,} tasks a pipeline, {experiment.pipelines:,} pipelines, "
        f"{extent.part_tasks:,} tasks of parts, {experiment.uncertainty.draws:,} draws"
    )
    if extent.tasks > TASKS_MAX:
        raise InfeasibleError(
            f"run: at most {TASKS_MAX:.0e} tasks can be played, got {extent.tasks:.2e} ({made_of})"
        )
    raise InfeasibleError(
        f"run: at most {format_quantity(BYTES_MAX, 'B')} can be held at once, "
        f"got {format_quantity(extent.held_bytes, 'B', 3)} ({made_of})"
    )
