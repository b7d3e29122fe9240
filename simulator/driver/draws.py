"""Playing every draw of an experiment whose inputs are uncertain."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from hwmodels.errors import InfeasibleError, InputError, listed
from simulator.driver.step import play
from simulator.experiment import Experiment
from simulator.tell.facts import FactsT
from simulator.tell.metrics import Metrics
from simulator.tell.outcome import Outcome, outcome
from simulator.uncertainty import Draws, sample

Track = Callable[[Sequence[int]], Iterable[int]]
"""Passes the numbers of the draws on, one by one, and may show how far it is."""


class StepResult(Protocol):
    """A played step to read numbers off: a whole `Result`, or one `Draw`."""

    @property
    def metrics(self) -> Metrics:
        """What the step achieved."""

    def phase_s(self, name: str, rank: int | None = None) -> float:
        """Return the seconds of a phase, mean over pipeline ranks or of one."""

    def fact(self, kind: type[FactsT]) -> FactsT | None:
        """Return the facts of a kind; None where the step has none."""

    def resolved(self) -> Experiment:
        """Return the experiment that was played."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One played draw."""

    experiment: Experiment
    outcome: Outcome

    @property
    def metrics(self) -> Metrics:
        """What the step achieved."""
        return self.outcome.metrics

    def phase_s(self, name: str, rank: int | None = None) -> float:
        """Return the seconds of a phase, mean over pipeline ranks or of one."""
        seconds = self.outcome.phases_s[name]
        return float(seconds.mean() if rank is None else seconds[rank])

    def fact(self, kind: type[FactsT]) -> FactsT | None:
        """Return the facts of a kind, of the step played again: draws keep numbers only."""
        return kind.of(play(self.experiment, pipelines=(), critical=True))

    def resolved(self) -> Experiment:
        """Return the experiment that was played."""
        return self.experiment


def play_draws(draws: Draws, track: Track = iter) -> Iterator[Draw]:
    """Play every draw, in order, one at a time.

    Raises:
        InfeasibleError: a draw cannot run; the message says which, and with what values.
    """
    return (_play(draws, draw) for draw in track(range(len(draws))))


def played_draws(experiment: Experiment, track: Track = iter) -> tuple[Draw, ...]:
    """Sample an experiment and play every draw; none where it asks for none."""
    drawn = experiment.uncertainty.draws > 0
    return tuple(play_draws(sample(experiment), track)) if drawn else ()


def _play(draws: Draws, draw: int) -> Draw:
    try:
        experiment = draws.drawn(draw)
        return Draw(experiment, outcome(play(experiment, pipelines=())))
    except InputError as error:
        numbers_of = draws.numbers(draw).items()
        values = listed(f"{path} = {value:.6g}" for path, value in numbers_of)
        raise InfeasibleError(f"uncertainty: draw {draw} with {values}: {error}") from None


def samples(outcomes: Iterable[Outcome]) -> dict[str, tuple[float, ...]]:
    """Return each number by draw: headlines, phases and total memory, by dotted path."""
    rows = [each.numbers for each in outcomes]
    return {name: tuple(row[name] for row in rows) for name in rows[0]}
