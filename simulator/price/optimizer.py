"""Seconds of the end of a step: gradient collectives and the optimizer's kernels in turn.

Kernels have the whole chip by then.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.price.collectives import LinkRates, ring_s
from simulator.price.kernels import KernelPricer
from workloads.layers.optimizer import GradientSync, OptimizerStep
from workloads.ops import Op

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerSeconds:
    """By pipeline rank: (pp,) seconds of its collectives, and of its kernels."""

    collectives_s: Floats
    kernels_s: Floats

    def seconds(self, kernels: Floats | float = 1.0, links: Floats | float = 1.0) -> Floats:
        """Return (pp,) seconds.

        Args:
            kernels, links: (pp,) slowdowns of the slowest member; rings and updates take them.
        """
        return np.asarray(self.collectives_s * links + self.kernels_s * kernels)


def optimizer_seconds(
    steps: tuple[OptimizerStep, ...],
    update_ops: tuple[Op, ...],
    whole_chip: KernelPricer,
    rates: LinkRates,
    gpus_per_node: int,
) -> OptimizerSeconds:
    """Return the seconds of the end of a step.

    Args:
        steps: by pipeline rank; update_ops: their kernels, one rank after another.
        whole_chip: prices on all SMs.
    """
    costs = whole_chip.price(update_ops)
    each_s = iter((costs.duration_s[:, 0] + costs.gap_s).tolist())

    def collective_s(sync: GradientSync) -> float:
        replicas = sync.replicas
        return ring_s(rates, sync.bytes, replicas.members, replicas.members_per_node, gpus_per_node)

    return OptimizerSeconds(
        np.array([sum(map(collective_s, (*step.reduce, *step.gather))) for step in steps]),
        np.array([sum(next(each_s) for _ in step.update) for step in steps]),
    )
