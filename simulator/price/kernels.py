"""Seconds for ops: from a kernel profile where there is one, else from the datasheet's roofline.

All ops of a list are priced at once, family by family, for all expert loads at once. Every price
says what it rests on (`basis`); nothing falls back silently: without a profile the whole run is
`roofline`, and what a profile has no family for is too, and says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec
from hwmodels.costs import KernelTime, Parameters, kernel_time_s
from hwmodels.profile import KernelProfile
from simulator.price.finite import check_finite
from workloads.ops import Gemm, Op
from workloads.shapes import column, cost_shape


@dataclass(frozen=True, slots=True)
class OpCosts:
    """Prices of a list of ops, as columns in its order.

    Attributes:
        duration_s: (ops, loads) seconds of the kernels at each expert load.
        gap_s: (ops,) idle seconds of the stream between their launches.
        flops, bytes: (ops,) at balanced load.
        bound: (ops,) what holds the op at the load nearest to balanced: compute, memory, latency,
            sustained.
        beside_factor: (ops,) slowdown when all of the op runs beside communication.
        basis: (ops,) what the price rests on.
    """

    duration_s: Floats
    gap_s: Floats
    flops: Floats
    bytes: Floats
    bound: NDArray[np.str_]
    beside_factor: Floats
    basis: tuple[str, ...]

    @property
    def total_s(self) -> Floats:
        """(loads,) seconds of all ops one after another, gaps included."""
        return np.asarray(self.duration_s.sum(axis=0) + self.gap_s.sum())


@dataclass(frozen=True, slots=True)
class KernelPricer:
    """Prices ops on `sms` SMs of one chip.

    Attributes:
        profile: fitted parameters, or None for the roofline of the datasheet.
    """

    chip: ChipSpec
    profile: KernelProfile | None
    sms: int

    @property
    def basis(self) -> str:
        """What prices rest on, for people."""
        if self.profile is None:
            return f"roofline of {self.chip.name}"
        if self.profile.chip != self.chip.name:
            return f"profile {self.profile.name}, transferred to {self.chip.name} by datasheet"
        return f"profile {self.profile.name}"

    def parameters(self, family: str) -> Parameters | None:
        """Return what prices a family; None for the roofline."""
        if self.profile is None or not self.profile.knows(family):
            return None
        return self.profile.parameters(family)

    def interference_factor(self, family: str) -> float:
        """Return the slowdown of a family beside communication; none where nothing was measured."""
        if self.profile is None or not self.profile.knows(family):
            return 1.0
        return self.profile.interference_factor(family)

    def basis_of(self, family: str) -> str:
        """What prices of a family rest on, for people."""
        if self.profile is None or self.profile.knows(family):
            return self.basis
        return (
            f"roofline of {self.chip.name}, as profile {self.profile.name} has no family {family}"
        )

    def price(self, ops: Sequence[Op], load: Floats | float = 1.0) -> OpCosts:
        """Return the prices of `ops`.

        Args:
            load: (loads,) expert load relative to balanced; scales routed ops only.

        Raises:
            InfeasibleError: an op takes no finite time.
        """
        load = np.atleast_1d(np.asarray(load, np.float64))
        duration_s = np.zeros((len(ops), len(load)))
        bound = np.full(len(ops), "latency", dtype="<U9")
        factor = np.ones(len(ops))
        ops = ops if isinstance(ops, tuple) else tuple(ops)  # a list could change under a cache
        for family, group, members in _by_family(ops):
            # What is not routed costs the same at every load.
            loads = load if group[0].routed else np.ones(1)
            parameters = self.parameters(family)
            times = _family_times(Same(self.chip), parameters, self.sms, group, loads.tobytes())
            duration_s[members] = times.time_s
            bound[members] = times.bound
            factor[members] = self.interference_factor(family)
        check_finite(
            duration_s,
            lambda place: f"seconds of {ops[place].name}, by {self.basis_of(ops[place].family)}",
        )
        launches = np.array([op.launches for op in ops], np.float64)
        return OpCosts(
            duration_s,
            gap_s=launches * (self.profile.launch_gap_s if self.profile else 0.0),
            flops=np.array([op.flops for op in ops]),
            bytes=np.array([op.bytes for op in ops], np.float64),
            bound=bound,
            beside_factor=factor,
            basis=tuple(self.basis_of(op.family) for op in ops),
        )


class Same:
    """Stands for an object in the key of a cache: equal to itself only, and kept alive by it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


@lru_cache(maxsize=128)
def _family_times(
    chip: Same, parameters: Parameters | None, sms: int, ops: tuple[Op, ...], loads: bytes
) -> KernelTime:
    """Price ops of one family at all loads; a draw that changes one family prices only that.

    Returns:
        Times (ops, loads), and what holds each op at the load nearest to balanced.
    """
    load = np.tile(np.frombuffer(loads), (len(ops), 1))
    if parameters is None:
        times = _roofline(chip.value, sms, ops, load)
    else:
        times = kernel_time_s(chip.value, parameters, cost_shape(ops, load), sms=sms)
    balanced = np.abs(load[0] - 1).argmin()
    bound = np.broadcast_to(times.bound, load.shape)[:, balanced].copy()
    return KernelTime(np.broadcast_to(times.time_s, load.shape), bound)


def _roofline(chip: ChipSpec, sms: int, ops: Sequence[Op], load: Floats) -> KernelTime:
    """Larger of FLOPs over peak (on the SMs in use) and bytes over HBM bandwidth."""
    peak = np.array([[chip.tensor_flops_per_s(_tensor_family(op), sms)] for op in ops])
    compute_s = column(ops, "flops", load) * load / peak
    memory_s = column(ops, "bytes", load) * load / chip.hbm_bytes_per_s
    bound = np.where(compute_s >= memory_s, "compute", "memory")
    return KernelTime(np.maximum(compute_s, memory_s), bound)


def _tensor_family(op: Op) -> str:
    return op.format.family if isinstance(op, Gemm) else "bf16"


@lru_cache(maxsize=64)
def _by_family(ops: tuple[Op, ...]) -> list[tuple[str, tuple[Op, ...], list[int]]]:
    """Group ops that one call can price: of one family, with results of one width, all or none of
    them routed; with their places.
    """
    families: dict[tuple[str, int, bool], list[int]] = {}
    for index, op in enumerate(ops):
        output_bytes = op.output_bytes if isinstance(op, Gemm) else 0
        families.setdefault((op.family, output_bytes, op.routed), []).append(index)
    return [
        (family, tuple(ops[index] for index in members), members)
        for (family, *_), members in families.items()
    ]
