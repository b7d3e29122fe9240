"""What fewer SMs and a copying neighbour cost."""

from dataclasses import dataclass

from calibration.judge.folder import OURS, Day
from calibration.judge.rates import seconds


@dataclass(frozen=True, slots=True)
class OnFewSms:
    """Bytes/s of a copying kernel on some SMs; of_all: over those on all of them, where known."""

    kernel: str
    sms: int
    bytes_per_s: float
    of_all: float | None


@dataclass(frozen=True, slots=True)
class Beside:
    """Time beside a copying kernel over the time beside one that only holds as many SMs."""

    kernel: str
    shape: str
    held_sms: int
    slowdown: float


def on_few_sms(day: Day) -> list[OnFewSms]:
    """Return copies on few SMs, kernel by kernel, fewest first."""
    whole = {(r.kernel, r.shape): r.bytes / seconds(r) for r in day.isolated()}
    found = []
    for row in day.rows:
        if row.mode != "limited" or row.provider != OURS or row.flops or not row.bytes:
            continue
        rate, full = row.bytes / seconds(row), whole.get((row.kernel, row.shape))
        found.append(OnFewSms(row.kernel, row.sms, rate, rate / full if full else None))
    return sorted(found, key=lambda each: (each.kernel, each.sms))


def beside(day: Day) -> list[Beside]:
    """Return the slowdown of each kernel and shape that was measured both ways."""
    held = {
        (row.kernel, row.shape, row.held_sms): seconds(row)
        for row in day.rows
        if row.mode == "limited" and row.provider == OURS
    }
    return sorted(
        (
            Beside(row.kernel, row.shape, row.held_sms, seconds(row) / held[key])
            for row in day.rows
            if row.mode == "beside" and (key := (row.kernel, row.shape, row.held_sms)) in held
        ),
        key=lambda each: -each.slowdown,
    )
