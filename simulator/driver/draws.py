"""Playing every draw of an experiment whose inputs are uncertain."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hwmodels.errors import InfeasibleError, InputError, listed
from simulator.driver.step import play
from simulator.experiment import Experiment
from simulator.tell.metrics import Metrics, metrics
from simulator.uncertainty import Draws, sample

Track = Callable[[Sequence[int]], Iterable[int]]
"""Passes the numbers of the draws on, one by one, and may show how far it is."""

KEPT_TERMS = ("breakdown_s.", "memory_bytes.total")


class StepResult(Protocol):
    """A played step to read numbers off: a whole `Result`, or one `Draw`."""

    @property
    def metrics(self) -> Metrics:
        """What the step achieved."""

    def resolved(self) -> Experiment:
        """Return the experiment that was played."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One played draw."""

    experiment: Experiment
    metrics: Metrics

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
        return Draw(experiment, metrics(play(experiment, pipelines=())))
    except InputError as error:
        numbers_of = draws.numbers(draw).items()
        values = listed(f"{path} = {value:.6g}" for path, value in numbers_of)
        raise InfeasibleError(f"uncertainty: draw {draw} with {values}: {error}") from None


def numbers(step_metrics: Metrics) -> dict[str, float]:
    """Return the numbers of a step by dotted path, those by rank and by part left out."""
    return dict(
        _leaves({name: getattr(step_metrics, name) for name in type(step_metrics).model_fields})
    )


def samples(draws: Iterable[Draw]) -> dict[str, tuple[float, ...]]:
    """Return each number of a step by draw; a term that a draw does not have is zero in it."""
    rows = [numbers(draw.metrics) for draw in draws]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: tuple(row.get(name, 0.0) for row in rows) for name in names}


def kept(sampled: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """Return the samples that results keep: headline numbers, phases and total memory."""
    return {n: v for n, v in sampled.items() if "." not in n or n.startswith(KEPT_TERMS)}


def _leaves(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)
