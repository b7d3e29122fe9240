"""Times of layers as `calibration.gpu_day` wrote them: the folder of a day, or its `stack.csv`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from calibration.gpu_day.files import EAGER, GRAPH, STACK, STACK_COLUMNS, STACK_ROWS, TOTAL
from calibration.judge.folder import read_record
from calibration.measure.append_csv import whole_rows
from calibration.measure.measurement import DRY_DEVICE, number_of, shape_of
from calibration.stack.dimensions import Dimensions
from calibration.stack.names import LAYERS, STACKS
from hwmodels.errors import CalibrationError, found_at, shown

Row = Mapping[str, str]

DEPTH_MAX = 1000
"""Layers of a stack; no model has as many."""

COUNTS = ("counts", "decode_counts")
"""The dimensions of a layer that are a number for each expert."""


@dataclass(frozen=True, slots=True)
class MeasuredOp:
    """One op of a layer.

    Attributes:
        op: its name; where: block and pass.
        kernel, shape: what ran, as `calibration.stack` has it.
        bytes: that the kernel counts; None where the library did it.
        time_s: of the device, on what the ops before it made.
        graph_s: the same as a CUDA graph by itself; host_s: of the host to launch it. None where
            they were not measured.
    """

    op: str
    where: str
    kernel: str
    shape: Mapping[str, Any]
    bytes: float | None
    time_s: float
    graph_s: float | None
    host_s: float | None


@dataclass(frozen=True, slots=True)
class FailedOp:
    """An op that has no time, and why."""

    layer: str
    op: str
    error: str


@dataclass(frozen=True, slots=True)
class MeasuredTotal:
    """A whole layer in one mode.

    Attributes:
        time_s: None where there is none, and `error` says why.
        without: ops that were left out.
    """

    time_s: float | None
    without: tuple[str, ...]
    error: str


@dataclass(frozen=True, slots=True)
class MeasuredLayer:
    """One layer in one direction.

    Attributes:
        name: `train_forward`, `train_backward` or `decode`.
        dimensions: of the layer; None where no total was measured.
        ops: that have a time, in the order in which they run; the totals are of these.
        failed: that have none.
        totals: by mode: `eager`, `blocking`, `graph`.
    """

    name: str
    dimensions: Dimensions | None
    ops: tuple[MeasuredOp, ...]
    failed: tuple[FailedOp, ...]
    totals: Mapping[str, MeasuredTotal]


@dataclass(frozen=True, slots=True)
class MeasuredStack:
    """Layers behind each other.

    Attributes:
        name: `train_stack` or `decode_stack`.
        layers: names of what it is made of, each `depth` times before the next.
        totals: by mode.
    """

    name: str
    layers: tuple[str, ...]
    depth: int
    totals: Mapping[str, MeasuredTotal]


@dataclass(frozen=True, slots=True)
class StackRows:
    """All that was measured of layers on one device.

    Attributes:
        path: of the rows.
        device: its name; sms: None where the rows are not of a whole day.
        other_rows: of other devices, which are left out.
    """

    path: Path
    device: str
    sms: int | None
    layers: tuple[MeasuredLayer, ...]
    stacks: tuple[MeasuredStack, ...]
    other_rows: int


def read_stack(path: Path) -> StackRows:
    """Read the layers of a day, or of the one file of it that holds them.

    Raises:
        CalibrationError: it is neither, holds no time of a layer, has rows of two devices, or is of
            a dry run, whose times mean nothing.
    """
    record = read_record(path) if path.is_dir() else None
    file = path / STACK if record else path
    if not file.is_file():
        raise CalibrationError(
            f"{file}: expected times of a layer, as python -m calibration.gpu_day writes them, got "
            f"{found_at(file)}"
        )
    rows = whole_rows(file, STACK_COLUMNS, STACK_ROWS)
    device = _device(file, rows) if record is None else str(record["device"]["name"])
    here: dict[str, list[Row]] = {}
    for row in rows:
        if row["device"] == device:
            here.setdefault(row["layer"], []).append(row)
    for name in here:
        if name not in (*LAYERS, *STACKS):
            known = ", ".join((*LAYERS, *STACKS))
            raise CalibrationError(f"{file}: layer must be one of {known}, got {shown(name)}")
    layers = tuple(_layer(file, name, here[name]) for name in LAYERS if name in here)
    if not any(layer.ops for layer in layers):
        raise CalibrationError(f"{file}: has no time of a layer measured on {device}")
    return StackRows(
        path,
        device,
        record["device"]["sms"] if record else None,
        layers,
        tuple(_stack(file, name, here[name]) for name in STACKS if name in here),
        len(rows) - sum(map(len, here.values())),
    )


def _device(file: Path, rows: Iterable[Row]) -> str:
    devices = sorted({row["device"] for row in rows})
    if len(devices) != 1:
        found = ", ".join(devices) or "none"
        raise CalibrationError(f"{file}: rows must be of one device, got {found}")
    if devices[0] == DRY_DEVICE:
        raise CalibrationError(
            f"{file}: a dry run ({DRY_DEVICE}): its times mean nothing; measure without --dry-run"
        )
    return devices[0]


def _layer(file: Path, name: str, rows: Sequence[Row]) -> MeasuredLayer:
    totals = [row for row in rows if row["op"] == TOTAL]
    as_graphs = {row["op"]: row for row in rows if row["mode"] == GRAPH}
    ops = [row for row in rows if row["mode"] == EAGER and row["op"] != TOTAL]
    return MeasuredLayer(
        name,
        _dimensions(file, totals[0]) if totals else None,
        tuple(_op(file, row, as_graphs.get(row["op"])) for row in ops if not row["error"]),
        tuple(FailedOp(name, row["op"], row["error"]) for row in ops if row["error"]),
        {row["mode"]: _total(file, row) for row in totals},
    )


def _stack(file: Path, name: str, rows: Sequence[Row]) -> MeasuredStack:
    where = f"{file}: {name}: {TOTAL}"
    depth = shape_of(rows[0]["shape"], where).get("layers")
    if not isinstance(depth, int) or not 0 < depth <= DEPTH_MAX:
        raise CalibrationError(f"{where}: layers must be from 1 to {DEPTH_MAX}, got {shown(depth)}")
    totals = {row["mode"]: _total(file, row) for row in rows}
    return MeasuredStack(name, STACKS[name], depth, totals)


def _op(file: Path, row: Row, as_graph: Row | None) -> MeasuredOp:
    where = f"{file}: {row['layer']}: {row['op']}"
    time_s = _number(row, "p50_s", where)
    if not time_s:
        raise CalibrationError(f"{where}: must have either a time or an error")
    return MeasuredOp(
        op=row["op"],
        where=row["where"],
        kernel=row["kernel"],
        shape=shape_of(row["shape"], where),
        bytes=_number(row, "bytes", where),
        time_s=time_s,
        graph_s=None if as_graph is None else _number(as_graph, "p50_s", where),
        host_s=_number(row, "host_s", where),
    )


def _total(file: Path, row: Row) -> MeasuredTotal:
    time_s = _number(row, "p50_s", f"{file}: {row['layer']}: {row['mode']} {TOTAL}")
    without = tuple(name for name in row["without"].split("; ") if name)
    return MeasuredTotal(time_s or None, without, row["error"])


def _dimensions(file: Path, row: Row) -> Dimensions:
    """Return how large a layer was, which the row of its total says.

    Raises:
        CalibrationError: it does not.
    """
    where = f"{file}: {row['layer']}: {TOTAL}"
    shape = shape_of(row["shape"], where)
    known: dict[str, Any] = {
        name: tuple(size) if isinstance(size, list) else size for name, size in shape.items()
    }
    names = {field.name for field in fields(Dimensions)}
    if set(known) != names or not all(_is_size(name, known[name]) for name in names):
        raise CalibrationError(
            f"{where}: the shape must be the dimensions of a layer, got {shown(row['shape'])}"
        )
    return Dimensions(**known)


def _is_size(name: str, value: Any) -> bool:
    if name in COUNTS:
        return isinstance(value, tuple) and sum(value) > 0 <= min(value)
    return isinstance(value, int) and value > 0


def _number(row: Row, name: str, where: str) -> float | None:
    return number_of(row[name], f"{where}: {name}") if row[name] else None
