"""Whether every kernel computes the right numbers here; those that do not are never timed."""

from datetime import UTC, datetime
from typing import Any

from calibration.gpu_day.day import Day
from calibration.gpu_day.files import (
    FAILED,
    NUMERICS,
    NUMERICS_COLUMNS,
    NUMERICS_ROWS,
    RIGHT,
    WRONG,
)
from calibration.gpu_day.parts import Estimate
from calibration.gpu_day.sizes import Sizes
from calibration.measure import numerics
from calibration.measure.machine import check_alive, first_line
from calibration.measure.measurement import Point, shape_text
from hwmodels.errors import MachineError
from kernels import names

NUMBER, SHARE, LEAST_S = 2, 0.16, 30.0

CHECK_S = 0.5
"""Of one check: float64 products of some TFLOP at 30 to 60 TFLOPS, and what it takes to begin."""


def points(sizes: Sizes) -> list[Point]:
    """Return what is checked, for it must be compiled."""
    return [Point(kernel, shape) for kernel in names() for shape in sizes.checked(kernel)]


def estimate(sizes: Sizes) -> Estimate:
    """Return what the checks take."""
    count = len(points(sizes))
    return Estimate(CHECK_S * count, f"{count} checks of {CHECK_S:g} s, most of it in float64")


def run(day: Day) -> None:
    """Check every kernel at two shapes, one of them ragged."""
    for point in points(day.sizes):
        check(day, point)


def check(day: Day, point: Point) -> None:
    """Check one kernel at one shape and configuration, unless that is known; tell the day."""
    table, known = day.table(NUMERICS, NUMERICS_COLUMNS, NUMERICS_ROWS)
    name = {"kernel": point.kernel, "shape": shape_text(point.shape), "config": point.config}
    rows = [row for row in known if all(row[key] == value for key, value in name.items())]
    if not rows:
        if not day.has_time():
            return
        rows = _rows(day, point)
        table.append(*({**name, **row} for row in rows))
    if any(row["verdict"] != RIGHT for row in rows):
        day.wrong.add((point.kernel, point.config))


def _rows(day: Day, point: Point) -> list[dict[str, Any]]:
    """Return a row for each output, or one that says why there is none."""
    here = {"device": day.machine.name, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    empty = {"output": "", "error": "", "bound": ""}
    why_not = day.begin("numbers", point)
    if why_not:
        return [{**empty, "verdict": FAILED, "note": why_not, **here}]
    try:
        found = numerics.check(point.kernel, point.shape, day.machine.device, **point.options())
        day.machine.finish()
    except MachineError:
        raise
    except Exception as error:  # whatever a kernel raises belongs in its row
        check_alive(day.machine, error)
        why = f"{type(error).__name__}: {first_line(error)}"
        return [{**empty, "verdict": FAILED, "note": why, **here}]
    return [
        {
            "output": each.output,
            "error": each.error,
            "bound": each.bound,
            "verdict": RIGHT if each.ok else WRONG,
            "note": each.note,
            **here,
        }
        for each in found
    ]
