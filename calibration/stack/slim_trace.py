"""A profiler's trace made small: what `calibration.read.torch_trace` reads of it, and nothing else.

Kept are kernels, copies and memsets of the device, the host's launch of each, and named ranges.
"""

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hwmodels.errors import CalibrationError

DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
HOST = frozenset({"cuda_runtime", "cuda_driver"})
RANGE = "user_annotation"
FIELDS = ("ph", "cat", "name", "pid", "tid", "ts", "dur")
ARGUMENTS = ("correlation", "stream", "grid", "block")
MAX_BYTES = 2 << 20
"""Of a packed file: a day takes home little."""


def slim(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the events that are kept, with the fields that are read."""
    whole = [event for event in events if event.get("ph") == "X"]
    ran = {_correlation(event) for event in whole if event.get("cat") in DEVICE}
    return [_bare(event) for event in whole if _is_kept(event, ran)]


def _is_kept(event: Mapping[str, Any], ran: set[Any]) -> bool:
    launched = event.get("cat") in HOST and _correlation(event) in ran
    return launched or event.get("cat") in DEVICE or event.get("cat") == RANGE


def _correlation(event: Mapping[str, Any]) -> Any:
    return event.get("args", {}).get("correlation")


def _bare(event: Mapping[str, Any]) -> dict[str, Any]:
    arguments = event.get("args", {})
    kept = {name: event[name] for name in FIELDS if name in event}
    told = {name: arguments[name] for name in ARGUMENTS if name in arguments}
    return {**kept, "args": told} if told else kept


def write(path: Path, events: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write a packed trace; whoever looks sees none or a whole one.

    Raises:
        CalibrationError: it is too large to be the trace of one layer.
    """
    document = {"about": dict(about), "traceEvents": slim(events)}
    packed = gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)
    if len(packed) > MAX_BYTES:
        raise CalibrationError(f"{path}: {len(packed)} bytes of trace, at most {MAX_BYTES}")
    whole = path.with_name(f"{path.name}.new")
    whole.write_bytes(packed)
    whole.replace(path)
