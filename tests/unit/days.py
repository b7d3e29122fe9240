"""Days on a GPU that never were: a folder like one that `calibration.gpu_day` writes."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calibration.gpu_day.files import NUMERICS, NUMERICS_COLUMNS, RECORD, RIGHT, ROWS
from calibration.judge.targets import TARGETS
from calibration.measure.measurement import COLUMNS, Measurement, shape_text

DEVICE, SMS = "NVIDIA H100 80GB HBM3", 132
COPY_BYTES_PER_S = 2e12


def timed(
    kernel: str, shape: Mapping[str, Any], time_s: float | None, **changed: Any
) -> Measurement:
    """Return a row; without a time, one that failed. Its quantiles are 1 % to either side."""
    held = changed.get("held_sms", 0)
    values: dict[str, Any] = {
        "kernel": kernel,
        "provider": "moesim",
        "library": "triton",
        "version": "3.7.1",
        "shape": shape_text(shape),
        "mode": "limited" if held else "isolated",
        "held_sms": held,
        "sms": SMS - held,
        "sustained": 0,
        "time_s": time_s,
        "p20_s": time_s and time_s * 0.99,
        "p80_s": time_s and time_s * 1.01,
        "repeats": 30,
        "flops": 0.0,
        "bytes": 0.0,
        "sm_clock_hz": 1.7e9,
        "power_w": None,
        "temperature_c": None,
        "device": DEVICE,
        "driver": "570",
        "torch": "2.11",
        "triton": "3.7.1",
        "date": "2026-01-01T00:00:00+00:00",
        "error": "" if time_s else "RuntimeError: out of shared memory",
    }
    return Measurement(**values | changed)


def checked(kernel: str, verdict: str = RIGHT, **changed: str) -> dict[str, str]:
    """Return a check of a kernel's numbers."""
    row = dict.fromkeys(NUMERICS_COLUMNS, "")
    return row | {"kernel": kernel, "verdict": verdict, "device": DEVICE} | changed


def write_day(
    folder: Path,
    rows: Iterable[Measurement],
    checks: Iterable[Mapping[str, str]] = (),
    **device: Any,
) -> Path:
    """Write the files of a day; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"name": DEVICE, "capability": 90, "sms": SMS, "driver": "570"} | device
    part = {"state": "done", "seconds": 1.0, "rows": 1, "error": ""}
    record = {"schema": 1, "device": facts, "versions": {"triton": "3.7.1"}, "parts": {"ops": part}}
    (folder / RECORD).write_text(json.dumps(record))
    write_table(folder / ROWS, COLUMNS, map(asdict, rows))
    write_table(folder / NUMERICS, NUMERICS_COLUMNS, checks)
    return folder


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table as `AppendCsv` does, but do not wait for the disk after each row."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def copies() -> list[Measurement]:
    """Return a large copy at `COPY_BYTES_PER_S`, and a small one that its L2 makes faster."""
    return [
        timed("probe_copy", {"bytes": 1 << 30}, 2**31 / COPY_BYTES_PER_S, bytes=2.0**31),
        timed("probe_copy", {"bytes": 1 << 20}, 2**21 / COPY_BYTES_PER_S / 3, bytes=2.0**21),
    ]


def on_target(factor: float = 1.0) -> list[Measurement]:
    """Return every shape of every target at `factor` times what it should reach.

    Where a kernel has two targets at the same shapes, the later is of the library's time.
    """
    rows: dict[tuple[str, str], Measurement] = {}
    for target in TARGETS:
        for shape in target.shapes:
            at = target.least * factor
            key = target.kernel, shape_text(shape)
            if target.unit == "TFLOPS":
                rows[key] = timed(target.kernel, shape, 1e-3, flops=at * 1e9, bytes=1e6)
            elif target.unit == "% of copy":
                bytes_ = at / 100 * COPY_BYTES_PER_S * 1e-3
                rows[key] = timed(target.kernel, shape, 1e-3, bytes=bytes_)
            else:
                library_s = at / 100 * 1e-3
                rows[*key, "torch"] = timed(target.kernel, shape, library_s, provider="torch")
    return [*copies(), *rows.values()]


def all_right() -> list[dict[str, str]]:
    """Return a check of every kernel that has a target, and of the copy."""
    return [checked(kernel) for kernel in {"probe_copy", *(target.kernel for target in TARGETS)}]
