"""Playing every draw of an experiment whose inputs are uncertain."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from hwmodels.errors import InfeasibleError, InputError, listed
from simulator.driver.points import play_in_turn
from simulator.driver.step import play
from simulator.experiment import Experiment
from simulator.tell.facts import FactsT
from simulator.tell.metrics import Metrics
from simulator.tell.outcome import Outcome, outcome
from simulator.uncertainty import Draws, sample

DRAWS_AT_ONCE = 64
"""Few enough for progress to be seen."""

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
    """Play every draw, a number of them at a time, and yield each in its turn.

    Raises:
        InfeasibleError: a draw cannot run; the message says which, and with what values.
    """
    played = play_in_turn(
        (_drawn(draws, draw) for draw in track(range(len(draws)))),
        at_once=DRAWS_AT_ONCE,
        named=lambda draw, _: _name(draws, draw),
    )
    return (Draw(step.experiment, outcome(step)) for step in played)


def _drawn(draws: Draws, draw: int) -> Experiment:
    try:
        return draws.drawn(draw)
    except InputError as error:
        raise InfeasibleError(f"{_name(draws, draw)}: {error}") from None


def _name(draws: Draws, draw: int) -> str:
    values = listed(f"{path} = {value:.6g}" for path, value in draws.numbers(draw).items())
    return f"uncertainty: draw {draw} with {values}"


def played_draws(experiment: Experiment, track: Track = iter) -> tuple[Draw, ...]:
    """Sample an experiment and play every draw; none where it asks for none."""
    drawn = experiment.uncertainty.draws > 0
    return tuple(play_draws(sample(experiment), track)) if drawn else ()


def samples(outcomes: Iterable[Outcome]) -> dict[str, tuple[float, ...]]:
    """Return each number by draw: headlines, phases and total memory, by dotted path."""
    rows = [each.numbers for each in outcomes]
    return {name: tuple(row[name] for row in rows) for name in rows[0]}
