"""Seconds of the end of a step: gradient collectives and the optimizer's kernels in turn.

Kernels have the whole chip by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwmodels.arrays import Floats
from simulator.price.collectives import LinkRates, RingParts, ring_parts, scalar_sum_s
from simulator.price.kernels import KernelPricer
from workloads.ops import Op
from workloads.optimizer import GradientSync, OptimizerStep


@dataclass(frozen=True, slots=True, eq=False)
class RingSeconds:
    """Rings that every rank runs one after another.

    Attributes:
        names: of the rings, for people.
        latency_s: (rings, pp) seconds before bytes move, by pipeline rank.
        nic_s, nvlink_s: (rings, pp) seconds that bytes need of a GPU's NIC, and of its NVLink, each
            by itself.
    """

    names: tuple[str, ...]
    latency_s: Floats
    nic_s: Floats
    nvlink_s: Floats

    @property
    def moving_s(self) -> Floats:
        """(rings, pp) seconds in which bytes move."""
        return np.maximum(self.nic_s, self.nvlink_s)

    @property
    def seconds(self) -> Floats:
        """(rings, pp) all of them."""
        return self.moving_s + self.latency_s

    def slowed(self, nic: Floats | float, nvlink: Floats | float = 1.0) -> "RingSeconds":
        """Return the rings with NICs and NVLink that take (pp,) times as long."""
        return replace(self, nic_s=self.nic_s * nic, nvlink_s=self.nvlink_s * nvlink)


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerSeconds:
    """What a rank does after its last step: rings, kernels, rings.

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
        return np.array([sum(rank_s) for rank_s in rings.T.tolist()])

    def seconds(
        self,
        kernels: Floats | float = 1.0,
        nic: Floats | float = 1.0,
        nvlink: Floats | float = 1.0,
    ) -> Floats:
        """Return (pp,) seconds.

        Args:
            kernels, nic, nvlink: (pp,) slowdowns of the slowest member; updates and rings take
                them.
        """
        rings_s = self.slowed(nic, nvlink).collectives_s
        return np.asarray(rings_s + self.kernels_s * kernels)

    def slowed(self, nic: Floats | float, nvlink: Floats | float = 1.0) -> "OptimizerSeconds":
        """Return the end of a step with NICs and NVLink that take (pp,) times as long."""
        before, after = (rings.slowed(nic, nvlink) for rings in (self.reduce, self.gather))
        return OptimizerSeconds(before, self.kernels_s, after)


def optimizer_seconds(
    steps: tuple[OptimizerStep, ...],
    update_ops: tuple[Op, ...],
    whole_chip: KernelPricer,
    rates: LinkRates,
) -> OptimizerSeconds:
    """Return the seconds of the end of a step.

    Args:
        steps: by pipeline rank; update_ops: their kernels, one rank after another.
        whole_chip: prices on all SMs.
    """
    costs = whole_chip.price(update_ops)
    op_s = iter((costs.duration_s[:, 0] + costs.gap_s).tolist())
    norm_s = [scalar_sum_s(rates, step.norm) for step in steps]
    kernels_s = [sum(next(op_s) for _ in step.update) for step in steps]
    return OptimizerSeconds(
        _rings([step.reduce for step in steps], rates),
        np.array(kernels_s) + norm_s,
        _rings([step.gather for step in steps], rates),
    )


def _rings(by_rank: Sequence[Sequence[GradientSync]], rates: LinkRates) -> RingSeconds:
    """Return the seconds of rings, of which all ranks run equally many."""
    names = tuple(sync.name for sync in by_rank[0])
    parts = np.array([[_slowest_ring(rates, sync) for sync in syncs] for syncs in by_rank])
    return RingSeconds(names, *parts.transpose(2, 1, 0))


def _slowest_ring(rates: LinkRates, sync: GradientSync) -> RingParts:
    """Return the most that any of the rings side by side needs, part by part."""
    rings = (ring_parts(rates, sync.bytes, replicas) for replicas in sync.groups)
    return RingParts(*map(max, zip(*rings, strict=True)))
