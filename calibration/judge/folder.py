"""The folder of a day, read again; a file that is missing, or cut off, holds fewer rows.

Only what can be judged by is kept: rows of the device that the record names, and none of a kernel
whose numbers are wrong. What is left out is named.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.gpu_day.files import (
    NUMERICS,
    NUMERICS_COLUMNS,
    NUMERICS_ROWS,
    RECORD,
    RIGHT,
    ROWS,
    SCHEMA,
)
from calibration.measure.append_csv import whole_rows
from calibration.measure.measurement import Measurement, measurement_of, read_rows
from hwmodels.errors import CalibrationError, shown

OURS = "moesim"


@dataclass(frozen=True, slots=True)
class WrongKernel:
    """A kernel that computed something else than its reference, or could not be checked.

    Attributes:
        config: fields of its configuration as JSON; empty for what `choose` picks, which leaves
            out the kernel altogether.
        verdict, note: of the check.
        rows: of it that are left out for that; none where it was found before it was timed.
    """

    kernel: str
    config: str
    verdict: str
    note: str
    rows: int


@dataclass(frozen=True, slots=True)
class OtherDevice:
    """A device that is not the one judged, and how many rows of it are left out."""

    device: str
    rows: int


@dataclass(frozen=True, slots=True)
class Day:
    """What can be judged by.

    Attributes:
        path: the folder.
        record: `day.json`: device, versions, parts.
        rows: that have a time; failed: those that say why they have none.
        wrong, others: what was left out.
        checked: kernels whose numbers, as `choose` configures them, are right.
    """

    path: Path
    record: dict[str, Any]
    rows: tuple[Measurement, ...]
    failed: tuple[Measurement, ...]
    wrong: tuple[WrongKernel, ...]
    others: tuple[OtherDevice, ...]
    checked: frozenset[str]

    @property
    def device(self) -> str:
        """Name of the device."""
        return str(self.record["device"]["name"])

    @property
    def sms(self) -> int:
        """SMs of the device."""
        return int(self.record["device"]["sms"])

    def isolated(self, *, provider: str = OURS) -> list[Measurement]:
        """Return rows of kernels alone on the device, for a moment, as `choose` configures them."""
        return [
            row
            for row in self.rows
            if row.mode == "isolated"
            and not row.sustained
            and not row.config
            and row.provider == provider
        ]


def read_record(path: Path) -> dict[str, Any]:
    """Return what `day.json` of a folder holds.

    Raises:
        CalibrationError: it is no folder of a day, its record is damaged, or it is of a dry run,
            whose times mean nothing.
    """
    if not path.is_dir():
        what = "a file" if path.exists() else "nothing there"
        raise CalibrationError(f"{path}: expected the folder of a day on a GPU, got {what}")
    record = _record(path)
    if record["device"]["capability"] is None:
        raise CalibrationError(
            f"{path}: a dry run ({record['device']['name']}): its times mean nothing; judge a day "
            "without --dry-run"
        )
    return record


def read_day(path: Path) -> Day:
    """Read the folder of a day.

    Raises:
        CalibrationError: it is no such folder, a file in it holds something else, nothing was
            measured, or it is of a dry run, whose times mean nothing.
    """
    day = read_kept(path)
    if not day.rows and not any(each.rows for each in day.wrong):
        file = path / ROWS
        raise CalibrationError(f"{file}: has no time measured on {day.device}, nothing to judge")
    return day


def read_kept(path: Path) -> Day:
    """Read what there is to judge by in the folder of a day, be it nothing.

    Raises:
        CalibrationError: as `read_day`, but for a day that measured nothing.
    """
    record = read_record(path)
    device = record["device"]["name"]
    every = _measurements(path)
    checks = _checks(path)
    here = [row for row in every if row.device == device]
    wrong = _wrong((check for check in checks if check["device"] == device), here)
    kept = [row for row in here if not any(_is_of(row, each) for each in wrong)]
    other = Counter(row.device for row in every if row.device != device)
    return Day(
        path=path,
        record=record,
        rows=tuple(row for row in kept if row.time_s),
        failed=tuple(row for row in kept if not row.time_s),
        wrong=wrong,
        others=tuple(OtherDevice(*each) for each in sorted(other.items())),
        checked=frozenset(
            check["kernel"] for check in checks if check["device"] == device and not check["config"]
        )
        - {each.kernel for each in wrong if not each.config},
    )


def _record(path: Path) -> dict[str, Any]:
    """Return what `day.json` holds, as far as it is read here.

    Raises:
        CalibrationError: there is none, or it is damaged.
    """
    file = path / RECORD
    if not file.is_file():
        raise CalibrationError(
            f"{path}: has no {RECORD}; expected a folder that python -m calibration.gpu_day wrote"
        )
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{file}: is no record of a day: {error}") from None
    if isinstance(record, dict) and record.get("schema") != SCHEMA:
        got = shown(record.get("schema"))
        raise CalibrationError(f"{file}: schema {got} of a day; this version reads {SCHEMA}")
    device = record.get("device") if isinstance(record, dict) else None
    if not isinstance(device, dict) or not isinstance(record.get("parts"), dict):
        raise CalibrationError(f"{file}: is no record of a day: must have a device and parts")
    for name, kind, allowed in (
        ("name", str, "text"),
        ("sms", int, "a whole number"),
        ("capability", int | None, "a whole number, or null for a dry run"),
    ):
        if name not in device or not isinstance(device[name], kind):
            got = shown(device.get(name))
            raise CalibrationError(
                f"{file}: is no record of a day: device.{name} must be {allowed}, got {got}"
            )
    for name, part in record["parts"].items():
        if not isinstance(part, dict) or not {"state", "seconds", "rows", "error"} <= set(part):
            raise CalibrationError(f"{file}: is no record of a day: part {name} is {shown(part)}")
    return dict(record)


def _measurements(path: Path) -> list[Measurement]:
    file = path / ROWS
    return [measurement_of(row, str(file)) for row in read_rows(file)] if _is_there(file) else []


def _checks(path: Path) -> list[dict[str, str]]:
    file = path / NUMERICS
    return whole_rows(file, NUMERICS_COLUMNS, NUMERICS_ROWS) if _is_there(file) else []


def _is_there(file: Path) -> bool:
    """Return whether a file is there; one that a day had no time to begin is not.

    Raises:
        CalibrationError: a folder is in its place.
    """
    if file.is_dir():
        raise CalibrationError(f"{file}: expected a CSV file, got a folder")
    return file.exists()


def _wrong(checks: Iterable[dict[str, str]], rows: list[Measurement]) -> tuple[WrongKernel, ...]:
    """Return each kernel and configuration of which any output is not right, once."""
    found: dict[tuple[str, str], WrongKernel] = {}
    for check in checks:
        if check["verdict"] == RIGHT:
            continue
        kernel, config = check["kernel"], check["config"]
        note = check["note"] or f"output {check['output']}: {check['error']} > {check['bound']}"
        each = WrongKernel(kernel, config, check["verdict"], note, 0)
        count = sum(_is_of(row, each) for row in rows)
        found.setdefault(
            (kernel, config), WrongKernel(kernel, config, check["verdict"], note, count)
        )
    return tuple(found[key] for key in sorted(found))


def _is_of(row: Measurement, wrong: WrongKernel) -> bool:
    """Return whether a row is of a wrong kernel; the libraries' are of their own code."""
    same = row.kernel == wrong.kernel and wrong.config in {"", row.config}
    return same and row.provider == OURS
