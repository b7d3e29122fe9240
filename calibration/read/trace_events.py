"""What is taken of a profiler trace, event by event, each field checked: times in microseconds.

Kernels, copies and memsets of the device; the host's launch calls; named ranges of the host and of
collectives on the device; ops of the host, with their shapes where the profiler recorded them.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from calibration.read.event_stream import Event, EventStream
from hwmodels.errors import CalibrationError, shown

HEADER = ("deviceProperties", "distributedInfo")
COLLECTIVE = "nccl:"
"""What the names of ranges begin with that PyTorch puts around collectives on the device."""
LARGEST = 2**63
"""No number of a trace is as large: counts and microseconds fit into 64 bits."""
NAME_CHARACTERS = 4096
"""What is kept of a name; those of templates are long, and a file may hold any."""
_KINDS = {"kernel": "kernel", "gpu_memcpy": "memcpy", "gpu_memset": "memset"}


class DeviceEvent(NamedTuple):
    """A kernel, copy or memset; `external` is the number of the op that launched it."""

    name: str
    kind: str
    device: int
    stream: int
    start_us: float
    length_us: float
    correlation: int | None
    external: int | None
    grid: tuple[int, ...]
    collective: str


class Launch(NamedTuple):
    """The host's call that launched something."""

    at_us: float
    external: int | None


class Span(NamedTuple):
    """A named range; `stream` is that of the device, -1 for ranges of the host."""

    start_us: float
    end_us: float
    name: str
    stream: int = -1


class HostOp(NamedTuple):
    """An op of the host as the profiler recorded it, alike for all calls of the same shapes.

    Attributes:
        name: such as `aten::mm`.
        sizes: of each argument; () for scalars and for lists of tensors.
        types: of each argument, such as `c10::BFloat16`.
        inputs: values of the scalar arguments in words, "" for tensors.
    """

    name: str
    sizes: tuple[tuple[int, ...], ...]
    types: tuple[str, ...]
    inputs: tuple[str, ...]


@dataclass(slots=True)
class ThreadOps:
    """Ops of one thread of the host: how many, and how many of them with shapes."""

    ops: int = 0
    shaped: int = 0


@dataclass(slots=True)
class Collected:
    """All that is kept of a trace; ops and launches by their numbers, threads by name."""

    device: list[DeviceEvent] = field(default_factory=list)
    launches: dict[int, Launch] = field(default_factory=dict)
    ranges: list[Span] = field(default_factory=list)
    collectives: list[Span] = field(default_factory=list)
    ops: dict[int, HostOp] = field(default_factory=dict)
    threads: dict[str, ThreadOps] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)
    known: dict[HostOp, HostOp] = field(default_factory=dict)


def collect(path: Path) -> Collected:
    """Read a trace.

    Raises:
        CalibrationError: the file cannot be read, is no trace, or a field is not what it should be.
    """
    found = Collected()
    stream = EventStream(path, HEADER)
    for number, event in enumerate(stream):
        category = event.get("cat")
        take = _TAKERS.get(category) if isinstance(category, str) else None
        if take is not None and event.get("ph") == "X":
            take(found, f"{path}: event {number}", event)
    found.header = stream.header
    return found


def _device(found: Collected, where: str, event: Event) -> None:
    arguments = _arguments(where, event)
    grid = arguments.get("grid", [])
    if not isinstance(grid, list) or not all(isinstance(n, int) and n > 0 for n in grid):
        raise CalibrationError(f"{where}: grid: expected block counts, got {shown(grid)}")
    collective = arguments.get("Collective name", "")
    start_us, length_us = _interval(where, event)
    found.device.append(
        DeviceEvent(
            sys.intern(_text(where, event, "name")),
            _KINDS[event["cat"]],
            _whole(where, arguments, "device") if "device" in arguments else 0,
            _whole(where, arguments, "stream"),
            start_us,
            length_us,
            _whole(where, arguments, "correlation") if "correlation" in arguments else None,
            _external(arguments),
            tuple(grid),
            sys.intern(collective) if isinstance(collective, str) else "",
        )
    )


