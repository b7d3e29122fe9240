"""Redundant experts at the end of a training step: who adds up which gradients."""

from collections.abc import Sequence

from hwmodels.arrays import Ints
from workloads.experts import ExpertGroup
from workloads.layers import Layer
from workloads.memory import routed_layers
from workloads.optimizer import HeldExperts


def held_experts(
    stages: Sequence[Sequence[Layer]],
    held: Sequence[int],
    same: Ints,
    group: ExpertGroup | None,
) -> tuple[HeldExperts, ...]:
    """Return the experts of the ranks that hold stages `held`, by how many ranks of a group hold
    them, for all numbers that there are in the model; none where no expert is redundant.

    Args:
        same: (ep, members) ranks that hold the same slots, by their place in a group.
        group: where experts lie.
    """
    if group is None or group.slots is None or group.slots.shape[1] == group.experts:
        return ()
    numbered = list(routed_layers(stages))
    counts = group.held([number for *_, number in numbered])
    here = [(layer, number) for stage, layer, number in numbered if stage in held]
    found = group.held([number for _, number in here])
    each = here[0][0].parameters.routed / group.local_experts if here else 0.0
    return tuple(
        HeldExperts(
            count,
            found[count].most * each if count in found else 0.0,
            same[found[count].ranks].reshape(len(found[count].ranks), -1)
            if count in found
            else same,
        )
        for count in counts
    )
