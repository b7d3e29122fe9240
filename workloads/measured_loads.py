"""Measured loads of experts: tokens that each got on each layer, from a table in a file.

A row is a layer with experts, in the model's order; a column an expert, in order. CSV has no
header; names of Parquet's columns are not read.
"""

import csv
from pathlib import Path
from typing import Any

from hwmodels.errors import SpecError, found_at


def read_counts(given: Any) -> Any:
    """Return the rows of a file that is named; whatever else is given, as it is.

    Raises:
        SpecError: no such file, of another format, or not a table of numbers.
    """
    if not isinstance(given, str):
        return given
    path = Path(given)
    if path.suffix not in (".csv", ".parquet"):
        raise SpecError(f"counts: must be rows, or a .csv or .parquet file, got {given!r}")
    if not path.is_file():
        raise SpecError(f"{path}: expected a table of counts, got {found_at(path)}")
    return _of_csv(path) if path.suffix == ".csv" else _of_parquet(path)


def _of_csv(path: Path) -> list[list[float]]:
    rows: list[list[float]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for cells in csv.reader(lines):
                rows += [[float(cell) for cell in cells]] if cells else []
    except (ValueError, csv.Error) as error:  # of bytes that are no text, too
        raise SpecError(f"{path}: row {len(rows)} must be numbers: {error}") from None
    return rows


def _of_parquet(path: Path) -> list[list[float]]:
    import pyarrow as pa  # noqa: PLC0415 - only who names such a file waits for it
    import pyarrow.parquet as pq  # noqa: PLC0415 - likewise

    try:
        columns = pq.read_table(path).columns
        values = [column.cast(pa.float64()).to_pylist() for column in columns]
    except (pa.ArrowException, OSError) as error:
        raise SpecError(f"{path}: must be a table of numbers: {error}") from None
    return [list(row) for row in zip(*values, strict=True)]
