"""One training step of one pipeline: layers of every stage, program of every pipeline rank.

All pipelines do the same; the ranks of an expert group differ only in the load of their experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hwmodels.errors import InfeasibleError
from hwmodels.formats import NumberFormat
from workloads.batch import BatchSpec
from workloads.homes import Holders, Home, homes_of, shared_tables
from workloads.layers import Layer, LayerInputs
from workloads.layers.build import stage_layers
from workloads.layers.optimizer import OptimizerStep, optimizer_step
from workloads.layout import Layout
from workloads.memory import memory_terms, rank_parameters
from workloads.model import ModelSpec
from workloads.parallel import ParallelPlan
from workloads.placement import Placement
from workloads.routing import RoutingStatistics, copies_on
from workloads.schedules.step import Program, Step

MICROBATCHES_MAX = 10_000
CHUNKS_MAX = 500_000  # of a pipeline: each is an object until it is numbered
ACTIVATION_BYTES = 2  # BF16 residual stream between stages


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """What the ranks of one pipeline do.

    Attributes:
        layout, stages: units of every stage, and their layers.
        placement: where the ranks sit.
        homes: pipeline ranks that hold the same stages; tables: what several of them hold.
        program: steps of every pipeline rank, in order.
        message_bytes: activations (or gradients) handed from stage to stage.
        routing: copies a token costs in dispatch and combine, for each of `placement.layouts`; none
            without experts.
        optimizer: by pipeline rank, the end of the step.
        memory_bytes: by pipeline rank, bytes by term.
        microbatches: per pipeline.
    """

    layout: Layout
    stages: tuple[tuple[Layer, ...], ...]
    placement: Placement
    homes: tuple[Home, ...]
    tables: tuple[Holders, ...]
    program: Program
    message_bytes: float
    routing: tuple[RoutingStatistics, ...]
    optimizer: tuple[OptimizerStep, ...]
    memory_bytes: tuple[dict[str, float], ...]
    microbatches: int


def training_step(
    model: ModelSpec,
    plan: ParallelPlan,
    batch: BatchSpec,
    *,
    gpus: int,
    gpus_per_node: int,
    dispatch: NumberFormat,
    combine: NumberFormat,
    routed_nodes_max: int | None,
) -> TrainingStep:
    """Lay one step of `model` over `gpus` GPUs.

    Args:
        dispatch, combine: number formats of the expert exchange on the wire.
        routed_nodes_max: nodes one token's experts may sit on; None leaves it to the model.

    Raises:
        SpecError: unknown schedule or unreadable layout.
        InfeasibleError: sizes that do not divide, a layout that does not hold the model, too few
            micro-batches, or a model without training kernels.
    """
    plan.check(model, gpus)
    microbatches = _microbatches(plan, batch, gpus)
    placement = Placement(plan.mesh(gpus), gpus_per_node)
    routing = _routing(model, placement, routed_nodes_max)
    inputs = LayerInputs(
        model,
        sequences=batch.microbatch_sequences,
        length=batch.sequence_length,
        local_experts=model.moe.routed_experts // plan.ep if model.moe else 0,
        gpus_per_token=max((each.gpus_per_token for each in routing), default=0.0),
        dispatch=dispatch,
        combine=combine,
    )
    layout = plan.stages(model)
    stages = stage_layers(inputs, layout)
    program = plan.pipeline_schedule.steps(plan.pp, microbatches)
    homes = homes_of(plan)
    tables = shared_tables(homes, stages)
    home_of = {rank: home for home in homes for rank in home.ranks}
    ends = [
        _rank_end(stages, home_of[rank], rank, program[rank], placement, tables, plan.zero)
        for rank in range(plan.pp)
    ]
    return TrainingStep(
        layout=layout,
        stages=stages,
        placement=placement,
        homes=homes,
        tables=tables,
        program=program,
        message_bytes=float(batch.microbatch_tokens * model.hidden * ACTIVATION_BYTES),
        routing=routing,
        optimizer=tuple(optimizer for optimizer, _ in ends),
        memory_bytes=tuple(memory_bytes for _, memory_bytes in ends),
        microbatches=microbatches,
    )


def _routing(
    model: ModelSpec, placement: Placement, routed_nodes_max: int | None
) -> tuple[RoutingStatistics, ...]:
    if model.moe is None:
        return ()
    return tuple(copies_on(model.moe, members, routed_nodes_max) for members in placement.layouts)


def _rank_end(
    stages: Sequence[Sequence[Layer]],
    home: Home,
    rank: int,
    program: Sequence[Step],
    placement: Placement,
    tables: Sequence[Holders],
    zero: int,
) -> tuple[OptimizerStep, dict[str, float]]:
    """Return what pipeline rank `rank` does at the end of a step, and its memory by term."""
    dense = placement.dense_replicas(home.ranks)
    experts = placement.expert_replicas(home.ranks)
    parameters = rank_parameters(stages, home.stages)
    shared = [table.seen_from(rank, placement) for table in tables]
    return (
        optimizer_step(parameters, dense, experts, placement.everyone, zero, shared),
        memory_terms(stages, home.stages, program, dense, experts[0], zero),
    )


def _microbatches(plan: ParallelPlan, batch: BatchSpec, gpus: int) -> int:
    """Return the micro-batches of a pipeline, no more than can be played.

    Raises:
        InfeasibleError: the batch does not divide, or is too large.
    """
    count = plan.microbatches(batch, gpus)
    if count > MICROBATCHES_MAX:
        raise InfeasibleError(
            f"batch.sequences: at most {MICROBATCHES_MAX:,} micro-batches a pipeline can be "
            f"simulated, got {count:,}"
        )
    if count * plan.pp > CHUNKS_MAX:
        raise InfeasibleError(
            f"batch.sequences: at most {CHUNKS_MAX:,} micro-batches times stages can be simulated, "
            f"got {count:,} on {plan.pp:,} stages"
        )
    return count
