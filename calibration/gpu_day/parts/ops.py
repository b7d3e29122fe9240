"""Every distinct op of DeepSeek-V3's training and decode, by us and by every library."""

from calibration.gpu_day.day import Day
from calibration.gpu_day.parts import Estimate, of_rows
from calibration.gpu_day.sizes import Sizes
from calibration.measure.measurement import Point

NUMBER, SHARE, LEAST_S = 3, 0.20, 20.0


def points(sizes: Sizes) -> list[Point]:
    """Return the ops."""
    return sizes.ops()


def estimate(sizes: Sizes) -> Estimate:
    """Return what they take."""
    return of_rows(points(sizes))


def run(day: Day) -> None:
    """Measure them."""
    day.measure(points(day.sizes))
