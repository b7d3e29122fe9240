"""The end of a step: reduce gradients, update the weights, gather them again.

FP32 gradients are reduce-scattered over the replicas of each parameter and BF16 weights
all-gathered (ZeRO-1, arXiv 1910.02054); AdamW with FP32 master weights and BF16 moments
(arXiv 2412.19437 §3.3.3). Between them gradients are clipped by their norm over all parameters
(§4.2 there): one pass reads them, all ranks sum a scalar, and one pass scales them, as Megatron-LM
does where the norm is above its limit. Nothing is hidden behind the tail of the pipeline.
"""

from dataclasses import dataclass

from workloads.layers import Parameters
from workloads.ops import MemoryOp

GRADIENT_BYTES, WEIGHT_BYTES, FP8_WEIGHT_BYTES = 4, 2, 1
STATE_BYTES = 4 + 2 + 2  # FP32 master weight, two BF16 moments
SWEEP_BYTES = (GRADIENT_BYTES + STATE_BYTES) + (STATE_BYTES + WEIGHT_BYTES)  # read, then written


@dataclass(frozen=True, slots=True)
class Replicas:
    """Ranks that hold a parameter: `members`, `members_per_node` of them in one node."""

    members: int
    members_per_node: int


@dataclass(frozen=True, slots=True)
class GradientSync:
    """One ring reduce-scatter or all-gather over the replicas of some parameters."""

    name: str
    bytes: float
    replicas: Replicas


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """What one rank does after its last chunk: collectives before, kernels, collectives after.

    The ranks of `norm` sum a scalar.
    """

    reduce: tuple[GradientSync, ...]
    norm: Replicas
    update: tuple[MemoryOp, ...]
    gather: tuple[GradientSync, ...]


def optimizer_step(
    parameters: Parameters, dense: Replicas, experts: Replicas, everyone: Replicas, zero: int
) -> OptimizerStep:
    """Return the optimizer step of a rank that holds `parameters`.

    Args:
        everyone: all ranks that train the model.
        zero: 1 updates a rank's shard and gathers the rest; 0 updates everything everywhere, so
            gradients must be gathered instead (an all-reduce in two halves).
    """
    groups = (("dense", parameters.replicated, dense), ("experts", parameters.routed, experts))
    gathered = WEIGHT_BYTES if zero else GRADIENT_BYTES
    updated = sum(size / (who.members if zero else 1) for _, size, who in groups)
    return OptimizerStep(
        reduce=tuple(
            GradientSync(f"reduce-scatter {name} gradients", size * GRADIENT_BYTES, who)
            for name, size, who in groups
        ),
        norm=everyone,
        update=(
            MemoryOp("gradient norm", "elementwise", updated * GRADIENT_BYTES, launches=2),
            MemoryOp("clip gradients", "elementwise", updated * 2 * GRADIENT_BYTES, launches=2),
            MemoryOp("adamw sweep", "elementwise", updated * SWEEP_BYTES),
            MemoryOp("clear gradients", "elementwise", parameters.total * GRADIENT_BYTES),
            MemoryOp(
                "cast weights to FP8",
                "cast",
                (parameters.dense + parameters.routed) * (WEIGHT_BYTES + FP8_WEIGHT_BYTES),
            ),
        ),
        gather=tuple(
            GradientSync(
                f"all-gather {name} {'weights' if zero else 'gradients'}", size * gathered, who
            )
            for name, size, who in groups
        ),
    )
