"""One measured row, and the CSV file that rows are appended to.

A row says what ran (kernel, provider, library, version, shape), how (mode, SMs), how long it took,
on what, and at which clock; a shape that failed is a row with its error and no time. Rows are
flushed to disk one by one: whoever is killed loses at most the row being measured.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from calibration.measure.append_csv import AppendCsv, whole_rows
from hwmodels.errors import CalibrationError, found_at, shown

MODES = ("isolated", "limited", "beside")
"""Alone on the GPU; while idle programs hold some SMs; while copying ones do."""

DRY_DEVICE = "interpreter, nothing measured"
"""What a row of a dry run names as its device; its times are made up."""

Shape = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """What to measure: one line of a plan.

    Attributes:
        kernel, provider: file name in `kernels`, and a key of its PROVIDERS.
        shape: what the kernel's `inputs` and `work` take.
        mode: one of MODES.
        held_sms: SMs held by somebody else; 0 when isolated.
        repeats: at most so many timed runs.
        sustained: run back to back for half a second and more, so that the clock settles.
        config: fields of the kernel's `Config` as JSON; empty for what its `choose` picks.
    """

    kernel: str
    shape: Shape
    provider: str = "moesim"
    mode: str = "isolated"
    held_sms: int = 0
    repeats: int = 30
    sustained: bool = False
    config: str = ""

    def __post_init__(self) -> None:
        where = f"plan: {self.kernel} {shape_text(self.shape)}"
        if self.mode not in MODES:
            raise CalibrationError(f"{where}: mode {self.mode!r}, allowed: {', '.join(MODES)}")
        if (self.held_sms > 0) != (self.mode != "isolated"):
            raise CalibrationError(f"{where}: {self.held_sms} SMs held in mode {self.mode!r}")
        if self.repeats < 1:
            raise CalibrationError(f"{where}: {self.repeats} repeats, at least 1")

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two rows measurements of the same thing."""
        return (
            self.kernel,
            self.provider,
            shape_text(self.shape),
            self.mode,
            str(self.held_sms),
            str(int(self.sustained)),
            self.config,
        )

    def options(self) -> dict[str, Any]:
        """Return what a launch of ours takes beside its inputs: the configuration, if one is asked
        for.

        Raises:
            CalibrationError: the kernel has no such configuration.
        """
        if not self.config:
            return {}
        from kernels import load  # noqa: PLC0415 - imports torch and triton

        try:
            return {"config": load(self.kernel).Config(**json.loads(self.config))}
        except (AttributeError, TypeError, ValueError) as error:
            raise CalibrationError(f"{self.kernel}: config {self.config}: {error}") from None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row. Times and rates are empty (None) where the point failed or nothing could be read.

    Attributes:
        kernel, provider, shape, mode, held_sms, sustained, config: the point.
        sms: SMs left to the kernel.
        library, version: what ran, for instance `triton 3.7.1`.
        time_s, p20_s, p80_s: median and quantiles of `repeats` runs.
        flops, bytes: the kernel's own count of work.
        sm_clock_hz, power_w, temperature_c: read while it ran.
        device, driver, torch, triton, date: where and when.
        error: why there is no time; empty where there is one.
    """

    kernel: str
    provider: str
    library: str
    version: str
    shape: str
    mode: str
    held_sms: int
    sms: int
    sustained: int
    time_s: float | None
    p20_s: float | None
    p80_s: float | None
    repeats: int
    flops: float
    bytes: float
    sm_clock_hz: float | None
    power_w: float | None
    temperature_c: float | None
    device: str
    driver: str
    torch: str
    triton: str
    date: str
    config: str = ""
    error: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """The key of the point it measured."""
        return (
            self.kernel,
            self.provider,
            self.shape,
            self.mode,
            str(self.held_sms),
            str(self.sustained),
            self.config,
        )


COLUMNS = tuple(field.name for field in fields(Measurement))
KEY_COLUMNS = ("kernel", "provider", "shape", "mode", "held_sms", "sustained", "config")


def shape_text(shape: Shape) -> str:
    """Return a shape as one cell: JSON with sorted keys, so that equal shapes read alike."""
    return json.dumps(dict(shape), sort_keys=True, separators=(",", ":"))


def read_plan(path: Path) -> list[Point]:
    """Return the points of a plan file.

    Raises:
        CalibrationError: the file is no plan; says where.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        points = document["points"]
        return [Point(**point) for point in points]
    except OSError:
        raise CalibrationError(f"{path}: expected a measuring plan, got {found_at(path)}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(f"{path}: is no measuring plan: {error!r}") from error


def config_text(config: Any) -> str:
    """Return a kernel's `Config` as one cell, like a shape."""
    return shape_text(asdict(config))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file; one cut off by a kill is left out.

    Raises:
        CalibrationError: the columns are not those of a measurement.
    """
    return whole_rows(path, COLUMNS, "measured rows")


def key_of(row: Mapping[str, str]) -> tuple[str, ...]:
    """Return the key of the point that a row of a file measured."""
    return tuple(row[name] for name in KEY_COLUMNS)


OPTIONAL_COLUMNS = ("time_s", "p20_s", "p80_s", "sm_clock_hz", "power_w", "temperature_c")
REAL_COLUMNS = ("flops", "bytes")
WHOLE_COLUMNS = ("held_sms", "sms", "sustained", "repeats")
SIZE_MAX = 1 << 63
"""Largest whole number in a shape."""


def measurement_of(row: Mapping[str, str], where: str) -> Measurement:
    """Return a row of a file as what was measured.

    Args:
        where: the row is, for messages.

    Raises:
        CalibrationError: a cell is no number or no shape where one belongs.
    """
    where = f"{where}: {row['kernel']} {row['shape']}"
    values: dict[str, Any] = dict(row)
    for name in OPTIONAL_COLUMNS:
        values[name] = number_of(row[name], f"{where}: {name}") if row[name] else None
    for name in REAL_COLUMNS:
        values[name] = number_of(row[name], f"{where}: {name}")
    for name in WHOLE_COLUMNS:
        values[name] = _whole(row[name], f"{where}: {name}")
    if row["mode"] not in MODES:
        raise CalibrationError(f"{where}: mode {row['mode']!r}, allowed: {', '.join(MODES)}")
    if bool(values["time_s"]) == bool(row["error"]):
        raise CalibrationError(f"{where}: must have either a time or an error")
    shape_of(row["shape"], where)
    return Measurement(**values)


def shape_of(text: str, where: str) -> dict[str, Any]:
    """Return the shape that `shape_text` wrote.

    Raises:
        CalibrationError: it is none.
    """
    try:
        shape = json.loads(text)
    except (ValueError, RecursionError):
        shape = None
    if not isinstance(shape, dict) or not all(map(_is_size, shape.values())):
        raise CalibrationError(
            f"{where}: the shape must be a JSON object of whole numbers, lists of them, and words, "
            f"got {shown(text)}"
        )
    return shape


def _is_size(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, int) and _is_size(each) for each in value)
    return isinstance(value, str) or (isinstance(value, int) and abs(value) <= SIZE_MAX)


def sizes_of(row: Measurement, *names: str) -> tuple[float, ...]:
    """Return some sizes of a row's shape.

    Raises:
        CalibrationError: one is missing, or is no whole number from 1.
    """
    shape = shape_of(row.shape, row.kernel)
    for name in names:
        if not isinstance(shape.get(name), int) or shape[name] < 1:
            raise CalibrationError(
                f"{row.kernel} {row.shape}: {name} must be a whole number from 1"
            )
    return tuple(float(shape[name]) for name in names)


def number_of(text: str, where: str) -> float:
    """Return a cell as a number from 0.

    Raises:
        CalibrationError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise CalibrationError(f"{where} must be a number of 0 or more, got {shown(text)}")
    return value


def _whole(text: str, where: str) -> int:
    value = number_of(text, where)
    if value != int(value):
        raise CalibrationError(f"{where} must be a whole number, got {shown(text)}")
    return int(value)


def finished(path: Path) -> set[tuple[str, ...]]:
    """Return the keys of all rows with a time: what a resumed run need not measure again."""
    return {key_of(row) for row in read_rows(path) if not row["error"]}


class RowWriter(AppendCsv):
    """Appends measured rows to a CSV file, each safe on disk before the next is measured."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        super().__init__(path, COLUMNS, "measured rows", resume=resume)

    def write(self, row: Measurement) -> None:
        """Append one row."""
        self.append(asdict(row))


def points_as_json(points: list[Point], estimate_s: float) -> str:
    """Return the text of a plan file."""
    document = {"device_time_estimate_s": estimate_s, "points": [_sparse(p) for p in points]}
    return json.dumps(document, indent=1) + "\n"


def _sparse(point: Point) -> dict[str, Any]:
    """Leave out what has its default value."""
    return dict(_told(point))


def _told(point: Point) -> Iterator[tuple[str, Any]]:
    plain = Point(point.kernel, point.shape)
    for field in fields(Point):
        value = getattr(point, field.name)
        if field.name in {"kernel", "shape"} or value != getattr(plain, field.name):
            yield field.name, dict(value) if field.name == "shape" else value
