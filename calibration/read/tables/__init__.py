"""Tables of timed kernels: a module reads one layout, and is found by the columns it needs.

A module of this package has

    COLUMNS                 names that make a table one of its own
    SOURCE                  where such tables are published: the citation of what is fitted to them
    rows(columns, source)   its kernels, one `KernelRows` for each setting and family (`BlockRows`
                            of several kernels timed together), and one `Unpriced` for rows of a
                            setting that no cost model prices; `source`, a file, is what errors name

A table that no module knows is refused, and so is a row without a time.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from calibration.read.parquet import column_names, read_columns
from calibration.read.settings import Columns
from calibration.rows import BlockRows, KernelRows, TableRows, Unpriced
from hwmodels.errors import CalibrationError, listed

Rows = list[KernelRows | BlockRows | Unpriced]
"""Of one table."""


class Layout(NamedTuple):
    """How tables of one kind are laid out, and who reads them."""

    name: str
    columns: frozenset[str]
    source: str
    rows: Callable[[Columns, str], Rows]


@cache
def layouts() -> tuple[Layout, ...]:
    """Return every layout there is a module for, those that need most columns first."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        reader = importlib.import_module(f"{__name__}.{module.name}")
        found.append(Layout(module.name, frozenset(reader.COLUMNS), reader.SOURCE, reader.rows))
    return tuple(sorted(found, key=lambda layout: (-len(layout.columns), layout.name)))


def read_table(path: Path) -> TableRows:
    """Return the kernels of a parquet table, and which of its rows are none that have a price.

    Raises:
        MachineError: reading parquet needs pyarrow.
        CalibrationError: it is no parquet table, of no layout known, or holds no kernel.
    """
    names = column_names(path)
    layout = next((layout for layout in layouts() if layout.columns <= names), None)
    if layout is None:
        known = listed(layout.name for layout in layouts())
        raise CalibrationError(f"{path}: no table of timed kernels that is known ({known})")
    found = layout.rows(read_columns(path, sorted(names)), str(path))
    source = layout.source
    priced = [replace(rows, source=source) for rows in found if isinstance(rows, KernelRows)]
    blocks = [replace(rows, source=source) for rows in found if isinstance(rows, BlockRows)]
    unpriced = [rows for rows in found if isinstance(rows, Unpriced)]
    if not priced and not blocks:
        why = f" ({unpriced[0]})" if unpriced else ""
        raise CalibrationError(f"{path}: holds no kernel that a cost model prices{why}")
    return TableRows(priced, blocks, unpriced)
