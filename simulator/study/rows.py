"""Rows of a study: points played side by side, or screened, as columns of a table.

A point that cannot run is a row with its reason. Rows do not depend on what they were played with:
each comes out alone as it does among others, to the last bit.
"""

import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from hwmodels.errors import InputError
from simulator.driver.draws import play_draws, samples
from simulator.driver.points import attempts
from simulator.experiment import Experiment
from simulator.study.document import StudySpec
from simulator.study.economics import economics
from simulator.study.points import Grid
from simulator.study.screen import screen
from simulator.tell.intervals import quantiles
from simulator.tell.outcome import outcome
from simulator.tell.study_table import FEASIBLE, FIDELITY, POINT, REASON, SEED
from simulator.uncertainty import sample

Fidelity = Literal["play", "screen"]
Row = dict[str, Any]


class Task(NamedTuple):
    """Points to look at together; one worker's work."""

    fidelity: Fidelity
    points: tuple[int, ...]


class Done(NamedTuple):
    """What came of a task.

    Attributes:
        rows: of points that the study's conditions admit.
        seconds: that it took, by the clock of the worker.
    """

    task: Task
    rows: list[Row]
    seconds: float


class Payload(NamedTuple):
    """A study on its way to a worker."""

    pickled: bytes

    @classmethod
    def of(cls, spec: StudySpec, base: Experiment) -> "Payload":
        """Return a study of `base` as a worker takes it."""
        return cls(pickle.dumps((spec, base)))


def work(payload: Payload, task: Task) -> Done:
    """Return what comes of a task, in whatever process this is."""
    started = time.perf_counter()
    rows = list(_evaluator(payload).rows(task))
    return Done(task, rows, time.perf_counter() - started)


@lru_cache(maxsize=1)
def _evaluator(payload: Payload) -> "Evaluator":
    spec, base = pickle.loads(payload.pickled)
    return Evaluator(Grid.of(spec, base))


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Looks at points of one study."""

    grid: Grid

    def rows(self, task: Task) -> Iterator[Row]:
        """Yield the row of each point of a task that the study's conditions admit."""
        found = [self._experiment(point) for point in task.points]
        ready = [experiment for experiment in found if isinstance(experiment, Experiment)]
        numbers = iter(_screened(ready) if task.fidelity == "screen" else _played(ready))
        for point, experiment in zip(task.points, found, strict=True):
            if experiment is None:
                continue
            told = experiment if isinstance(experiment, InputError) else next(numbers)
            feasible = not isinstance(told, InputError)
            yield {
                POINT: point,
                **self.grid.shown(point),
                FEASIBLE: feasible,
                REASON: "" if feasible else str(told),
                FIDELITY: task.fidelity,
                SEED: self._seed(experiment),
                **(told if isinstance(told, dict) else {}),
                **self._economics(experiment, told),
            }

    def _experiment(self, point: int) -> Experiment | InputError | None:
        """Return the experiment of a point, why it is none, or None where it is not asked for."""
        try:
            return self.grid.experiment(point) if self.grid.admits(point) else None
        except InputError as error:
            return error

    def _seed(self, experiment: Experiment | InputError) -> int | None:
        """Return what the chance of a point begins with."""
        return experiment.ranks.seed if isinstance(experiment, Experiment) else None

    def _economics(
        self, experiment: Experiment | InputError, told: dict[str, float] | InputError
    ) -> dict[str, float]:
        if isinstance(experiment, InputError) or isinstance(told, InputError):
            return {}
        return economics(experiment, told["tokens_per_s_per_gpu"], self.grid.spec.usd_per_gpu_hour)


def _played(experiments: Sequence[Experiment]) -> Iterator[dict[str, float] | InputError]:
    for experiment, played in zip(experiments, attempts(experiments), strict=True):
        if isinstance(played, InputError):
            yield played
            continue
        try:
            yield outcome(played).numbers | _spread(experiment)
        except InputError as error:
            yield error


def _spread(experiment: Experiment) -> dict[str, float]:
    """Return P10 and P90 of each number of an experiment that asks for draws."""
    if not experiment.uncertainty.draws:
        return {}
    sampled = samples(draw.outcome for draw in play_draws(sample(experiment)))
    ends: dict[str, float] = {}
    for name, values in sampled.items():
        p10, _, p90 = quantiles(values)
        ends |= {f"{name}.p10": p10, f"{name}.p90": p90}
    return ends


def _screened(experiments: Sequence[Experiment]) -> Iterator[dict[str, float] | InputError]:
    for experiment in experiments:
        try:
            yield screen(experiment).numbers
        except InputError as error:
            yield error
