"""One measured row, and the CSV file that rows are appended to.

A row says what ran (kernel, provider, library, version, shape), how (mode, SMs), how long it took,
on what, and at which clock; a shape that failed is a row with its error and no time. Rows are
flushed to disk one by one: whoever is killed loses at most the row being measured.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hwmodels.errors import CalibrationError

MODES = ("isolated", "limited", "beside")
"""Alone on the GPU; while idle programs hold some SMs; while copying ones do."""

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
    """

    kernel: str
    shape: Shape
    provider: str = "moesim"
    mode: str = "isolated"
    held_sms: int = 0
    repeats: int = 30
    sustained: bool = False

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
        )


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row. Times and rates are empty (None) where the point failed or nothing could be read.

    Attributes:
        kernel, provider, shape, mode, held_sms, sustained: the point.
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
        )


COLUMNS = tuple(field.name for field in fields(Measurement))


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
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(f"{path}: is no measuring plan: {error!r}") from error


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file; one cut off by a kill is left out.

    Raises:
        CalibrationError: the columns are not those of a measurement.
    """
    whole = _whole_lines(path)
    rows = list(csv.reader(io.StringIO(whole)))
    if not rows:
        return []
    if tuple(rows[0]) != COLUMNS:
        raise CalibrationError(f"{path}: columns {rows[0][:4]}... are not those of measured rows")
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows[1:] if len(row) == len(COLUMNS)]


def finished(path: Path) -> set[tuple[str, ...]]:
    """Return the keys of all rows with a time: what a resumed run need not measure again."""
    names = ("kernel", "provider", "shape", "mode", "held_sms", "sustained")
    return {tuple(row[name] for name in names) for row in read_rows(path) if not row["error"]}


class RowWriter:
    """Appends rows to a CSV file, each safe on disk before the next is measured."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        if path.exists() and not resume:
            raise CalibrationError(f"{path}: exists; --resume continues it")
        whole = _whole_lines(path) if path.exists() else ""
        if path.exists():
            read_rows(path)  # refuses a file of something else before it is touched
            with path.open("r+", encoding="utf-8", newline="") as file:
                file.truncate(len(whole.encode()))
        self._file = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        if not whole:
            self._append(COLUMNS)

    def write(self, row: Measurement) -> None:
        """Append one row."""
        self._append(["" if value is None else value for value in asdict(row).values()])

    def _append(self, cells: Any) -> None:
        self._writer.writerow(cells)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _whole_lines(path: Path) -> str:
    """Return the text up to the last line break: what was written in full."""
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1]


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
