"""Which configuration of a kernel won at which shape, against the one that `choose` took."""

from collections import defaultdict
from dataclasses import dataclass

from calibration.judge.folder import Day
from calibration.judge.rates import seconds
from calibration.measurement import Measurement


@dataclass(frozen=True, slots=True)
class Winner:
    """The fastest configuration at one shape.

    Attributes:
        config: its fields as JSON; time_s: what it took.
        chosen_s: what `choose`'s took.
        runner_up_s: what the second took; None where only one was tried.
    """

    kernel: str
    shape: str
    config: str
    time_s: float
    chosen_s: float
    runner_up_s: float | None
    tried: int

    @property
    def gain(self) -> float:
        """Time of `choose`'s configuration over the winner's; 1 where it won itself."""
        return max(1.0, self.chosen_s / self.time_s)


def winners(day: Day) -> list[Winner]:
    """Return the winner of each shape at which configurations were tried, largest gain first."""
    tried: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    for row in day.isolated(config=None):
        tried[row.kernel, row.shape].append(row)
    chosen = {(row.kernel, row.shape): seconds(row) for row in day.isolated()}
    found = [_winner(rows, chosen[key]) for key, rows in tried.items() if key in chosen]
    return sorted(found, key=lambda winner: (-winner.gain, winner.kernel, winner.shape))


def _winner(rows: list[Measurement], chosen_s: float) -> Winner:
    first, *others = sorted(rows, key=seconds)
    return Winner(
        first.kernel,
        first.shape,
        first.config,
        seconds(first),
        chosen_s,
        seconds(others[0]) if others else None,
        len(rows),
    )
