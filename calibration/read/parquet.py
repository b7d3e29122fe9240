"""Columns of a parquet table of measurements."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hwmodels.errors import CalibrationError, MachineError, found_at

T = TypeVar("T")


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Return columns of a parquet table.

    Raises:
        MachineError: reading parquet needs pyarrow.
        CalibrationError: the file is no such table, or lacks a column.
    """
    names = list(columns)
    table = _read(path, lambda parquet: parquet.read_table(path, columns=names))
    if set(table.column_names) != set(columns):
        missing = ", ".join(sorted(set(columns) - set(table.column_names)))
        raise CalibrationError(
            f"{path}: expected a parquet table with columns {', '.join(columns)}, lacks {missing}"
        )
    # One by one: values as objects take many times the room of the column.
    return {name: np.array(table.column(name).to_pylist()) for name in table.column_names}


def column_names(path: Path) -> frozenset[str]:
    """Return the names of the columns of a parquet table.

    Raises:
        MachineError: reading parquet needs pyarrow.
        CalibrationError: the file is no such table.
    """
    return frozenset(_read(path, lambda parquet: parquet.read_schema(path).names))


def _read(path: Path, read: Callable[[Any], T]) -> T:
    """Return what `read` makes of the file, given pyarrow's parquet module."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, needed by this function alone
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(f"reading {path} needs pyarrow (extra 'store'): {error}") from None
    expected = f"{path}: expected a parquet table"
    if not path.is_file():
        raise CalibrationError(f"{expected}, got {found_at(path)}")
    try:
        return read(pq)
    except PermissionError:
        raise CalibrationError(f"{expected}, got {found_at(path)}") from None
    except (OSError, KeyError, pa.ArrowException):
        raise CalibrationError(f"{expected}, got another file or a part of one") from None
