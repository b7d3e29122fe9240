"""Read a PyTorch profiler trace (Chrome JSON, plain or gzip): which kernel ran where and when.

A kernel carries the annotation (`record_function` range) in which the host launched it, found
through the launch call of the same correlation number: kernels run long after their range is over.
Where ranges nest, the shortest counts. A kernel whose launch is not in the trace counts as launched
when it started. Copies and memsets on the device are kernels here too. Where the profiler recorded
shapes, a kernel also has the op of the host that launched it.

The trace is read event by event; what stays in memory is a few numbers for each kernel, launch and
op, and every name once. Whatever is wrong with it raises one `CalibrationError` of one line.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.read.trace_events import (
    COLLECTIVE,
    Collected,
    DeviceEvent,
    HostOp,
    Launch,
    Span,
    ThreadOps,
    collect,
)
from hwmodels.arrays import Floats, Ints
from hwmodels.errors import CalibrationError


@dataclass(frozen=True, slots=True)
class TraceKernel:
    """One kernel on the device.

    Attributes:
        name: mangled or not, as the profiler wrote it.
        kind: `kernel`, `memcpy` or `memset`.
        stream: CUDA stream.
        start_s, duration_s: on the device; `start_s` counts from the first kernel of the trace.
        launched_s: when the host launched it, same origin.
        grid: blocks along x, y, z; empty for copies.
        annotation: innermost host range around the launch, or "".
        occurrence: which of the ranges of that name, from 0.
        device: number of the GPU.
        op: of the host that launched it, where its shapes were recorded.
        call: number of the call of that op; its kernels have it in common.
        collective: what PyTorch calls the collective that it is part of, such as `all_to_all`.
    """

    name: str
    kind: str
    stream: int
    start_s: float
    duration_s: float
    launched_s: float
    grid: tuple[int, ...]
    annotation: str
    occurrence: int
    device: int = 0
    op: HostOp | None = None
    call: int | None = None
    collective: str = ""

    @property
    def end_s(self) -> float:
        """When it ended, from the first kernel of the trace."""
        return self.start_s + self.duration_s


@dataclass(frozen=True, slots=True)
class TorchTrace:
    """One trace of one process.

    Attributes:
        path: the file.
        kernels: in launch order; none where the profiler did not look at a device.
        unlaunched: how many of them the host launched before the trace began.
        annotations: names of host ranges, and how many of each there are.
        threads: ops of the host, by thread.
        ops: recorded with shapes, and how often each was called.
        device: name of the GPU, or "".
        sms: of that GPU, or None.
        ranks: processes of the run, or None.
    """

    path: Path
    kernels: tuple[TraceKernel, ...]
    unlaunched: int
    annotations: Mapping[str, int]
    threads: Mapping[str, ThreadOps]
    ops: Mapping[HostOp, int]
    device: str
    sms: int | None
    ranks: int | None


def read_torch_trace(path: Path) -> TorchTrace:
    """Return what a trace holds.

    Raises:
        CalibrationError: the file cannot be read, is cut off, or is no such trace.
    """
    found = collect(path)
    gpu = _first(found.header.get("deviceProperties"))
    run = found.header.get("distributedInfo")
    ranks = run.get("world_size") if isinstance(run, dict) else None
    name, sms = gpu.get("name"), gpu.get("numSms")
    launches = found.launches
    return TorchTrace(
        path=path,
        kernels=_kernels(found),
        unlaunched=sum(event.correlation not in launches for event in found.device),
        annotations=Counter(span.name for span in found.ranges),
        threads=found.threads,
        ops=Counter(found.ops.values()),
        device=name if isinstance(name, str) else "",
        sms=sms if isinstance(sms, int) and sms > 0 else None,
        ranks=ranks if isinstance(ranks, int) and ranks > 0 else None,
    )


def read_trace(path: Path) -> tuple[TraceKernel, ...]:
    """Return the kernels of a trace in launch order.

    Raises:
        CalibrationError: see `read_torch_trace`; or no kernel ran on a device.
    """
    kernels = read_torch_trace(path).kernels
    if not kernels:
        raise CalibrationError(f"{path}: no GPU kernel in this trace")
    return kernels


def launch_gap_s(kernels: Iterable[TraceKernel], stream: int, longest_s: float = 10e-6) -> float:
    """Return the mean idle time between kernels of one stream that follow each other at once.

    Longer gaps are waits (for the host, or for another stream), not launches.

    Raises:
        CalibrationError: the stream has no two kernels in a row.
    """
    ordered = sorted((k for k in kernels if k.stream == stream), key=lambda k: k.start_s)
    start = np.array([k.start_s for k in ordered[1:]])
    end = np.array([k.end_s for k in ordered[:-1]])
    gaps = (start - end)[(start - end) < longest_s] if len(ordered) > 1 else np.array([])
    if not gaps.size:
        raise CalibrationError(f"trace: stream {stream} has no two kernels in a row")
    return float(gaps.mean())


def overlap_s(kernel: TraceKernel, others: Iterable[TraceKernel]) -> float:
    """Return for how long `kernel` runs beside `others`, which do not overlap each other."""
    return sum(
        max(0.0, min(kernel.end_s, other.end_s) - max(kernel.start_s, other.start_s))
        for other in others
    )


def _first(properties: Any) -> Mapping[str, Any]:
    """Return the properties of the first device; a node's GPUs are alike."""
    first = properties[0] if isinstance(properties, list) and properties else None
    return first if isinstance(first, dict) else {}


