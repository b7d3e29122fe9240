"""Rows of one table that belong together, and what its columns say of where they were timed."""

from collections.abc import Iterator, Sequence

import numpy as np

from calibration.read.tables import Columns
from calibration.rows import Setting
from hwmodels.arrays import Floats
from hwmodels.errors import CalibrationError


def groups(columns: Columns, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Columns]]:
    """Yield the distinct texts of the columns `names`, in sorted order, and the rows of each."""
    keys = list(zip(*(columns[name].astype(str).tolist() for name in names), strict=True))
    distinct = sorted(set(keys))
    number = {key: place for place, key in enumerate(distinct)}
    place = np.array([number[key] for key in keys])
    for key in distinct:
        chosen = place == number[key]
        yield key, {name: values[chosen] for name, values in columns.items()}


def setting(system: str, library: str, version: str) -> Setting:
    """Return the setting of a row: `h200_sxm` is chip preset `h200`."""
    return Setting(system.removesuffix("_sxm"), library, version)


def seconds(columns: Columns, source: str, name: str = "latency_ms") -> Floats:
    """Return (rows,) seconds of a column of milliseconds, `_ms`, or microseconds, `_us`.

    Raises:
        CalibrationError: a row has no time.
    """
    time_s = columns[name].astype(np.float64) * (1e-3 if name.endswith("_ms") else 1e-6)
    wrong = np.flatnonzero(~((time_s > 0) & np.isfinite(time_s)))
    if wrong.size:
        raise CalibrationError(
            f"{source}: {name}: must be > 0, got {columns[name][wrong[0]]} in row {wrong[0]}"
        )
    return time_s
