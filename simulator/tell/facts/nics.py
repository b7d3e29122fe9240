"""What met on NICs, where a run shares them."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from rich.console import Console

from hwmodels.arrays import Floats
from simulator.lower.nic_crossings import TRAFFIC
from simulator.lower.played import Played
from simulator.tell.facts import Facts


class Nics(Facts):
    """How far shared NICs change a step.

    Attributes:
        step_s: the step; separate_step_s: the same if each kind of traffic had a NIC to itself.
        busy_s: seconds that each kind of traffic needs of its sender's NIC, mean over pipeline
            ranks.
        delay_s: seconds by which others on its NICs lengthened it, mean over pipeline ranks.
    """

    example: ClassVar[Mapping[str, Any]] = {"communication.nics": "shared"}

    kind: Literal["nics"] = "nics"
    step_s: float
    separate_step_s: float
    busy_s: dict[str, float]
    delay_s: dict[str, float]

    @classmethod
    def of(cls, played: Played) -> "Nics | None":
        """Return what met on the NICs of a pipeline; None where they are not shared."""
        explicit, shared = played.explicit, played.shared
        if explicit is not None and explicit.meetings is not None:
            separate_s, busy_s, delay_s = explicit.meetings
        elif shared is not None:
            separate_s = played.folded_timeline.makespan_s
            busy_s, delay_s = map(shared.by_traffic, (shared.alone.nic_s, shared.delay_s))
        else:
            return None

        def means(by_rank_s: Floats) -> dict[str, float]:
            # Rounding may fall below zero.
            by_kind = by_rank_s.mean(axis=1).clip(min=0.0)
            return dict(zip(TRAFFIC, by_kind.tolist(), strict=True))

        return cls(
            step_s=played.times.step_s,
            separate_step_s=separate_s,
            busy_s=means(busy_s),
            delay_s=means(delay_s),
        )

    def show(self, console: Console) -> None:
        """Print how far shared NICs change the step, and what they delay."""
        delays = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in self.delay_s.items())
        console.print(
            f"meeting on NICs: step {self.step_s / self.separate_step_s - 1:+.1%} "
            f"({self.separate_step_s:.2f} -> {self.step_s:.2f} s); "
            f"delays of a mean rank: {delays}",
            highlight=False,
        )
