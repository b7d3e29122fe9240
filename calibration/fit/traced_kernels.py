"""What the trace of any training says of its kernels: slowdowns beside communication, and rows.

A kernel that runs again and again, now beside a transfer and now not, shows how much that slows it
down: `calibration.fit.interference` says how. Kernels whose ops were recorded with their shapes are
rows for `calibration.fit.family`, one for each shape: the median call, free of that slowdown.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from calibration.fit.interference import IDENTIFIED_SPREAD, MAX_FACTOR, Beside, Factor
from calibration.read.device_time import COMPUTE, DeviceTime
from calibration.read.kernel_classes import KernelClass
from calibration.read.trace_events import HostOp
from calibration.read.traced_shapes import TracedShape, traced_shape
from calibration.rows import KernelRows, Setting, sites
from hwmodels.arrays import Floats

REGRESSION = "regression of the trace's kernels on their overlap, one level per kernel that recurs"
TOLD_BELOW = 0.99
"""Of the largest factor: what ends there is a few kernels of a microsecond, and says nothing."""
GROUPS = {"gemm": "GEMM", "attention": "attention"}
"""By kind of cost function, the group of kernels that are the op; others only surround it."""


def traced_factors(time: DeviceTime) -> dict[KernelClass, Factor]:
    """Return the slowdown of every class of kernels whose overlap varies enough to show one."""
    members: dict[KernelClass, list[int]] = defaultdict(list)
    levels = _levels(time)
    for place, kernel in enumerate(time.kernels):
        on_compute = time.roles[place] == COMPUTE and not time.communicates[place]
        if on_compute and levels[place] is not None and kernel.duration_s > 0:
            members[time.classes[place]].append(place)
    found = {}
    for kind, places in members.items():
        names = [levels[place] for place in places]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        duration_s = time.duration_s[places]
        rows = Beside(
            level=np.array([numbers[name] for name in names]),
            time_s=duration_s,
            load=np.ones(len(places)),
            share=np.minimum(1.0, time.beside_s[places] / duration_s),
        )
        if rows.spread < IDENTIFIED_SPREAD:
            continue
        value = rows.factor()
        if value < TOLD_BELOW * MAX_FACTOR:
            found[kind] = Factor(value, rows.spread, REGRESSION, identified=True)
    return found


def _levels(time: DeviceTime) -> list[Hashable | None]:
    """Return for each kernel what it has in common with those that take as long alone.

    That is its name and grid with the shapes of its op, or with its place among kernels of its name
    in a range that comes again; None where neither is known.
    """
    last = Counter[str]()
    for kernel in time.kernels:
        last[kernel.annotation] = max(last[kernel.annotation], kernel.occurrence)
    seen: Counter[Hashable] = Counter()
    found: list[Hashable | None] = []
    for kernel in time.kernels:
        here = (kernel.annotation, kernel.occurrence, kernel.name)
        seen[here] += 1
        if kernel.op is not None:
            found.append((kernel.name, kernel.grid, kernel.op))
        elif kernel.annotation and last[kernel.annotation]:
            found.append((kernel.name, kernel.annotation, seen[here]))
        else:
            found.append(None)
    return found


def traced_rows(
    time: DeviceTime, factors: Mapping[KernelClass, Factor], setting: Setting, source: str
) -> list[KernelRows]:
    """Return the timed shapes of a trace, a set for each family; none where none were recorded.

    Args:
        factors: slowdowns, of `traced_factors`; kernels of other classes are taken as they are.
        setting: where they ran.
        source: citation of the trace.
    """
    alone_s = _alone_s(time, factors)
    calls_s: dict[tuple[HostOp, int | None], float] = defaultdict(float)
    for place, kernel in enumerate(time.kernels):
        shape = None if kernel.op is None else traced_shape(kernel.op)
        if kernel.op and shape and time.classes[place].group == GROUPS[shape.kind]:
            calls_s[kernel.op, kernel.call] += alone_s[place]
    families: dict[tuple[str, str], dict[tuple[float, ...], _Timed]] = defaultdict(dict)
    for (op, _), time_s in calls_s.items():
        shape = traced_shape(op)
        if shape and time_s > 0:
            family = families[shape.kind, shape.family]
            family.setdefault(tuple(shape.numbers.values()), _Timed(shape, [])).times_s.append(
                time_s
            )
    return [_rows(list(timed.values()), setting, source) for timed in families.values()]


class _Timed(NamedTuple):
    """A shape, and the seconds of each call of it."""

    shape: TracedShape
    times_s: list[float]


def _alone_s(time: DeviceTime, factors: Mapping[KernelClass, Factor]) -> Floats:
    """(kernels,) seconds without slowdown."""
    factor = np.array([factors[kind].value if kind in factors else 1.0 for kind in time.classes])
    beside_s = np.minimum(time.beside_s, time.duration_s)
    return np.asarray(time.duration_s - beside_s + beside_s / factor)


def _rows(timed: Sequence[_Timed], setting: Setting, source: str) -> KernelRows:
    shapes = [each.shape for each in timed]
    first = shapes[0]
    columns = {
        name: np.array([shape.numbers[name] for shape in shapes], np.float64)
        for name in first.numbers
    }
    return KernelRows(
        setting=setting,
        kind=first.kind,
        family=first.family,
        shape={**columns, **first.alike},
        time_s=np.array([np.median(each.times_s) for each in timed]),
        site=sites(*zip(*(shape.site for shape in shapes), strict=True)),
        size=np.array([shape.size for shape in shapes], np.float64),
        source=source,
    )
