"""What a trace's time is made of: streams, classes of kernels, and what lies under what.

Where kernels of one side run at the same time they share it equally, so that the parts of the
compute streams add up to the seconds in which any of them is busy; so do those of communication.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from calibration.read.device_time import COMPUTE, DeviceTime
from calibration.read.intervals import Intervals
from calibration.read.kernel_classes import UNCLASSIFIED, KernelClass
from calibration.read.torch_trace import TorchTrace
from hwmodels.arrays import Floats, Ints

LONGEST_GAP_S = 10e-6
"""What is longer is a wait for the host or for another stream, not the gap between two kernels."""
MOST_BLOCKS = 2**31
"""More than a chip ever held at once count as so many."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of the device.

    Attributes:
        number: of CUDA.
        role: `compute` or `communication`.
        kernels: copies among them.
        busy_s, idle_s: seconds with and without a kernel, from its first to its last.
        gap_s: mean of the gaps below `LONGEST_GAP_S`; None where there is none.
    """

    number: int
    role: str
    kernels: int
    busy_s: float
    idle_s: float
    gap_s: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """Kernels of one class and family on the streams of one role.

    Attributes:
        role: `compute` or `communication`.
        name, family, group: see `KernelClass`.
        kernels: how many.
        time_s: of the time in which the streams of that role are busy.
        share: of that time.
        beside: share of its kernels' durations beside the other side: see `DeviceTime`.
        sms: SMs that hold its blocks for most of its time, at most all; None for copies.
    """

    role: str
    name: str
    family: str
    group: str
    kernels: int
    time_s: float
    share: float
    beside: float
    sms: int | None


@dataclass(frozen=True, slots=True)
class Unclassified:
    """Kernels of a name that no rule knows, and their share of all kernels' durations."""

    name: str
    kernels: int
    time_s: float
    share: float


@dataclass(frozen=True, slots=True)
class Composition:
    """Where the time of a GPU goes.

    Attributes:
        device: number of the GPU, the busiest of the trace.
        kernels, copies: on it; what a copy engine does is no kernel.
        span_s: from the first start to the last end.
        busy_s: by role, seconds in which a stream of it is busy.
        communication_s: seconds in which a kernel communicates, waits before transfers included.
        hidden_s: those of them in which another kernel computes.
        streams, parts, unclassified: the longest first.
    """

    device: int
    kernels: int
    copies: int
    span_s: float
    busy_s: Mapping[str, float]
    communication_s: float
    hidden_s: float
    streams: tuple[Stream, ...]
    parts: tuple[Part, ...]
    unclassified: tuple[Unclassified, ...]

    def of(self, role: str) -> tuple[Part, ...]:
        """Return the parts on the streams of a role."""
        return tuple(part for part in self.parts if part.role == role)

    def shares(self, role: str = COMPUTE) -> dict[str, float]:
        """Return the share of each group in the busy time of the streams of a role."""
        found: dict[str, float] = defaultdict(float)
        for part in self.of(role):
            found[part.group] += part.share
        return dict(found)


def compose(trace: TorchTrace) -> Composition:
    """Return what the time of a trace is made of.

    Raises:
        CalibrationError: no kernel ran on a device.
    """
    time = DeviceTime.of(trace)
    computing = time.when.take(~time.communicates & (time.roles == COMPUTE))
    communication = time.when.take(time.communicates)
    either = time.when.take(time.communicates | (time.roles == COMPUTE))
    roles = sorted(set(time.roles.tolist()), reverse=True)
    copies = sum(kernel.kind != "kernel" for kernel in time.kernels)
    return Composition(
        device=time.device,
        kernels=len(time.kernels) - copies,
        copies=copies,
        span_s=time.when.span_s,
        busy_s={role: time.when.take(time.roles == role).covered_s for role in roles},
        communication_s=communication.covered_s,
        hidden_s=computing.covered_s + communication.covered_s - either.covered_s,
        streams=_streams(time),
        parts=tuple(part for role in roles for part in _parts(time, role, trace.sms)),
        unclassified=_unclassified(time),
    )


def _streams(time: DeviceTime) -> tuple[Stream, ...]:
    members: dict[int, list[int]] = defaultdict(list)
    for place, kernel in enumerate(time.kernels):
        members[kernel.stream].append(place)
    found = []
    for number, places in members.items():
        when, role = time.when.take(places), str(time.roles[places[0]])
        busy_s = when.covered_s
        idle_s = when.span_s - busy_s
        found.append(Stream(number, role, len(when), busy_s, idle_s, _gap_s(when)))
    return tuple(sorted(found, key=lambda stream: -stream.busy_s))


def _gap_s(when: Intervals) -> float | None:
    order = np.argsort(when.start_s, kind="stable")
    gaps = when.start_s[order][1:] - np.maximum.accumulate(when.end_s[order])[:-1]
    short = gaps[(gaps >= 0) & (gaps < LONGEST_GAP_S)]
    return float(short.mean()) if short.size else None


def _parts(time: DeviceTime, role: str, sms: int | None) -> list[Part]:
    """Return the parts on streams of one role, the longest first."""
    on_role = np.flatnonzero(time.roles == role)
    shares_s = time.when.take(on_role).shares_s()
    total_s = max(float(shares_s.sum()), np.finfo(float).tiny)
    duration_s, beside_s = time.duration_s[on_role], time.beside_s[on_role]
    grids = [time.kernels[number].grid for number in on_role.tolist()]
    blocks = np.array([min(math.prod(grid), MOST_BLOCKS) if grid else 0 for grid in grids])
    members: dict[KernelClass, list[int]] = defaultdict(list)
    for place, number in enumerate(on_role.tolist()):
        members[time.classes[number]].append(place)
    found = []
    for kind, places in members.items():
        time_s, length_s = float(shares_s[places].sum()), float(duration_s[places].sum())
        found.append(
            Part(
                role,
                kind.name,
                kind.family,
                kind.group,
                len(places),
                time_s,
                time_s / total_s,
                float(beside_s[places].sum()) / length_s if length_s else 0.0,
                _held_sms(blocks[places], duration_s[places], sms),
            )
        )
    return sorted(found, key=lambda part: -part.time_s)


def _held_sms(blocks: Ints, duration_s: Floats, sms: int | None) -> int | None:
    """Return the blocks at the middle of the time, at most one an SM; None without a grid."""
    order = np.argsort(blocks, kind="stable")
    middle = np.searchsorted(np.cumsum(duration_s[order]), duration_s.sum() / 2)
    held = int(blocks[order][min(int(middle), len(blocks) - 1)])
    return (held if sms is None else min(held, sms)) or None


def _unclassified(time: DeviceTime) -> tuple[Unclassified, ...]:
    seconds: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for kernel, kind in zip(time.kernels, time.classes, strict=True):
        if kind.name == UNCLASSIFIED:
            seconds[kernel.name] += kernel.duration_s
            counts[kernel.name] += 1
    total_s = float(time.duration_s.sum())
    return tuple(
        Unclassified(name, counts[name], time_s, time_s / total_s if total_s else 0.0)
        for name, time_s in sorted(seconds.items(), key=lambda item: -item[1])
    )
