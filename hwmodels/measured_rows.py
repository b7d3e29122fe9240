"""Measured rows that lie beside a profile, as CSV, and the factor that they add to its prices.

    chips/h200.toml     constants
    chips/h200.csv      family, seconds, shape as JSON: one line for each kernel timed

The factor of a shape is learnt from log(measured / priced) (`hwmodels.residual`), priced by the
constants of the profile as it was read, on the chip it was measured on. It is one of the shape
alone, so that a what-if on that chip, another chip or a draw keeps it: what is priced then is the
measured base times the ratio of two prices.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec
from hwmodels.costs.kernel import Parameters, kernel_features, kernel_time_s
from hwmodels.errors import SpecError, found_at
from hwmodels.residual import Residual

COLUMNS = ("family", "seconds", "shape")


class MeasuredFamily(NamedTuple):
    """Rows of one family: (rows,) seconds, and keywords of its cost function."""

    time_s: Floats
    shape: Mapping[str, Any]


def read_rows(path: Path) -> dict[str, MeasuredFamily]:
    """Return the rows of a file by family.

    Raises:
        SpecError: it is no such file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise SpecError(f"{path}: expected a CSV file of rows, got {found_at(path)}") from None
    if not lines or tuple(lines[0]) != COLUMNS:
        raise SpecError(f"{path}: expected columns {', '.join(COLUMNS)}")
    families: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for number, line in enumerate(lines[1:], start=2):
        families.setdefault(line[0] if line else "", []).append(_row(path, number, line))
    return {family: _columns(path, rows) for family, rows in families.items()}


def _row(path: Path, number: int, line: list[str]) -> tuple[float, dict[str, Any]]:
    try:
        _, seconds, text = line
        time_s, shape = float(seconds), json.loads(text)
    except (ValueError, RecursionError):
        raise SpecError(f"{path}: line {number}: expected family, seconds and a shape") from None
    if not 0 < time_s < np.inf or not isinstance(shape, dict) or not shape:
        raise SpecError(f"{path}: line {number}: expected a time above 0 and a shape")
    return time_s, shape


def _columns(path: Path, rows: list[tuple[float, dict[str, Any]]]) -> MeasuredFamily:
    names = rows[0][1].keys()
    if any(shape.keys() != names for _, shape in rows):
        raise SpecError(f"{path}: rows of one family must have shapes of the same sizes")
    columns = {name: [shape[name] for _, shape in rows] for name in names}
    return MeasuredFamily(
        np.array([time_s for time_s, _ in rows]),
        {name: _column(path, name, values) for name, values in columns.items()},
    )


def _column(path: Path, name: str, values: list[Any]) -> Any:
    """Return the value that all rows share, or else their numbers as an array."""
    first = values[0]
    if isinstance(first, str | bool | float | int) and all(value == first for value in values):
        return first
    if isinstance(first, str | bool):
        raise SpecError(f"{path}: {name}: must be the same in all rows of a family")
    try:
        return np.array(values, np.float64)
    except (TypeError, ValueError):
        raise SpecError(f"{path}: {name}: must be numbers") from None


def write_rows(path: Path, families: Iterable[tuple[str, MeasuredFamily]]) -> None:
    """Write rows as they are read.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for family, rows in families:
            for number, time_s in enumerate(rows.time_s.tolist()):
                shape = {
                    name: values[number].tolist() if isinstance(values, np.ndarray) else values
                    for name, values in rows.shape.items()
                }
                writer.writerow([family, repr(time_s), json.dumps(shape)])


def residual_of(chip: ChipSpec, parameters: Parameters, rows: MeasuredFamily) -> Residual:
    """Return what rows add to the prices of constants on the chip that both are of."""
    priced_s = kernel_time_s(chip, parameters, rows.shape).time_s
    features = kernel_features(chip, parameters, rows.shape)
    return Residual(features, np.log(rows.time_s / priced_s))
