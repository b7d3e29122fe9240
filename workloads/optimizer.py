"""The end of a step: reduce gradients, update the weights, gather them again.

FP32 gradients are reduce-scattered over the replicas of each parameter and BF16 weights
all-gathered (ZeRO-1, arXiv 1910.02054); AdamW keeps the states that the recipe says. Between them
gradients are clipped by their norm over all parameters (arXiv 2412.19437 §4.2): one pass reads
them, all ranks sum a scalar, and one pass scales them, as Megatron-LM does where the norm is above
its limit. Nothing is hidden behind the tail of the pipeline.

Redundant experts (`workloads.experts`) have a gradient on each rank that holds a replica. These
ranks and those that hold the same slots are the group that reduces it, and gathers the weights. A
rank is in several such groups; those that share none run side by side, one expert after another, as
many as the rank with most of them has.

A table that stages on different ranks hold, as tied embeddings do, has a gradient on each. Once
reduced over the replicas of its own stage it is all-reduced between the holders of each pipeline,
the whole table in FP32 with or without ZeRO-1, though a shard would do: so does Megatron-LM
(NVIDIA/Megatron-LM, megatron/core/distributed: `_allreduce_word_embedding_grads` in
finalize_model_grads.py reduces the whole `main_grad` over the embedding group; as
param_and_grad_buffer.py says at `_does_param_require_new_bucket`, after the reduce-scatter).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hwmodels.arrays import Ints
from workloads.layers import Parameters
from workloads.ops import MemoryOp
from workloads.recipes import Recipe

Kind = Literal["reduce_scatter", "all_gather"]
REDUCE: Final = "reduce_scatter"
GATHER: Final = "all_gather"
SCATTER = "reduce-scatter"
HALVES: tuple[tuple[str, Kind], ...] = ((SCATTER, REDUCE), ("all-gather", GATHER))
"""Of an all-reduce."""


@dataclass(frozen=True, slots=True, eq=False)
class GradientSync:
    """One reduce-scatter or all-gather over the replicas of some parameters.

    Attributes:
        bytes: of the whole buffer.
        groups: (groups, members) ranks that do it side by side; it is over when the slowest group
            is.
    """

    name: str
    kind: Kind
    bytes: float
    groups: Ints


@dataclass(frozen=True, slots=True, eq=False)
class HeldExperts:
    """Experts that lie on equally many ranks of an expert group.

    Attributes:
        holders: ranks of a group that hold each: 1 without redundancy.
        parameters: of them on the rank that has most; 0 where a pipeline rank has none.
        groups: all ranks that hold the same, as in `GradientSync`.
    """

    holders: int
    parameters: float
    groups: Ints


@dataclass(frozen=True, slots=True, eq=False)
class SharedTable:
    """A table that more than one stage uses, as a rank sees it.

    Attributes:
        parameters: of it; 0 on a rank that does not hold it.
        groups: the ranks that hold it, one of each home of stages, as in `GradientSync`.
    """

    name: str
    parameters: float
    groups: Ints


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerStep:
    """What one rank does after its last step: collectives before, kernels, collectives after.

    Attributes:
        norm: (1, ranks) that sum a number.
    """

    reduce: tuple[GradientSync, ...]
    norm: Ints
    update: tuple[MemoryOp, ...]
    gather: tuple[GradientSync, ...]


def optimizer_step(
    parameters: Parameters,
    dense: Ints,
    experts: Ints,
    everyone: Ints,
    zero: int,
    shared: Sequence[SharedTable] = (),
    held: Sequence[HeldExperts] = (),
    *,
    recipe: Recipe,
) -> OptimizerStep:
    """Return the optimizer step of a rank that holds `parameters`.

    Args:
        dense, experts: ranks that hold the same parameters, as in `GradientSync`.
        everyone: (1, ranks) all that train the model.
        zero: 1 updates a rank's shard and gathers the rest; 0 updates everything everywhere, so
            gradients must be gathered instead (an all-reduce in two halves).
        shared: tables that ranks with other stages hold too, the same ones on every rank.
        held: experts by their holders, the same numbers of them on every rank, where some are
            redundant.
        recipe: says what a parameter takes, and which copies are written of it.
    """
    of_one = recipe.parameter
    groups = (("dense", parameters.replicated, dense), ("experts", parameters.routed, experts))
    rings = groups if not held else (groups[0], *map(_ring, held))
    gathered = of_one.weight if zero else of_one.gradient
    updated = sum(size / (who.shape[1] if zero else 1) for _, size, who in groups)
    return OptimizerStep(
        reduce=(
            *(
                GradientSync(f"{SCATTER} {name} gradients", REDUCE, size * of_one.gradient, who)
                for name, size, who in rings
            ),
            *(
                GradientSync(
                    f"{half} {table.name} gradients between stages",
                    kind,
                    table.parameters * of_one.gradient,
                    table.groups,
                )
                for table in shared
                for half, kind in HALVES
            ),
        ),
        norm=everyone,
        update=_update(parameters, updated, recipe),
        gather=tuple(
            GradientSync(
                f"all-gather {name} {'weights' if zero else 'gradients'}",
                GATHER,
                size * gathered,
                who,
            )
            for name, size, who in rings
        ),
    )


def _update(parameters: Parameters, updated: float, recipe: Recipe) -> tuple[MemoryOp, ...]:
    """Return the kernels of a rank that updates so many of its parameters."""
    of_one = recipe.parameter
    return (
        MemoryOp("gradient norm", "elementwise", updated * of_one.gradient, launches=2),
        MemoryOp("clip gradients", "elementwise", updated * 2 * of_one.gradient, launches=2),
        MemoryOp("adamw sweep", "elementwise", updated * of_one.swept),
        MemoryOp("clear gradients", "elementwise", parameters.total * of_one.gradient),
        *recipe.weight_casts(parameters.linear),
    )


def _ring(held: HeldExperts) -> tuple[str, float, Ints]:
    """Return name, parameters and groups of the rings of some experts."""
    name = "experts" if held.holders == 1 else f"experts on {held.holders} ranks"
    return name, held.parameters, held.groups
