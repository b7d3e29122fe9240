"""What fewer SMs and a copying neighbour cost."""

from collections import defaultdict
from dataclasses import dataclass

from calibration.judge.folder import OURS, Day
from calibration.judge.rates import seconds

SATURATED = 0.9
"""Of the rate on all SMs: from so much on, more SMs are no use."""


@dataclass(frozen=True, slots=True)
class OnSms:
    """A rate on some SMs, and as a share of that on all of them, None where that is not known."""

    sms: int
    bytes_per_s: float
    of_all: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """Bandwidth of one kernel and shape against SMs.

    Attributes:
        points: fewest SMs first.
        saturating_sms: the fewest measured that reach `SATURATED` of the rate on all; None where
            none does, or that rate is not known.
    """

    kernel: str
    shape: str
    points: tuple[OnSms, ...]
    saturating_sms: int | None


@dataclass(frozen=True, slots=True)
class Beside:
    """Slowdown by a neighbour that copies.

    Attributes:
        held_sms: the neighbour's.
        slowdown: time beside it over the time beside one that only holds as many SMs.
    """

    kernel: str
    shape: str
    held_sms: int
    slowdown: float


def curves(day: Day) -> list[Curve]:
    """Return kernels without matrix products that ran on fewer SMs, most SM counts first."""
    whole = {(row.kernel, row.shape): row.bytes / seconds(row) for row in day.isolated()}
    found: dict[tuple[str, str], list[OnSms]] = defaultdict(list)
    for row in day.rows:
        if row.mode != "limited" or row.provider != OURS or row.config or row.flops:
            continue
        rate, full = row.bytes / seconds(row), whole.get((row.kernel, row.shape))
        point = OnSms(row.sms, rate, rate / full if full else None)
        found[row.kernel, row.shape].append(point)
    made = [_curve(*key, points) for key, points in found.items()]
    return sorted(made, key=lambda curve: (-len(curve.points), curve.kernel, curve.shape))


def _curve(kernel: str, shape: str, points: list[OnSms]) -> Curve:
    points.sort(key=lambda point: point.sms)
    enough = (point.sms for point in points if point.of_all and point.of_all >= SATURATED)
    return Curve(kernel, shape, tuple(points), next(enough, None))


def beside(day: Day) -> list[Beside]:
    """Return each kernel and shape that was measured both ways, the most disturbed first."""
    ours = [row for row in day.rows if row.provider == OURS and not row.config]
    alone_s = {
        (row.kernel, row.shape, row.held_sms): seconds(row) for row in ours if row.mode == "limited"
    }
    return sorted(
        (
            Beside(row.kernel, row.shape, row.held_sms, seconds(row) / alone_s[key])
            for row in ours
            if row.mode == "beside" and (key := (row.kernel, row.shape, row.held_sms)) in alone_s
        ),
        key=lambda each: (-each.slowdown, each.kernel, each.shape),
    )
