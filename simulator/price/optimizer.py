"""Seconds of the end of a step: gradient collectives and the optimizer's kernels in turn.

Kernels have the whole chip by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.price.collectives import LinkRates, ring_s, scalar_sum_s
from simulator.price.kernels import KernelPricer
from simulator.price.rate_parts import only_latency, only_nics
from workloads.layers.optimizer import GradientSync, OptimizerStep
from workloads.ops import Op

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RingSeconds:
    """Rings that every rank runs one after another.

    Attributes:
        names: of the rings, for people.
        seconds: (rings, pp) seconds by pipeline rank.
        moving_s: (rings, pp) of these, the seconds in which bytes move: all but latency.
        nic_s: (rings, pp) seconds that a GPU's NIC would need by itself.
    """

    names: tuple[str, ...]
    seconds: Floats
    moving_s: Floats
    nic_s: Floats

    def slowed(self, nic: Floats) -> "RingSeconds":
        """Return the rings with NICs that take (pp,) `nic` times as long."""
        extra_s = np.maximum(self.nic_s * nic - self.moving_s, 0.0)
        whole_s, moving_s = self.seconds + extra_s, self.moving_s + extra_s
        return RingSeconds(self.names, whole_s, moving_s, self.nic_s * nic)


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerSeconds:
    """What a rank does after its last chunk: rings, kernels, rings.

    Attributes:
        reduce, gather: of gradients and of weights.
        kernels_s: (pp,) seconds between them, the sum of the gradient's norm over ranks included.
    """

    reduce: RingSeconds
    kernels_s: Floats
    gather: RingSeconds

    @property
    def collectives_s(self) -> Floats:
        """(pp,) seconds of all rings."""
        rings = np.concatenate([self.reduce.seconds, self.gather.seconds])
        return np.array([sum(own) for own in rings.T.tolist()])

    def seconds(self, kernels: Floats | float = 1.0, links: Floats | float = 1.0) -> Floats:
        """Return (pp,) seconds.

        Args:
            kernels, links: (pp,) slowdowns of the slowest member; rings and updates take them.
        """
        return np.asarray(self.collectives_s * links + self.kernels_s * kernels)

    def slowed(self, nic: Floats) -> "OptimizerSeconds":
        """Return the end of a step with NICs that take (pp,) `nic` times as long."""
        return OptimizerSeconds(self.reduce.slowed(nic), self.kernels_s, self.gather.slowed(nic))


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
    norm_s = [scalar_sum_s(rates, s.norm.members, s.norm.members_per_node) for s in steps]
    kernels_s = [sum(next(each_s) for _ in step.update) for step in steps]
    return OptimizerSeconds(
        _rings([step.reduce for step in steps], rates, gpus_per_node),
        np.array(kernels_s) + norm_s,
        _rings([step.gather for step in steps], rates, gpus_per_node),
    )


def _rings(
    by_rank: Sequence[Sequence[GradientSync]], rates: LinkRates, gpus_per_node: int
) -> RingSeconds:
    """Return the seconds of rings, of which all ranks run equally many."""

    def seconds(links: LinkRates) -> Floats:
        return np.array(
            [[_ring_s(links, sync, gpus_per_node) for sync in own] for own in by_rank]
        ).T

    names = tuple(sync.name for sync in by_rank[0])
    whole_s, latency_s = seconds(rates), seconds(only_latency(rates))
    return RingSeconds(names, whole_s, whole_s - latency_s, seconds(only_nics(rates)))


def _ring_s(rates: LinkRates, sync: GradientSync, gpus_per_node: int) -> float:
    replicas = sync.replicas
    return ring_s(rates, sync.bytes, replicas.members, replicas.members_per_node, gpus_per_node)
