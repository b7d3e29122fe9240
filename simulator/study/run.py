"""Runs a study: its points through a search and an executor into its folder."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from hwmodels.errors import InputError, SpecError, shown, suggestion
from simulator.driver.points import AT_ONCE
from simulator.experiment import Experiment
from simulator.study.axes import is_number
from simulator.study.document import StudySpec
from simulator.study.economics import COLUMNS
from simulator.study.executors import Executor, executor
from simulator.study.points import Grid
from simulator.study.rows import Done, Payload, Row, Task, work
from simulator.study.searches import Search, rounds
from simulator.study.store import StudyFolder, schema_of
from simulator.tell.headlines import Headline
from simulator.tell.metrics import Metrics
from simulator.tell.outcome import headlines
from simulator.tell.study_table import KEPT, StudyDocument, StudyTable
from workloads.phases import PHASES

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
        return cls(grid, _document(grid))

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


def _document(grid: Grid) -> StudyDocument:
    """Return what the folder of a study says of it.

    Raises:
        InputError: an objective is no number of a row, two columns have one name, or a figure asks
            for what there is not.
    """
    spec, base = grid.spec, grid.base
    columns = _columns(spec, drawn=base.uncertainty.draws > 0)
    known = [column.name for column in columns]
    beside = [path for axis in grid.axes for path in axis.paths[1:]]
    every = Counter([*KEPT, *(axis.name for axis in grid.axes), *beside, *known])
    if twice := [name for name, count in every.items() if count > 1]:
        raise SpecError(f"axes: {shown(twice[0])} is another column's name; call it otherwise")
    for name in spec.objectives:
        if name not in known:
            why = suggestion(name, known)
            if name == "tokens_per_usd":
                why = "; it needs usd_per_gpu_hour"
            raise SpecError(f"objectives: no number {name!r} in a row{why}")
    asked, resolved = spec.model_dump(mode="json", by_alias=True), base.model_dump(mode="json")
    document = StudyDocument(
        name=spec.name,
        title=spec.title,
        about=spec.about,
        axes=tuple(axis.column for axis in grid.axes),
        columns=columns,
        objectives=spec.objectives,
        figures=spec.figures,
        points=len(grid),
        digest=_digest(grid, [asked, resolved]),
        asked=asked,
        base=resolved,
        version=_version(),
    )
    if document.figures:
        from simulator.tell.study_figures import check_figures  # noqa: PLC0415 - loads matplotlib

        check_figures(document)
    return document


def _digest(grid: Grid, documents: list[Any]) -> str:
    """Return a digest of all that rows depend on: what was asked, what is drawn, what files of
    presets say, and the version.
    """
    sources = {path: source.model_dump() for path, source in grid.base.sources.items()}
    drawn = sources if grid.base.uncertainty.draws else None
    presets = [axis.digest for axis in grid.axes]
    key = json.dumps([documents, drawn, presets, _version()], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()


def _columns(spec: StudySpec, *, drawn: bool) -> tuple[Headline, ...]:
    """Return the numbers of a row; of an uncertain experiment the ends of each interval too."""
    kind = Metrics.kinds["training"]
    assert issubclass(kind, Metrics), "the registry of a family holds its own subclasses"
    of_play = headlines(kind, PHASES)
    ends = [
        each._replace(name=f"{each.name}.{end}", title=f"{each.title}, {end.upper()}")
        for each in of_play if drawn
        for end in ("p10", "p90")
    ]  # fmt: skip
    costs = (each for each in COLUMNS if each.name != "tokens_per_usd" or spec.usd_per_gpu_hour)
    return (*of_play, *ends, *costs)


def _version() -> str:
    try:
        return version("moesim")
    except PackageNotFoundError:
        return "uninstalled"
