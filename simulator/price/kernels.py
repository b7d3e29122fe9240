"""Seconds for ops: from a kernel profile where there is one, else from the datasheet's roofline.

All ops of a list are priced at once, family by family, for all expert loads at once. Every price
says what it rests on (`basis`); nothing falls back silently: without a profile the whole run is
`roofline`, and what a profile has no family for is too, and says so.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwmodels.arrays import Floats, Ints
from hwmodels.chip import PROMOTED, ChipSpec
from hwmodels.columns import stacked, structure
from hwmodels.costs import BOUNDS, KernelTime, Parameters, kernel_time_s
from hwmodels.identity import Same
from hwmodels.profile import KernelProfile
from hwmodels.transfer import adapted, is_powered_alike, is_same, transfer_spread
from simulator.price.finite import check_finite
from workloads.ops import Gemm, Op
from workloads.shapes import column, cost_shape

COMPUTE_BOUND, MEMORY_BOUND = BOUNDS.index("compute"), BOUNDS.index("memory")


@dataclass(frozen=True, slots=True)
class OpCosts:
    """Prices of a list of ops, as columns in its order; those of several machines at once have an
    axis of machines before all others.

    Attributes:
        duration_s: (ops, loads) seconds of the kernels at each expert load.
        gap_s: (ops,) idle seconds of the stream between their launches.
        bound_index: (ops,) what holds the op at the load nearest to balanced, as place in `BOUNDS`:
            compute, memory, latency, sustained.
        beside_factor: (ops,) slowdown when all of the op runs beside communication.
    """

    duration_s: Floats
    gap_s: Floats
    bound_index: Ints
    beside_factor: Floats

    @property
    def total_s(self) -> Floats:
        """(loads,) seconds of all ops one after another, gaps included."""
        return np.asarray(self.duration_s.sum(axis=-2) + self.gap_s.sum(axis=-1)[..., None])

    @property
    def bound(self) -> NDArray[np.str_]:
        """(ops,) name of what holds each op."""
        return np.asarray(BOUNDS)[self.bound_index]

    def of(self, machine: int) -> "OpCosts":
        """Return the prices of one of several machines."""
        columns = self.duration_s, self.gap_s, self.bound_index, self.beside_factor
        return OpCosts(*(column[machine] for column in columns))


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
    def is_transferred(self) -> bool:
        """Whether the profile was measured on another chip."""
        return self.profile is not None and not is_same(self.profile.chip, self.chip)

    @property
    def basis(self) -> str:
        """What prices rest on, for people."""
        if self.profile is None:
            return f"roofline of {self.chip.name}"
        if self.is_transferred:
            way = f"from {self.profile.chip} to {self.chip.name}"
            return f"profile {self.profile.name}, transferred {way}"
        return f"profile {self.profile.name}"

    def parameters(self, family: str) -> Parameters | None:
        """Return what prices a family; None for the roofline."""
        if self.profile is None or not self.profile.knows(family):
            return None
        found, origin = self.profile.parameters(family), self.profile.chip
        if not self.is_transferred and is_powered_alike(origin, self.chip):
            return found
        # A family is named after the format that it multiplies in.
        tensor_family = next((known for known in ("fp8", "fp4") if known in family), "bf16")
        return adapted(found, origin, self.chip, tensor_family)

    def corrections(self, family: str, ops: tuple[Op, ...], loads: Floats) -> Floats:
        """Return (ops, loads) seconds over what the constants of a family give."""
        profile = self.profile
        if profile is None or not profile.knows(family):
            return np.ones((len(ops), len(loads)))
        factor = np.full((len(ops), len(loads)), profile.factor.get(family, 1.0))
        if profile.measured is not None:
            factor = factor * _residual_factor(Same(profile), family, Same(ops), loads.tobytes())
        if profile.site_seed is None:
            return factor
        if self.is_transferred:
            spread = transfer_spread(profile.chip, self.chip)
            factor = factor * profile.chance_factor(spread, f"{family} on {self.chip.name}")
        spread = profile.site_spread.get(family, 0.0)
        sites = [profile.chance_factor(spread, f"{family} {op.site}") for op in ops]
        return np.asarray(factor * np.array(sites)[:, None])

    def interference_factor(self, family: str) -> float:
        """Return the slowdown of a family beside communication; none where nothing was measured."""
        if self.profile is None or not self.profile.knows(family):
            return 1.0
        return self.profile.interference_factor(family)

    def basis_of(self, family: str) -> str:
        """What prices of a family rest on, for people."""
        if self.profile is None:
            return self.basis
        if self.profile.knows(family):
            source = self.profile.transferred.get(family)
            return f"{self.basis}, transferred from {source}" if source else self.basis
        return (
            f"roofline of {self.chip.name}, as profile {self.profile.name} has no family {family}"
        )

    def price(self, ops: Sequence[Op], load: Floats | float = 1.0) -> OpCosts:
        """Return the prices of `ops`; arguments and errors as of `price_kernels`."""
        return price_kernels([self], ops, load).of(0)


def price_kernels(
    pricers: Sequence[KernelPricer], ops: Sequence[Op], load: Floats | float = 1.0
) -> OpCosts:
    """Return the prices of `ops` on several machines at once, the same ones as one by one.

    Args:
        load: (loads,) expert load relative to balanced; scales routed ops only.

    Raises:
        InfeasibleError: an op takes no finite time.
    """
    load = np.atleast_1d(np.asarray(load, np.float64))
    ops = ops if isinstance(ops, tuple) else tuple(ops)  # a list could change under a cache
    machines, columns = len(pricers), len(ops)
    duration_s = np.zeros((machines, columns, len(load)))
    bound, factor = np.zeros((machines, columns), np.int64), np.ones((machines, columns))
    chips, (profiles, profile_of) = _alike_chips(pricers), _distinct_profiles(pricers)
    for family, group, members in _by_family(Same(ops)):
        # What is not routed costs the same at every load.
        loads = load if group[0].routed else np.ones(1)
        balanced = int(np.abs(loads - 1).argmin())
        constants = [known.parameters(family) for known in profiles]
        corrections = np.array([known.corrections(family, group, loads) for known in profiles])
        for alike in chips:
            of_machines = [constants[number] for number in profile_of[alike.places].tolist()]
            for places, times in _family_times(alike, of_machines, group, loads):
                rows = np.ix_(np.array(places), np.array(members))
                duration_s[rows] = times.time_s * corrections[profile_of[places]]
                bound[rows] = np.broadcast_to(times.bound_index, times.time_s.shape)[..., balanced]
        beside = np.array([known.interference_factor(family) for known in profiles])
        factor[:, members] = beside[profile_of, None]
    check_finite(
        np.moveaxis(duration_s, 1, 0),
        lambda place: f"seconds of {ops[place].name}, by {pricers[0].basis_of(ops[place].family)}",
    )
    launches = np.array([op.launches for op in ops], np.float64)
    gap_s = [pricer.profile.launch_gap_s if pricer.profile else 0.0 for pricer in pricers]
    return OpCosts(
        duration_s,
        gap_s=launches * np.array(gap_s)[:, None],
        bound_index=bound,
        beside_factor=factor,
    )


class _Alike(NamedTuple):
    """Machines whose chips are alike in all but numbers, so that one call of a cost function prices
    them.

    Attributes:
        places: of them among all.
        chip, sms: numbers that differ are (machines, 1, 1) columns.
        same: whether none differs.
    """

    places: list[int]
    pricers: list[KernelPricer]
    chip: ChipSpec
    sms: Any
    same: bool

    @classmethod
    def of(cls, places: list[int], pricers: list[KernelPricer]) -> "_Alike":
        """Return machines whose chips have one structure."""
        chip, sms = pricers[0].chip, pricers[0].sms
        if all(pricer.chip is chip and pricer.sms == sms for pricer in pricers):
            return cls(places, pricers, chip, sms, same=True)
        every = [pricer.sms for pricer in pricers]
        column = sms if len(set(every)) == 1 else np.array(every, np.float64).reshape(-1, 1, 1)
        return cls(places, pricers, stacked([p.chip for p in pricers], 2), column, same=False)

    def take(self, numbers: list[int]) -> "_Alike":
        """Return some of them."""
        if len(numbers) == len(self.places):
            return self
        places = [self.places[number] for number in numbers]
        return _Alike.of(places, [self.pricers[number] for number in numbers])


def _alike_chips(pricers: Sequence[KernelPricer]) -> list[_Alike]:
    groups: dict[Hashable, list[int]] = {}
    for place, pricer in enumerate(pricers):
        groups.setdefault(structure(pricer.chip), []).append(place)
    return [_Alike.of(places, [pricers[p] for p in places]) for places in groups.values()]


def _distinct_profiles(pricers: Sequence[KernelPricer]) -> tuple[list[KernelPricer], Ints]:
    """Return pricers that know different things of a family, and which of them stands for each.

    What one profile knows of the chip it was measured on holds whatever the chip's numbers are;
    elsewhere it depends on the chip.
    """
    place: dict[tuple[int, int], int] = {}
    found: list[KernelPricer] = []
    of_pricer = np.empty(len(pricers), np.int64)
    for number, pricer in enumerate(pricers):
        key = id(pricer.profile), id(pricer.chip) if pricer.is_transferred else 0
        if key not in place:
            place[key] = len(found)
            found.append(pricer)
        of_pricer[number] = place[key]
    return found, of_pricer


def _family_times(
    alike: _Alike, constants: Sequence[Parameters | None], ops: tuple[Op, ...], loads: Floats
) -> Iterator[tuple[list[int], KernelTime]]:
    """Yield places of machines and their times (machines or 1, ops, loads) of ops of one family,
    given the parameters that price it on each.

    Kept for machines without numbers of their own: most of those that are priced in turn differ in
    one family only.
    """
    first, known = constants[0], loads.tobytes()
    if all(other is first for other in constants):
        if alike.same:
            times = _kept_times(Same(alike.chip), Same(first), alike.sms, Same(ops), known)
        else:
            times = _times(alike.chip, first, alike.sms, ops, known)
        yield alike.places, times
        return
    groups: dict[Hashable, list[int]] = {}
    for number, of_family in enumerate(constants):
        groups.setdefault(of_family and structure(of_family), []).append(number)
    for numbers in groups.values():
        some = alike.take(numbers)
        chosen = [known for known in (constants[n] for n in numbers) if known is not None]
        parameters = stacked(chosen, 2) if chosen else None
        yield some.places, _times(some.chip, parameters, some.sms, ops, known)


@lru_cache(maxsize=128)
def _kept_times(chip: Same, parameters: Same, sms: int, ops: Same, loads: bytes) -> KernelTime:
    return _times(chip.value, parameters.value, sms, ops.value, loads)


def _times(
    chip: ChipSpec, parameters: Parameters | None, sms: Any, ops: tuple[Op, ...], loads: bytes
) -> KernelTime:
    if parameters is None:
        return _roofline(chip, sms, ops, np.tile(np.frombuffer(loads), (len(ops), 1)))
    return kernel_time_s(chip, parameters, _shapes(Same(ops), loads), sms=sms)


@lru_cache(maxsize=128)
def _shapes(same: Same, loads: bytes) -> dict[str, Any]:
    """Return the shape keywords of ops of one family, columns with an axis for machines first."""
    ops: tuple[Op, ...] = same.value
    load = np.tile(np.frombuffer(loads), (len(ops), 1))
    return {
        name: values[None] if isinstance(values, np.ndarray) else values
        for name, values in cost_shape(ops, load).items()
    }


@lru_cache(maxsize=256)
def _residual_factor(profile: Same, family: str, ops: Same, loads: bytes) -> Floats:
    """Return (ops, loads) what the measured rows of a profile add to prices of a family."""
    size = (len(ops.value), len(loads) // np.dtype(np.float64).itemsize)
    shape = {
        name: np.broadcast_to(values[0], size).ravel() if isinstance(values, np.ndarray) else values
        for name, values in _shapes(ops, loads).items()
    }
    factor = profile.value.residual_factor(family, shape)
    return np.ones(size) if factor is None else factor.reshape(size)


def _roofline(chip: ChipSpec, sms: Any, ops: Sequence[Op], load: Floats) -> KernelTime:
    """Largest of FLOPs over peak (on the SMs in use) and bytes over HBM bandwidth; and where CUDA
    cores promote partial sums behind FP8 products, of a multiply-add each time over their peak.
    """
    rates = [chip.tensor_flops_per_s(_tensor_family(op), sms) for op in ops]
    peak = np.concatenate([np.reshape(rate, (-1, 1, 1)) for rate in rates], axis=1)
    scaled = [op.scaled_flops if isinstance(op, Gemm) else 0.0 for op in ops]
    promoted = chip.promotions / PROMOTED * np.reshape(scaled, (-1, *(1,) * (load.ndim - 1)))
    vector_s = promoted * load / np.asarray(chip.vector_flops_per_s * (sms / chip.sms))
    compute_s = np.maximum(column(ops, "flops", load) * load / peak, vector_s)
    memory_s = column(ops, "bytes", load) * load / np.asarray(chip.hbm_bytes_per_s)
    index = np.where(compute_s >= memory_s, COMPUTE_BOUND, MEMORY_BOUND)
    return KernelTime(np.maximum(compute_s, memory_s), index)


def _tensor_family(op: Op) -> str:
    return op.format.family if isinstance(op, Gemm) else "bf16"


@lru_cache(maxsize=64)
def _by_family(same: Same) -> list[tuple[str, tuple[Op, ...], list[int]]]:
    """Group ops that one call can price: of one family, with operands and results of one width, all
    or none of them routed; with their places.
    """
    ops: tuple[Op, ...] = same.value
    families: dict[tuple[str, Hashable, bool], list[int]] = {}
    for index, op in enumerate(ops):
        widths = (op.output_bytes, op.in_memory) if isinstance(op, Gemm) else None
        families.setdefault((op.family, widths, op.routed), []).append(index)
    return [
        (family, tuple(ops[index] for index in members), members)
        for (family, *_), members in families.items()
    ]
