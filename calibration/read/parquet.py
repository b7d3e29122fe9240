"""Columns of a parquet table of measurements."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.errors import CalibrationError, MachineError, found_at


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Return columns of a parquet table.

    Raises:
        MachineError: reading parquet needs pyarrow.
        CalibrationError: the file is no such table, or lacks a column.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, needed by this function alone
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(f"reading {path} needs pyarrow (extra 'store'): {error}") from None
    expected = f"{path}: expected a parquet table"
    if not path.is_file():
        raise CalibrationError(f"{expected}, got {found_at(path)}")
    try:
        table = pq.read_table(path, columns=list(columns)).to_pydict()
    except PermissionError:
        raise CalibrationError(f"{expected}, got {found_at(path)}") from None
    except (OSError, KeyError, pa.ArrowException):
        raise CalibrationError(f"{expected}, got another file or a part of one") from None
    if set(table) != set(columns):
        missing = ", ".join(sorted(set(columns) - set(table)))
        raise CalibrationError(f"{expected} with columns {', '.join(columns)}, lacks {missing}")
    return {name: np.array(values) for name, values in table.items()}
