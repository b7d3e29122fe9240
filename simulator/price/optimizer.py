"""Seconds of the end of a step: gradient collectives and the optimizer's kernels in turn.

Kernels have the whole chip by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.network.comm_times import CommTimes, Slow
from simulator.network.machine import Machine
from simulator.network.price import comm_s
from simulator.price.kernels import KernelPricer, price_kernels
from workloads.ops import Comm, Op
from workloads.optimizer import GradientSync, OptimizerStep

NORM = Comm("gradient norm", "all_reduce", (), 4.0)
"""A number in FP32, which all ranks sum."""


@dataclass(frozen=True, slots=True, eq=False)
class RingSeconds(CommTimes):
    """(..., rings, pp) seconds of reduce-scatters or all-gathers that every rank runs one after
    another, by pipeline rank; of machines side by side with their axis first.

    Attributes:
        names: of the rings, for people.
    """

    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerSeconds:
    """What a rank does after its last step: rings, kernels, rings; of machines side by side with
    their axis first.

    Attributes:
        reduce, gather: of gradients and of weights.
        kernels_s: (pp,) seconds between them, the sum of the gradient's norm over ranks included.
    """

    reduce: RingSeconds
    kernels_s: Floats
    gather: RingSeconds

    @property
    def collectives_s(self) -> Floats:
        """(..., pp) seconds of all rings."""
        rings = np.concatenate([self.reduce.seconds, self.gather.seconds], axis=-2)
        total_s = np.zeros((*rings.shape[:-2], rings.shape[-1]))
        for number in range(rings.shape[-2]):  # in turn: a sum in pairs would differ in bits
            total_s += rings[..., number, :]
        return total_s

    def seconds(
        self,
        kernels: Floats | float = 1.0,
        nic: Floats | float = 1.0,
        nvlink: Floats | float = 1.0,
    ) -> Floats:
        """Return (..., pp) seconds.

        Args:
            kernels, nic, nvlink: (pp,) slowdowns of the slowest member; updates and rings take
                them.
        """
        rings_s = self.slowed(nic, nvlink).collectives_s
        return np.asarray(rings_s + self.kernels_s * kernels)

    def slowed(self, nic: Floats | float, nvlink: Floats | float = 1.0) -> "OptimizerSeconds":
        """Return the end of a step with NICs and NVLink that take (pp,) times as long."""
        slow = Slow(nic, nvlink)
        before, after = (rings.slowed(slow) for rings in (self.reduce, self.gather))
        return OptimizerSeconds(before, self.kernels_s, after)


@dataclass(frozen=True, slots=True, eq=False)
class EndComms:
    """What ranks pass each other at the end of a step; of machines side by side with their axis
    first.

    Attributes:
        norm_s: seconds of the sum of the gradient's norm.
    """

    reduce: RingSeconds
    norm_s: Floats
    gather: RingSeconds

    def around(self, kernels_s: Floats) -> OptimizerSeconds:
        """Return the end of a step, given (..., pp) seconds of its kernels."""
        return OptimizerSeconds(self.reduce, kernels_s + self.norm_s, self.gather)


def end_comms(steps: tuple[OptimizerStep, ...], machine: Machine) -> EndComms:
    """Return the communication of the end of a step.

    Args:
        steps: by pipeline rank.
        machine: whose links rings take.
    """
    return EndComms(
        _rings(tuple(step.reduce for step in steps), machine),
        comm_s(NORM, steps[0].norm, machine).seconds,
        _rings(tuple(step.gather for step in steps), machine),
    )


def end_kernels_s(
    steps: tuple[OptimizerStep, ...],
    update_ops: tuple[Op, ...],
    whole_chips: Sequence[KernelPricer],
) -> Floats:
    """Return (machines, pp) seconds of the kernels of the end of a step on several machines.

    Args:
        steps: by pipeline rank; update_ops: their kernels, one rank after another.
        whole_chips: prices on all SMs.
    """
    costs = price_kernels(whole_chips, update_ops)
    first = np.cumsum([0, *(len(step.update) for step in steps)])[:-1]
    op_s = costs.duration_s[..., 0] + costs.gap_s
    return np.asarray(np.add.reduceat(op_s, first, axis=1))


def _rings(by_rank: tuple[tuple[GradientSync, ...], ...], machine: Machine) -> RingSeconds:
    """Return the seconds of rings, of which all ranks run equally many: of the slowest group.

    The rings of one stage's ranks start at once; those of other stages are not met.
    """
    parts = np.zeros((4, *machine.beside, len(by_rank[0]), len(by_rank)))
    for number, syncs in enumerate(_by_shape(by_rank)):
        for sync in syncs:
            times = comm_s(sync.comm, sync.groups, machine, sync.bytes)
            slowest = times.seconds.argmax(axis=-1)[..., None]
            columns = times.latency_s, times.nic_s, times.nvlink_s, np.asarray(times.in_turn_s)
            for part, column in zip(parts, columns, strict=True):
                found = np.take_along_axis(column, slowest, axis=-1)[..., 0]
                part[..., number, sync.ranks] = found
    latency_s, nic_s, nvlink_s, in_turn_s = parts
    names = tuple(sync.name for sync in by_rank[0])
    return RingSeconds(latency_s, nic_s, nvlink_s, in_turn_s, names=names)


class _Syncs(NamedTuple):
    """One collective of several pipeline ranks whose groups are of one shape.

    Attributes:
        comm: of one byte; bytes: (ranks,) by which it is multiplied.
        groups: (ranks, groups, members) of each of `ranks`, pipeline ranks.
    """

    comm: Comm
    bytes: Floats
    groups: Ints
    ranks: list[int]


@lru_cache(maxsize=32)
def _by_shape(by_rank: tuple[tuple[GradientSync, ...], ...]) -> tuple[tuple[_Syncs, ...], ...]:
    """Return each collective, for all pipeline ranks whose groups are of one shape at once."""
    rings = []
    for syncs in zip(*by_rank, strict=True):
        shapes: dict[tuple[int, ...], list[int]] = {}
        for rank, sync in enumerate(syncs):
            shapes.setdefault(sync.groups.shape, []).append(rank)
        rings.append(tuple(_joined([syncs[rank] for rank in at], at) for at in shapes.values()))
    return tuple(rings)


def _joined(syncs: list[GradientSync], ranks: list[int]) -> _Syncs:
    groups = np.stack([sync.groups for sync in syncs])
    groups.flags.writeable = False
    sizes = np.array([sync.bytes for sync in syncs])
    return _Syncs(Comm(syncs[0].name, syncs[0].kind, (), 1.0), sizes, groups, ranks)