def _launch(found: Collected, where: str, event: Event) -> None:
    arguments = event.get("args")
    correlation = arguments.get("correlation") if isinstance(arguments, dict) else None
    if isinstance(arguments, dict) and isinstance(correlation, int):
        at_us = _number(where, event, "ts")
        found.launches[correlation] = Launch(at_us, _external(arguments))


def _range(found: Collected, where: str, event: Event) -> None:
    start_us, length_us = _interval(where, event)
    name = sys.intern(_text(where, event, "name"))
    found.ranges.append(Span(start_us, start_us + length_us, name))


def _collective(found: Collected, where: str, event: Event) -> None:
    name = _text(where, event, "name")
    if name.startswith(COLLECTIVE):
        start_us, length_us = _interval(where, event)
        stream = _whole(where, event, "tid")
        found.collectives.append(Span(start_us, start_us + length_us, sys.intern(name), stream))


def _op(found: Collected, where: str, event: Event) -> None:
    thread = found.threads.setdefault(shown(event.get("tid")), ThreadOps())
    thread.ops += 1
    arguments = event.get("args")
    if not isinstance(arguments, dict) or not isinstance(arguments.get("Input Dims"), list):
        return
    sizes = tuple(_sizes(where, each) for each in arguments["Input Dims"])
    types, inputs = (_words(arguments.get(key)) for key in ("Input type", "Concrete Inputs"))
    op = HostOp(sys.intern(_text(where, event, "name")), sizes, types, inputs)
    thread.shaped += 1
    number = _external(arguments)
    if number is not None:
        found.ops[number] = found.known.setdefault(op, op)


_TAKERS: Mapping[str, Callable[[Collected, str, Event], None]] = {
    **dict.fromkeys(_KINDS, _device),
    "cuda_runtime": _launch,
    "cuda_driver": _launch,
    "user_annotation": _range,
    "gpu_user_annotation": _collective,
    "cpu_op": _op,
}
"""What is done with an event, by its category; all others are passed over."""


def _number(where: str, owner: Mapping[str, Any], key: str) -> float:
    value = owner.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST:
        return float(value)
    raise CalibrationError(f"{where}: {key}: expected a number, got {shown(value)}")


def _whole(where: str, owner: Mapping[str, Any], key: str) -> int:
    return int(_number(where, owner, key))


def _interval(where: str, event: Event) -> tuple[float, float]:
    start_us, length_us = _number(where, event, "ts"), _number(where, event, "dur")
    if length_us < 0:
        raise CalibrationError(f"{where}: dur: expected 0 or more microseconds, got {length_us:g}")
    return start_us, length_us


def _text(where: str, owner: Mapping[str, Any], key: str) -> str:
    value = owner.get(key)
    if not isinstance(value, str):
        raise CalibrationError(f"{where}: {key}: expected a name, got {shown(value)}")
    return value[:NAME_CHARACTERS]


def _arguments(where: str, event: Event) -> Mapping[str, Any]:
    arguments = event.get("args")
    if not isinstance(arguments, dict):
        raise CalibrationError(f"{where}: args: expected a table, got {shown(arguments)}")
    return arguments


def _external(arguments: Mapping[str, Any]) -> int | None:
    number = arguments.get("External id")
    return number if isinstance(number, int) else None


def _sizes(where: str, value: Any) -> tuple[int, ...]:
    """Return the sizes of a tensor; scalars have none, and lists of tensors are not told."""
    if not isinstance(value, list):
        raise CalibrationError(f"{where}: Input Dims: expected lists of sizes, got {shown(value)}")
    if any(isinstance(each, list) for each in value):
        return ()
    if not all(isinstance(each, int) and 0 <= each < LARGEST for each in value):
        raise CalibrationError(f"{where}: Input Dims: expected sizes, got {shown(value)}")
    return tuple(value)


def _words(value: Any) -> tuple[str, ...]:
    words = value if isinstance(value, list) else []
    return tuple(sys.intern(each) if isinstance(each, str) else "" for each in words)
