"""What one device can tell of an expert exchange: copies on few SMs, and the work around them.

Bandwidth against the number of SMs is what `saturating_sms` of a library means. Layout, permutation
and cast are what a dispatch does before anything leaves the GPU. And each kernel family beside a
copying kernel shows by how much an exchange slows it.
"""

from collections.abc import Iterator

from calibration.gpu_day.day import Day
from calibration.gpu_day.parts import Estimate, of_rows
from calibration.gpu_day.sizes import Sizes
from calibration.measure.measurement import Point
from calibration.measure.plan import BESIDE, HELD_SMS, HOPPER_SMS

NUMBER, SHARE, LEAST_S = 6, 0.06, 0.0

SMS = (4, 8, 12, 16, 20, 24, 32, 48, 64)
COPIES = ("probe_copy", "moe_permute", "moe_unpermute")
BEFORE = ("router", "moe_map", "quantize", "moe_permute", "moe_unpermute")


def points(sizes: Sizes) -> list[Point]:
    """Return copies on 4 to 64 SMs, what is done before an exchange, and families beside one."""
    return [*_copies(sizes), *_before(sizes), *_beside(sizes)]


def _copies(sizes: Sizes) -> Iterator[Point]:
    for sms in SMS:
        for kernel in COPIES:
            shape = sizes.shapes(kernel)[0]
            yield Point(kernel, shape, mode="limited", held_sms=HOPPER_SMS - sms)


def _before(sizes: Sizes) -> Iterator[Point]:
    for kernel in BEFORE:
        for shape in sizes.shapes(kernel):
            yield Point(kernel, shape)


def _beside(sizes: Sizes) -> Iterator[Point]:
    for kernel in BESIDE:
        shape = sizes.shapes(kernel)[0]
        yield Point(kernel, shape, mode="limited", held_sms=HELD_SMS)
        yield Point(kernel, shape, mode="beside", held_sms=HELD_SMS)


def estimate(sizes: Sizes) -> Estimate:
    """Return what it takes."""
    return of_rows(points(sizes))


def run(day: Day) -> None:
    """Measure them."""
    day.measure(points(day.sizes))
