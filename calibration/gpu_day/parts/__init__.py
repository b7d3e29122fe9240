"""The parts of a day, one a file; the number of a file says when its turn is.

A part is a module with

    NUMBER            when its turn is: in order of worth
    SHARE             of the budget; LEAST_S: seconds that it gets at any rate
    points(sizes)     what it will measure, for those who compile ahead
    estimate(sizes)   seconds it would like, and why
    run(day)          the work; asks `day.has_time()` before each row
"""

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from calibration.measure.measurement import Point
from calibration.measure.plan import device_time_s
from hwmodels.errors import CalibrationError, suggestion

if TYPE_CHECKING:
    from calibration.gpu_day.day import Day
    from calibration.gpu_day.sizes import Sizes

ROW_HOST_S = 0.2
"""Of a row, beside what the device does: drawing inputs, two rounds of warming up, a file flush."""


class Estimate(NamedTuple):
    """Seconds that a part would like, and what they rest on."""

    seconds: float
    reason: str


class Part(Protocol):
    """What a file of this folder holds."""

    NUMBER: int
    SHARE: float
    LEAST_S: float

    def points(self, sizes: "Sizes") -> list[Point]:
        """Return what will be measured."""

    def estimate(self, sizes: "Sizes") -> Estimate:
        """Return what it would take."""

    def run(self, day: "Day") -> None:
        """Do it."""


@cache
def parts() -> dict[str, Part]:
    """Return all parts by name, in order of worth."""
    found = {
        info.name: cast("Part", importlib.import_module(f"{__name__}.{info.name}"))
        for info in pkgutil.iter_modules(__path__)
    }
    return dict(sorted(found.items(), key=lambda item: item[1].NUMBER))


def chosen(only: Sequence[str]) -> dict[str, Part]:
    """Return the parts of these names, in order of worth; all where none is named.

    Raises:
        CalibrationError: there is no such part; names the nearest.
    """
    known = parts()
    for name in only:
        if name not in known:
            raise CalibrationError(f"--only: no part {name!r}{suggestion(name, known)}")
    return {name: part for name, part in known.items() if not only or name in only}


def of_rows(points: Sequence[Point]) -> Estimate:
    """Return what measuring these points would take."""
    device_s, host_s = device_time_s(points), ROW_HOST_S * len(points)
    reason = (
        f"{len(points)} rows: {device_s:.0f} s on the device at 40 % of an H100's rates, and "
        f"{ROW_HOST_S:g} s a row around it (assumed)"
    )
    return Estimate(device_s + host_s, reason)
