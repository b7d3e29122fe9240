"""Of the rows of several tables, those of one chip and library: what one profile is of."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from calibration.read.tables import read_table
from calibration.rows import KernelRows, TableRows
from hwmodels.errors import CalibrationError, listed


def read_tables(paths: Iterable[Path]) -> TableRows:
    """Return the kernels of several tables, and which of their rows are none that have a price.

    Raises:
        MachineError, CalibrationError: see `read_table`.
    """
    tables = [read_table(path) for path in paths]
    return TableRows(
        [rows for table in tables for rows in table.priced],
        [rows for table in tables for rows in table.blocks],
        [rows for table in tables for rows in table.unpriced],
    )


def of_one_setting(
    rows: Sequence[KernelRows], chip: str | None, library: str | None, version: str | None
) -> list[KernelRows]:
    """Return one entry a family, all on one chip and of one library, the largest family first.

    A library's tables may be of several versions; without a version, a family is of the one with
    most rows.

    Args:
        chip, library, version: that count; None for whichever there is, which must be one chip and
            one library.

    Raises:
        CalibrationError: nothing is left, or of several settings.
    """
    if not rows:
        raise CalibrationError("tables: hold several kernels at once only, to which none is fitted")
    found = [each for each in rows if each.setting.counts(chip, library, version)]
    for option, names in (
        ("--chip", {each.setting.chip for each in found or rows}),
        ("--library", {each.setting.library for each in found or rows}),
    ):
        if len(names) > 1 or not found:
            have = listed(sorted(names))
            got = "none of what was asked for" if not found else "more than one"
            raise CalibrationError(f"{option}: the tables have {have}; got {got}")
    families: dict[str, KernelRows] = {}
    for each in sorted(found, key=len, reverse=True):
        families.setdefault(each.family, each)
    return list(families.values())
