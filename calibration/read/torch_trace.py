"""Read a PyTorch profiler trace (Chrome JSON, plain or gzip): which kernel ran where and when.

A kernel carries the annotation (`record_function` range) in which the host launched it, found
through the launch call of the same correlation number: kernels run long after their range is over.
Where ranges nest, the shortest counts. Copies and memsets on the device are kernels here too.

A trace is somebody else's file: every field that is used is checked, and whatever is wrong with it
raises one `CalibrationError` of one line.
"""

import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwmodels.errors import CalibrationError, found_at

MAX_BYTES = 2**30
"""Largest trace read, uncompressed; a gzip bomb stops here."""

_DEVICE = {"kernel": "kernel", "gpu_memcpy": "memcpy", "gpu_memset": "memset"}
_HOST = ("cuda_runtime", "cuda_driver")


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

    @property
    def end_s(self) -> float:
        """When it ended, from the first kernel of the trace."""
        return self.start_s + self.duration_s


def read_trace(path: Path) -> tuple[TraceKernel, ...]:
    """Return the kernels of a trace in launch order.

    Raises:
        CalibrationError: the file cannot be read, is cut off, or is no such trace.
    """
    events = _events(path)
    ranges = _ranges(path, events)
    launches = _launches(path, events)
    found = []
    for number, event in enumerate(events):
        kind = _DEVICE.get(str(event.get("cat"))) if event.get("ph") == "X" else None
        if kind is not None:
            found.append(_kernel(f"{path}: event {number}", event, kind, launches, ranges))
    if not found:
        raise CalibrationError(f"{path}: no GPU kernel in this trace")
    origin = min(kernel.start_s for kernel in found)
    found.sort(key=lambda kernel: (kernel.launched_s, kernel.start_s))
    return tuple(_shifted(kernel, origin) for kernel in found)


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


def _events(path: Path) -> list[Mapping[str, Any]]:
    try:
        with path.open("rb") as raw:
            magic = raw.read(2)
        opener = gzip.open if magic == b"\x1f\x8b" else open
        with opener(path, "rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise CalibrationError(f"{path}: expected a profiler trace, got a broken archive") from None
    except OSError:
        raise CalibrationError(f"{path}: expected a profiler trace, got {found_at(path)}") from None
    if len(text) > MAX_BYTES:
        raise CalibrationError(f"{path}: trace above {MAX_BYTES >> 20} MiB, too large to be one")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{path}: not JSON, or cut off: {error}") from None
    events = document.get("traceEvents") if isinstance(document, dict) else document
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise CalibrationError(f"{path}: no list of events under 'traceEvents'")
    return events


def _number(where: str, owner: Mapping[str, Any], key: str) -> float:
    value = owner.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise CalibrationError(f"{where}: {key}: expected a number, got {value!r}")
    return float(value)


def _text(where: str, owner: Mapping[str, Any], key: str) -> str:
    value = owner.get(key)
    if not isinstance(value, str):
        raise CalibrationError(f"{where}: {key}: expected a name, got {value!r}")
    return value


def _arguments(where: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = event.get("args")
    if not isinstance(arguments, dict):
        raise CalibrationError(f"{where}: args: expected a table, got {arguments!r}")
    return arguments


@dataclass(frozen=True, slots=True)
class _Range:
    """One `record_function` range of the host, times in microseconds."""

    name: str
    occurrence: int
    start: float
    end: float


def _ranges(path: Path, events: list[Mapping[str, Any]]) -> list[_Range]:
    """Return annotated host ranges, shortest first, so that the first that fits is innermost."""
    spans = []
    for number, event in enumerate(events):
        if event.get("ph") == "X" and event.get("cat") == "user_annotation":
            where = f"{path}: event {number}"
            start, length = _number(where, event, "ts"), _number(where, event, "dur")
            spans.append((start, start + length, _text(where, event, "name")))
    seen: Counter[str] = Counter()
    found = []
    for start, end, name in sorted(spans):
        found.append(_Range(name, seen[name], start, end))
        seen[name] += 1
    return sorted(found, key=lambda span: (span.end - span.start, span.start))


def _launches(path: Path, events: list[Mapping[str, Any]]) -> dict[int, float]:
    """Return the launch time of each correlation number, in microseconds."""
    found: dict[int, float] = {}
    for number, event in enumerate(events):
        if event.get("ph") == "X" and event.get("cat") in _HOST:
            where = f"{path}: event {number}"
            correlation = _arguments(where, event).get("correlation")
            if isinstance(correlation, int):
                found[correlation] = _number(where, event, "ts")
    return found


def _kernel(
    where: str,
    event: Mapping[str, Any],
    kind: str,
    launches: Mapping[int, float],
    ranges: list[_Range],
) -> TraceKernel:
    """Return one kernel with times in seconds, not yet shifted to the origin of the trace."""
    arguments = _arguments(where, event)
    start, length = _number(where, event, "ts"), _number(where, event, "dur")
    if length < 0:
        raise CalibrationError(f"{where}: dur: expected 0 or more microseconds, got {length:g}")
    correlation = int(_number(where, arguments, "correlation"))
    if correlation not in launches:
        raise CalibrationError(f"{where}: no launch with correlation {correlation} in the trace")
    grid = arguments.get("grid", [])
    if not isinstance(grid, list) or not all(isinstance(n, int) and n > 0 for n in grid):
        raise CalibrationError(f"{where}: grid: expected block counts, got {grid!r}")
    launched = launches[correlation]
    inner = next((span for span in ranges if span.start <= launched <= span.end), None)
    return TraceKernel(
        name=_text(where, event, "name"),
        kind=kind,
        stream=int(_number(where, arguments, "stream")),
        start_s=start,
        duration_s=length,
        launched_s=launched,
        grid=tuple(grid),
        annotation=inner.name if inner else "",
        occurrence=inner.occurrence if inner else 0,
    )


def _shifted(kernel: TraceKernel, origin: float) -> TraceKernel:
    """Return the kernel with its microseconds as seconds from `origin`."""
    return TraceKernel(
        name=kernel.name,
        kind=kernel.kind,
        stream=kernel.stream,
        start_s=(kernel.start_s - origin) * 1e-6,
        duration_s=kernel.duration_s * 1e-6,
        launched_s=(kernel.launched_s - origin) * 1e-6,
        grid=kernel.grid,
        annotation=kernel.annotation,
        occurrence=kernel.occurrence,
    )
