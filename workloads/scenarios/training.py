"""One training step as a program: layers of every stage, steps of every pipeline rank.

All pipelines do the same; the ranks of an expert group differ only in the load of their experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from hwmodels.errors import InfeasibleError
from hwmodels.formats import NumberFormat
from workloads.batch import BatchSpec
from workloads.blocks import Site
from workloads.experts import ExpertGroup
from workloads.homes import Holders, Home, homes_of, shared_tables
from workloads.layers import Layer
from workloads.memory import memory_terms, rank_parameters
from workloads.model import ModelSpec
from workloads.ops import Comm
from workloads.optimizer import OptimizerStep, optimizer_step
from workloads.parallel import ParallelPlan
from workloads.phases import PHASES
from workloads.placement import Placement
from workloads.program import Program
from workloads.recipes import Recipe
from workloads.replicas import held_experts
from workloads.routing import RoutingStatistics, copies_on, placed_copies
from workloads.scenarios.training_parts import distinct_parts, load_table
from workloads.schedules.step import Step as TrainingStep
from workloads.stages import stage_layers
from workloads.steps import step_table

MICROBATCHES_MAX = 10_000
CHUNKS_MAX = 500_000  # of a pipeline: each is an object until it is numbered
ACTIVATION_BYTES = 2  # BF16 residual stream between stages


@dataclass(frozen=True, eq=False)
class Outline:
    """A training step before any of its steps is listed: all that its program is made of.

    Attributes:
        placement, routing, homes, tables, stages, microbatches, expert_group: as of `Program`.
    """

    placement: Placement
    routing: tuple[RoutingStatistics, ...]
    homes: tuple[Home, ...]
    tables: tuple[Holders, ...]
    stages: tuple[tuple[Layer, ...], ...]
    microbatches: int
    expert_group: ExpertGroup | None = None


def training_outline(
    model: ModelSpec,
    plan: ParallelPlan,
    batch: BatchSpec,
    *,
    gpus: int,
    gpus_per_node: int,
    recipe: Recipe,
    dispatch: NumberFormat,
    combine: NumberFormat,
    routed_nodes_max: int | None,
    nic_codec: bool = False,
    expert_group: ExpertGroup | None = None,
) -> Outline:
    """Check a training step and return its outline; arguments and errors as `training_program`."""
    plan.check(model, gpus)
    microbatches = _microbatches(plan, batch, gpus)
    placement = Placement(plan.mesh(gpus), gpus_per_node)
    routing = _routing(model, placement, routed_nodes_max, expert_group)
    local = model.moe.routed_experts // plan.ep if model.moe else 0
    site = Site(
        model.hidden,
        batch.microbatch_sequences,
        plan.tokens_of_rank(batch),
        recipe,
        local_experts=expert_group.local_experts if expert_group else local,
        gpus_per_token=max((statistics.gpus_per_token for statistics in routing), default=0.0),
        dispatch=dispatch,
        combine=combine,
        nic_codec=nic_codec,
        tp=plan.tp,
        cp=plan.cp,
        etp=plan.etp,
        sequence_parallel=plan.sequence_parallel,
        cp_comm=plan.cp_comm,
    )
    stages = stage_layers(model, site, plan.stages(model))
    homes = homes_of(plan)
    tables = shared_tables(homes, stages)
    return Outline(placement, routing, homes, tables, stages, microbatches, expert_group)


@lru_cache(maxsize=8)
def training_program(
    model: ModelSpec,
    plan: ParallelPlan,
    batch: BatchSpec,
    *,
    gpus: int,
    gpus_per_node: int,
    recipe: Recipe,
    dispatch: NumberFormat,
    combine: NumberFormat,
    routed_nodes_max: int | None,
    nic_codec: bool = False,
    expert_group: ExpertGroup | None = None,
) -> Program:
    """Lay one training step of `model` over `gpus` GPUs; the same one for the same arguments.

    Args:
        recipe: number formats, and the kernels around products.
        dispatch, combine: number formats of the expert exchange on the wire, `nic_codec` by NICs.
        routed_nodes_max: nodes one token's experts may sit on; None leaves it to the model.
        expert_group: where experts lie and what they take, as of `Program`.

    Raises:
        SpecError: unknown schedule or unreadable layout.
        InfeasibleError: sizes that do not divide, a layout that does not hold the model, or too few
            micro-batches.
    """
    outline = training_outline(
        model,
        plan,
        batch,
        gpus=gpus,
        gpus_per_node=gpus_per_node,
        recipe=recipe,
        dispatch=dispatch,
        combine=combine,
        routed_nodes_max=routed_nodes_max,
        nic_codec=nic_codec,
        expert_group=expert_group,
    )
    return _program(outline, model, plan, batch, recipe)


def _program(
    outline: Outline, model: ModelSpec, plan: ParallelPlan, batch: BatchSpec, recipe: Recipe
) -> Program:
    """List the steps of an outline."""
    stages, microbatches = outline.stages, outline.microbatches
    table = step_table(plan.pipeline_schedule.steps(plan.pp, microbatches, plan.vpp))
    ends = _rank_ends(outline, table.steps, plan.zero, recipe)
    parts, part = distinct_parts(table, stages)
    return Program(
        scenario="training",
        phases=PHASES,
        placement=outline.placement,
        parts=parts,
        part=part,
        table=table,
        message=stage_message(model, plan, batch),
        loads=load_table(table, stages, parts, part, microbatches),
        routing=outline.routing,
        experts=model.moe.routed_experts if model.moe else 0,
        top_k=model.moe.top_k if model.moe else 0,
        homes=outline.homes,
        tables=outline.tables,
        end=tuple(end for end, _ in ends),
        memory_bytes=tuple(memory_bytes for _, memory_bytes in ends),
        stages=stages,
        microbatches=microbatches,
        expert_group=outline.expert_group,
    )


def stage_message(model: ModelSpec, plan: ParallelPlan, batch: BatchSpec) -> Comm:
    """Return what a rank of a stage hands on: activations, or gradients, of a micro-batch. Without
    sequence parallelism each tensor-parallel rank sends all of it to its own like.
    """
    shared = plan.cp * (plan.tp if plan.sequence_parallel else 1)
    tokens = batch.microbatch_tokens // shared
    size_bytes = float(tokens * model.hidden * ACTIVATION_BYTES)
    return Comm("message", "send", ("pp",), size_bytes)


def _routing(
    model: ModelSpec,
    placement: Placement,
    routed_nodes_max: int | None,
    group: ExpertGroup | None,
) -> tuple[RoutingStatistics, ...]:
    if model.moe is None:
        return ()
    if group is not None and group.slots is not None:
        return tuple(placed_copies(model.moe, members, group) for members in placement.layouts)
    return tuple(copies_on(model.moe, members, routed_nodes_max) for members in placement.layouts)


def _rank_ends(
    outline: Outline, steps: Sequence[Sequence[TrainingStep]], zero: int, recipe: Recipe
) -> list[tuple[OptimizerStep, dict[str, float]]]:
    """Return what each pipeline rank does at the end of a step, and its memory by term."""
    home_of = {rank: home for home in outline.homes for rank in home.ranks}
    return [
        _rank_end(outline, home_of[rank], rank, program, zero, recipe)
        for rank, program in enumerate(steps)
    ]


def _rank_end(
    outline: Outline,
    home: Home,
    rank: int,
    program: Sequence[TrainingStep],
    zero: int,
    recipe: Recipe,
) -> tuple[OptimizerStep, dict[str, float]]:
    """Return what pipeline rank `rank` does at the end of a step, and its memory by term."""
    stages, placement = outline.stages, outline.placement
    dense = placement.dense_replicas(home.ranks)
    experts = placement.expert_replicas(home.ranks)
    parameters = rank_parameters(stages, home.stages)
    shared = [table.seen_from(rank, placement) for table in outline.tables]
    return (
        optimizer_step(
            parameters,
            dense,
            experts,
            placement.everyone,
            zero,
            shared,
            held_experts(stages, home.stages, experts, outline.expert_group),
            recipe=recipe,
        ),
        memory_terms(
            stages,
            home.stages,
            program,
            dense.shape[1],
            experts.shape[1],
            zero,
            recipe,
            outline.expert_group,
        ),
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
    stages = plan.pipeline_schedule.stages(plan.pp, plan.vpp)
    if count * stages > CHUNKS_MAX:
        raise InfeasibleError(
            f"batch.sequences: at most {CHUNKS_MAX:,} micro-batches times stages can be simulated, "
            f"got {count:,} on {stages:,} stages"
        )
    return count
