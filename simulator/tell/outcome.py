"""What one play comes to: the numbers that are sampled draw by draw, and no more."""

from collections.abc import Mapping
from dataclasses import dataclass

from hwmodels.arrays import Floats
from simulator.lower.played import Played
from simulator.price.finite import check_finite
from simulator.tell.headlines import MEMORY, Headline
from simulator.tell.metrics import Metrics, metrics_of


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one play comes to; cheap, as every draw has one.

    Attributes:
        phases_s: (pipeline ranks,) seconds of each phase, by name.
        memory_bytes: terms of the fullest rank, and their `total`.
    """

    metrics: Metrics
    phases_s: dict[str, Floats]
    memory_bytes: dict[str, float]

    @property
    def breakdown_s(self) -> dict[str, float]:
        """Seconds of each phase, mean over pipeline ranks."""
        return {name: float(seconds.mean()) for name, seconds in self.phases_s.items()}

    @property
    def numbers(self) -> dict[str, float]:
        """What is sampled, by dotted path in a result."""
        return numbers(self.metrics, self.breakdown_s, self.memory_bytes)


def outcome(played: Played) -> Outcome:
    """Return what a play comes to.

    Raises:
        InfeasibleError: a number of it is not finite.
    """
    metrics, phases_s = metrics_of(played), played.times.phases
    fullest = max(played.program.memory_bytes, key=lambda terms: sum(terms.values()))
    total = sum(fullest.values())
    check_finite(list(phases_s.values()), lambda place: f"seconds of phase {list(phases_s)[place]}")
    check_finite([total], lambda _: "bytes of memory")
    return Outcome(metrics, phases_s, fullest | {"total": total})


def numbers(
    metrics: Metrics, breakdown_s: Mapping[str, float], memory_bytes: Mapping[str, float]
) -> dict[str, float]:
    """Return what is sampled of a result, by dotted path; `headlines` says what each is."""
    phases = {phase_path(name): seconds for name, seconds in breakdown_s.items()}
    return metrics.numbers | phases | {MEMORY.name: memory_bytes["total"]}


def headlines(metrics: Metrics | type[Metrics], phases: Mapping[str, str]) -> tuple[Headline, ...]:
    """Return what these numbers are, in the same order.

    Args:
        metrics: or a kind of them.
        phases: of the breakdown, with words for people.
    """
    seconds = (Headline(phase_path(name), words, "s") for name, words in phases.items())
    return (*metrics.headline, *seconds, MEMORY)


def phase_path(name: str) -> str:
    """Return the dotted path of the seconds of a phase."""
    return f"breakdown_s.{name}"