def _kernels(found: Collected) -> tuple[TraceKernel, ...]:
    if not found.device:
        return ()
    launched = [_launch(event, found.launches) for event in found.device]
    at_us = np.array([launch.at_us for launch in launched])
    ranges, occurrences = _numbered(found.ranges)
    around = _shortest_around(ranges, at_us)
    collectives = _collectives(found)
    origin = min(event.start_us for event in found.device)
    kernels = []
    for number, (event, launch) in enumerate(zip(found.device, launched, strict=True)):
        inner = int(around[number])
        external = event.external if event.external in found.ops else launch.external
        op = None if external is None else found.ops.get(external)
        kernels.append(
            TraceKernel(
                name=event.name,
                kind=event.kind,
                stream=event.stream,
                start_s=(event.start_us - origin) * 1e-6,
                duration_s=event.length_us * 1e-6,
                launched_s=(launch.at_us - origin) * 1e-6,
                grid=event.grid,
                annotation=ranges[inner].name if inner >= 0 else "",
                occurrence=occurrences[inner] if inner >= 0 else 0,
                device=event.device,
                op=op,
                call=None if op is None else external,
                collective=event.collective or collectives[number],
            )
        )
    return tuple(sorted(kernels, key=lambda kernel: (kernel.launched_s, kernel.start_s)))


def _launch(event: DeviceEvent, launches: Mapping[int, Launch]) -> Launch:
    known = None if event.correlation is None else launches.get(event.correlation)
    return known or Launch(event.start_us, None)


def _numbered(spans: Iterable[Span]) -> tuple[list[Span], list[int]]:
    """Return the ranges in the order in which they begin, and which of its name each is."""
    ordered = sorted(spans)
    seen: Counter[str] = Counter()
    occurrences = []
    for span in ordered:
        occurrences.append(seen[span.name])
        seen[span.name] += 1
    return ordered, occurrences


def _shortest_around(spans: Sequence[Span], times_us: Floats) -> Ints:
    """(times,) number of the shortest span around each time, -1 where there is none.

    Spans are painted over the times in their order, the longest first and the shortest last; of
    equal ones the first is the last to be painted.
    """
    order = np.argsort(times_us, kind="stable")
    ordered = times_us[order]
    first = np.searchsorted(ordered, [span.start_us for span in spans], side="left")
    last = np.searchsorted(ordered, [span.end_us for span in spans], side="right")
    lengths = np.array([span.end_us - span.start_us for span in spans])
    painted = np.full(len(ordered), -1)
    for number in np.argsort(lengths, kind="stable")[::-1]:
        painted[first[number] : last[number]] = number
    found = np.empty_like(painted)
    found[order] = painted
    return found


def _collectives(found: Collected) -> list[str]:
    """Return the name of the collective whose range on the device each kernel runs in, or ""."""
    names = [""] * len(found.device)
    spans: dict[int, list[Span]] = defaultdict(list)
    for span in found.collectives:
        spans[span.stream].append(span)
    members: dict[int, list[int]] = defaultdict(list)
    for number, event in enumerate(found.device):
        members[event.stream].append(number)
    for stream in spans.keys() & members.keys():
        starts = np.array([found.device[number].start_us for number in members[stream]])
        around = _shortest_around(spans[stream], starts)
        for number, place in zip(members[stream], around.tolist(), strict=True):
            if place >= 0:
                names[number] = spans[stream][place].name.removeprefix(COLLECTIVE)
    return names
