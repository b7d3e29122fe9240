"""Runs a study: its points through a search and an executor into its folder."""

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from hwmodels.errors import InputError, SpecError
from simulator.driver.points import AT_ONCE
from simulator.experiment import Experiment
from simulator.study.axes import is_number
from simulator.study.description import describe
from simulator.study.document import StudySpec
from simulator.study.executors import Executor, executor
from simulator.study.points import Grid
from simulator.study.rows import Done, Payload, Row, Task, work
from simulator.study.searches import Search, rounds
from simulator.study.store import StudyFolder, schema_of
from simulator.tell.study_table import StudyDocument, StudyTable

TASKS_EACH = 8
"""Tasks of a worker in a study, at least: so that none waits long for the last."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a study is.

    Attributes:
        done, total: points; the total grows where a search goes on.
        best: row that is best in the first objective so far.
    """

    done: int
    total: int
    best: Row | None


Track = Callable[[Progress], object]


@dataclass(frozen=True, eq=False)
class Study:
    """A study ready to run.

    Attributes:
        grid: its points.
        document: what its folder says of it.
    """

    grid: Grid
    document: StudyDocument

    @classmethod
    def of(cls, spec: StudySpec, overrides: Mapping[str, Any] | None = None) -> "Study":
        """Return a study, everything in its document looked at.

        Args:
            overrides: values of its experiment to change, by path.

        Raises:
            InputError: the document asks for what there is not.
        """
        base = spec.base(dict(overrides or {}))
        grid = Grid.of(spec, base)
        return cls(grid, describe(grid))

    @property
    def spec(self) -> StudySpec:
        """What was asked."""
        return self.grid.spec

    @property
    def base(self) -> Experiment:
        """The experiment that axes start from."""
        return self.grid.base

    def row(self, point: int) -> Row:
        """Return the row of one point, looked at alone.

        Raises:
            SpecError: there is no such point, or conditions leave it out.
        """
        if not 0 <= point < len(self.grid):
            raise SpecError(f"--point: must be from 0 to {len(self.grid) - 1}, got {point}")
        done = work(self._payload, Task(self.spec.search.fidelity, (point,)))
        if not done.rows:
            raise SpecError(f"--point {point}: the study's conditions leave it out")
        return done.rows[0]

    @property
    def _payload(self) -> Payload:
        return Payload.of(self.spec, self.base)

    def run(
        self,
        folder: Path,
        *,
        executor_name: str = "local",
        workers: int | None = None,
        resume: bool = False,
        track: Track = lambda _: None,
    ) -> StudyTable:
        """Look at every point, keep its row in the folder, and return the table.

        Args:
            executor_name: a module of `simulator.study.executors`.
            workers: processes; one for each core by default.
            resume: go on with what the folder holds.
            track: is told how far it is after each task.

        Raises:
            InputError: the folder holds another study, another process is at work there, or there
                is no such executor.
            MachineError: the folder cannot be written, or a worker was killed.
        """
        chosen = executor(executor_name)
        workers = _cores() if workers is None else workers
        if workers < 1:
            raise InputError(f"workers: must be 1 or more, got {workers}")
        schema = schema_of(self.document, self._beside())
        with closing(StudyFolder.open(folder, self.document, schema, resume=resume)) as store:
            if store.is_complete:
                return StudyTable.load(folder)
            self._look(store, chosen, workers, track)
            return store.compact()

    def _look(self, store: StudyFolder, way: Executor, workers: int, track: Track) -> None:
        """Look at every point whose row is missing, round by round."""
        batch = max(1, min(AT_ONCE, -(-len(self.grid) // (TASKS_EACH * workers))))
        search = Search(self.spec.search, self.document, self.grid.by_program(), store.rows, batch)
        progress, payload = _Progress(self.document, track), self._payload
        for tasks in rounds(search):
            missing = store.missing(tasks)
            progress.expects(tasks, missing)
            with closing(way.run(partial(work, payload), missing, workers)) as every:
                for done in every:  # closed at once if this fails, lest workers are left behind
                    store.add(done)
                    progress.met(done)

    def _beside(self) -> dict[str, pa.DataType]:
        """Return the columns of fields that move with the first of an axis."""
        beside = {}
        for axis in self.grid.axes:
            for place, path in enumerate(axis.paths[1:], start=1):
                numbers = all(is_number(values[place]) for values in axis.values)
                beside[path] = pa.float64() if numbers else pa.string()
        return beside


def run_study(spec: StudySpec, folder: Path, **options: Any) -> StudyTable:
    """Run a study into a folder and return its table; options as of `Study.run`."""
    return Study.of(spec).run(folder, **options)


class _Progress:
    """Counts points and keeps the best row."""

    def __init__(self, document: StudyDocument, track: Track) -> None:
        self.decisive = document.objectives[0]
        columns = {column.name: column for column in document.columns}
        self.sign = -1.0 if columns[self.decisive].better == "more" else 1.0
        self.track, self.done, self.total = track, 0, 0
        self.best: Row | None = None

    def expects(self, tasks: list[Task], missing: list[Task]) -> None:
        """Take more tasks in, of which those that are not missing are done."""
        points, left = (sum(len(task.points) for task in some) for some in (tasks, missing))
        self.total += points
        self.done += points - left
        self.track(Progress(self.done, self.total, self.best))

    def met(self, done: Done) -> None:
        """Take in what came of a task."""
        self.done += len(done.task.points)
        able = [row for row in done.rows if row.get(self.decisive) is not None]
        known = [self.best] if self.best else []
        self.best = min(
            [*known, *able], key=lambda row: self.sign * row[self.decisive], default=None
        )
        self.track(Progress(self.done, self.total, self.best))


def _cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
