"""The folder of a day, read again; a file that is missing, or cut off, holds fewer rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.append_csv import whole_rows
from calibration.measurement import Measurement, measurement_of, read_rows
from hwmodels.errors import CalibrationError

RECORD, ROWS = "day.json", "rows.csv"
CHECK_COLUMNS = ("kernel", "shape", "config", "output", "error", "bound", "verdict", "note",
                 "device", "date")  # fmt: skip
STACK_COLUMNS = ("layer", "pass", "number", "op", "kernel", "shape", "mode", "time_s", "p20_s",
                 "p80_s", "repeats", "device", "date", "error")  # fmt: skip
OURS = "moesim"


@dataclass(frozen=True, slots=True)
class Day:
    """What was measured.

    Attributes:
        record: of `day.json`: device, versions, parts, what ended its process.
        rows: that have a time; failed: those that say why they have none.
        checks: of `numerics.csv`, as text by column.
        stack: of `stack.csv`, likewise.
    """

    path: Path
    record: dict[str, Any]
    rows: tuple[Measurement, ...]
    failed: tuple[Measurement, ...]
    checks: tuple[dict[str, str], ...]
    stack: tuple[dict[str, str], ...]

    @property
    def device(self) -> str:
        """Name of the device."""
        return str(self.record["device"]["name"])

    @property
    def measured(self) -> bool:
        """Whether times are those of a device; an interpreter's are made up."""
        return bool(self.record["device"].get("capability"))

    @property
    def wrong(self) -> tuple[tuple[str, str], ...]:
        """Kernels, with their configuration, that computed something else than their reference."""
        bad = {(c["kernel"], c["config"]) for c in self.checks if c["verdict"] != "right"}
        return tuple(sorted(bad))

    def isolated(self, *, provider: str = OURS, config: str | None = "") -> list[Measurement]:
        """Return rows of kernels alone on the device, not sustained.

        Args:
            config: of a row; None for those with one.
        """
        return [
            row
            for row in self.rows
            if row.mode == "isolated"
            and not row.sustained
            and row.provider == provider
            and (bool(row.config) if config is None else row.config == config)
        ]


def read_day(path: Path) -> Day:
    """Read the folder of a day.

    Raises:
        CalibrationError: it is no such folder, or a file in it holds something else.
    """
    if not path.is_dir():
        what = "a file" if path.exists() else "nothing"
        raise CalibrationError(f"{path}: expected the folder of a day on a GPU, got {what}")
    record_file = path / RECORD
    try:
        record = json.loads(record_file.read_text(encoding="utf-8"))
        parts, device = record["parts"], record["device"]["name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise CalibrationError(
            f"{path}: expected a folder that python -m calibration.gpu_day wrote, "
            f"with a {RECORD}; got none that can be read"
        ) from None
    if not isinstance(parts, dict) or not isinstance(device, str):
        raise CalibrationError(f"{record_file}: expected a record of parts and a device's name")
    file = path / ROWS
    rows = [measurement_of(row, str(file)) for row in read_rows(file)] if file.exists() else []
    return Day(
        path,
        record,
        tuple(row for row in rows if row.time_s),
        tuple(row for row in rows if not row.time_s),
        _table(path / "numerics.csv", CHECK_COLUMNS, "checked numbers"),
        _table(path / "stack.csv", STACK_COLUMNS, "timed layers"),
    )


def _table(path: Path, columns: Sequence[str], what: str) -> tuple[dict[str, str], ...]:
    return tuple(whole_rows(path, columns, what)) if path.exists() else ()
