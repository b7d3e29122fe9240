"""Shapes that identify the constants of the cost model; again on fewer SMs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from calibration.gpu_day.day import Day
from calibration.gpu_day.parts import Estimate, of_rows
from calibration.gpu_day.sizes import Sizes
from calibration.measure.measurement import Point
from calibration.measure.plan import LIMITED_SMS

NUMBER, SHARE, LEAST_S = 5, 0.19, 0.0

LIMITED_EVERY = 3
"""One shape in so many is measured again on fewer SMs."""


def points(sizes: Sizes) -> list[Point]:
    """Return the design, then a part of it while idle programs hold 20 and 66 of 132 SMs.

    Families take turns, so that a cut-off anywhere leaves as much of one as of another.
    """
    whole = list(in_turns(sizes.design()))
    plain = [point for point in whole if not point.sustained][::LIMITED_EVERY]
    return [
        *whole,
        *(replace(point, mode="limited", held_sms=held) for held in LIMITED_SMS for point in plain),
    ]


def in_turns(families: Sequence[Sequence[Point]]) -> Iterator[Point]:
    """Yield the first of every family, then the second, and so on."""
    for turn in zip_longest(*families):
        yield from (point for point in turn if point is not None)


def estimate(sizes: Sizes) -> Estimate:
    """Return what it takes."""
    return of_rows(points(sizes))


def run(day: Day) -> None:
    """Measure the design."""
    day.measure(points(day.sizes))
