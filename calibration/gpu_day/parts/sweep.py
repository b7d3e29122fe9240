"""Every configuration of every kernel that has a choice: what wins belongs in its `choose`."""

from dataclasses import replace

from calibration.gpu_day.day import Day
from calibration.gpu_day.parts import Estimate, numerics, of_rows
from calibration.gpu_day.sizes import Sizes
from calibration.measure.measurement import Point, config_text
from kernels import names

NUMBER, SHARE, LEAST_S = 4, 0.22, 0.0


def points(sizes: Sizes) -> list[Point]:
    """Return all configurations at all shapes, in rounds over the kernels.

    So a cut-off anywhere leaves as much of one kernel as of another.
    """
    rounds: list[list[Point]] = []
    for kernel in names():
        configs = [config_text(config) for config in sizes.configs(kernel)]
        for number, shape in enumerate(sizes.shapes(kernel) if len(configs) > 1 else ()):
            rounds += [[] for _ in range(number + 1 - len(rounds))]
            plain = Point(kernel, shape)
            rounds[number] += [plain, *(replace(plain, config=config) for config in configs)]
    return [point for each in rounds for point in each]


def checked(sizes: Sizes) -> list[Point]:
    """Return every configuration once, at a ragged shape, for its numbers to be checked."""
    configured = {(point.kernel, point.config) for point in points(sizes) if point.config}
    return [
        Point(kernel, sizes.checked(kernel)[-1], config=config)
        for kernel, config in sorted(configured)
    ]


def estimate(sizes: Sizes) -> Estimate:
    """Return what checks and rows take."""
    rows, checks = of_rows(points(sizes)), len(checked(sizes))
    return Estimate(
        rows.seconds + numerics.CHECK_S * checks,
        f"{checks} checks of numbers, {numerics.CHECK_S:g} s each; {rows.reason}",
    )


def run(day: Day) -> None:
    """Check the numbers of each configuration, then time those that are right."""
    for point in checked(day.sizes):
        if not day.excludes(point.kernel):
            numerics.check(day, point)
    day.measure(points(day.sizes))
