"""One training step of one pipeline: layers of every stage, program of every pipeline rank.

All pipelines do the same; the ranks of an expert group differ only in the load of their experts.
"""

from dataclasses import dataclass

from hwmodels.errors import InfeasibleError
from hwmodels.formats import NumberFormat
from workloads.batch import BatchSpec
from workloads.layers import Layer, LayerInputs
from workloads.layers.build import stage_layers
from workloads.layers.optimizer import OptimizerStep, Replicas, optimizer_step
from workloads.layout import Layout
from workloads.memory import memory_terms, rank_parameters
from workloads.model import ModelSpec
from workloads.parallel import ParallelPlan
from workloads.routing import RoutingStatistics, expected_copies
from workloads.schedules.step import Program

MICROBATCHES_MAX = 10_000
CHUNKS_MAX = 500_000  # of a pipeline: each is an object until it is numbered
ACTIVATION_BYTES = 2  # BF16 residual stream between stages


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """What the ranks of one pipeline do.

    Attributes:
        layout, stages: units of every stage, and their layers.
        program: steps of every pipeline rank, in order.
        message_bytes: activations (or gradients) handed from stage to stage.
        routing: copies a token costs in dispatch and combine; None without experts.
        optimizer: by pipeline rank, the end of the step.
        memory_bytes: by pipeline rank, bytes by term.
        microbatches: per pipeline.
    """

    layout: Layout
    stages: tuple[tuple[Layer, ...], ...]
    program: Program
    message_bytes: float
    routing: RoutingStatistics | None
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
    routing = None
    if model.moe is not None:
        routing = expected_copies(model.moe, plan.ep, gpus_per_node, routed_nodes_max)
    inputs = LayerInputs(
        model,
        sequences=batch.microbatch_sequences,
        length=batch.sequence_length,
        local_experts=model.moe.routed_experts // plan.ep if model.moe else 0,
        gpus_per_token=routing.gpus_per_token if routing else 0.0,
        dispatch=dispatch,
        combine=combine,
    )
    layout = plan.stages(model)
    stages = stage_layers(inputs, layout)
    program = plan.pipeline_schedule.steps(plan.pp, microbatches)
    held = [plan.stages_of_rank(rank) for rank in range(plan.pp)]
    mesh = plan.mesh(gpus)
    dense = Replicas(plan.dense_replicas(gpus), min(gpus_per_node, mesh.dp))
    in_node = min(mesh.edp, max(1, gpus_per_node // plan.ep))
    experts = Replicas(plan.expert_replicas(gpus), in_node)
    return TrainingStep(
        layout=layout,
        stages=stages,
        program=program,
        message_bytes=float(batch.microbatch_tokens * model.hidden * ACTIVATION_BYTES),
        routing=routing,
        optimizer=tuple(
            optimizer_step(rank_parameters(stages, own), dense, experts, plan.zero) for own in held
        ),
        memory_bytes=tuple(
            memory_terms(stages, own, steps, dense, experts, plan.zero)
            for own, steps in zip(held, program, strict=True)
        ),
        microbatches=microbatches,
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
