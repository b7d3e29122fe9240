"""A study's folder while it runs: part files renamed into place, compacted when all is there.

A part file holds the rows of one task, under a name with a digest of its content; a process that
is killed leaves whole parts, and files that no one reads. Wall times are kept apart, in
`clock.jsonl`, so that tables of two runs are the same bytes. One process writes in a folder at a
time: it holds the system's lock of that file, which ends with the process.
"""

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hwmodels.errors import InputError, MachineError, SpecError
from simulator.study.pareto import front
from simulator.study.rows import Done, Fidelity, Row, Task
from simulator.tell.study_table import (
    DOCUMENT,
    FEASIBLE,
    FIDELITY,
    PARETO,
    POINT,
    REASON,
    ROWS,
    SEED,
    TABLE,
    StudyDocument,
    StudyTable,
    load_document,
    screened_name,
)

CLOCK = "clock.jsonl"
LOOKED_AT = "looked_at"
"""Under this key a part file lists its points, those that conditions left out included."""


@dataclass(frozen=True, eq=False)
class StudyFolder:
    """Where a study's rows are kept.

    Attributes:
        schema: columns of a part file.
        lock: keeps other processes from writing there; None once the table is there.
        looked_at: (fidelity, point) whose rows are there, or that conditions left out.
    """

    path: Path
    document: StudyDocument
    schema: pa.Schema
    lock: IO[str] | None = None
    looked_at: set[tuple[str, int]] = field(default_factory=set)

    @classmethod
    def open(
        cls, path: Path, document: StudyDocument, schema: pa.Schema, *, resume: bool
    ) -> "StudyFolder":
        """Return the folder of a study, made if need be; to be closed by who is done with it.

        Raises:
            InputError: it holds another study, or this one and `resume` is not given, or another
                process is at work there.
            MachineError: it cannot be written.
        """
        folder = cls(path, document, schema)
        folder._check(resume=resume)
        if folder.is_complete:
            with _writing(path):
                folder._take_parts_away()
            return folder
        folder = replace(folder, lock=_locked(path))
        with _closed_on_error(folder):
            folder._check(resume=resume)  # again: another process may have been at work
            with _writing(path):
                for left_over in (path / ROWS).glob("*.tmp"):
                    left_over.unlink()
                _put(path / DOCUMENT, (document.model_dump_json(indent=1) + "\n").encode())
            for part in folder._parts():
                folder.looked_at.update(_listed(part))
        return folder

    def close(self) -> None:
        """Let others write there."""
        if self.lock is not None:
            self.lock.close()

    def _check(self, *, resume: bool) -> None:
        """Refuse a folder with another study, or with this one where nobody asks to go on."""
        if not (self.path / DOCUMENT).exists():
            return
        there = load_document(self.path)
        if not resume:
            raise InputError(
                f"--out {self.path}: holds study {there.name!r} already; go on with --resume, or "
                f"give another folder"
            )
        if there.digest != self.document.digest:
            raise InputError(
                f"--resume {self.path}: holds study {there.name!r} of another document, experiment "
                f"or version; give another folder"
            )

    @property
    def is_complete(self) -> bool:
        """Whether the table is there."""
        return (self.path / TABLE).exists()

    def missing(self, tasks: Sequence[Task]) -> list[Task]:
        """Return tasks without the points that were looked at before."""
        left = (
            Task(
                fidelity,
                tuple(point for point in points if (fidelity, point) not in self.looked_at),
            )
            for fidelity, points in tasks
        )
        return [task for task in left if task.points]

    def add(self, done: Done) -> None:
        """Keep what came of a task.

        Raises:
            MachineError: it cannot be written.
        """
        task = done.task
        listed = json.dumps([task.fidelity, *task.points])
        content = _bytes(_table(done.rows, self.schema.with_metadata({LOOKED_AT: listed})))
        name = f"{task.fidelity}-{task.points[0]:08d}-{_digest(content)}.parquet"
        part = self.path / ROWS / name
        with _writing(part):
            _put(part, content)
            with (self.path / CLOCK).open("a", encoding="utf-8") as clock:
                entry = {"fidelity": task.fidelity, "points": len(task.points)}
                clock.write(json.dumps(entry | {"seconds": round(done.seconds, 6)}) + "\n")
        self.looked_at.update((task.fidelity, point) for point in task.points)

    def rows(self, fidelity: Fidelity) -> pd.DataFrame:
        """Return the rows so far of a fidelity, in the order of points.

        Raises:
            SpecError: a part file is damaged.
        """
        tables = [self.schema.empty_table()]
        for part in self._parts(fidelity):
            with _reading(part):
                read = pq.read_table(_sound(part))
                tables.append(read.select(self.schema.names).cast(self.schema))
        frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
        return frame.sort_values(POINT, ignore_index=True)

    def compact(self) -> StudyTable:
        """Write the table, of all rows, and take the parts away.

        Raises:
            MachineError: it cannot be written.
        """
        screened, played = self.rows("screen"), self.rows("play")
        frame = pd.concat([played, screened]).drop_duplicates(POINT)
        frame = frame.sort_values(POINT, ignore_index=True)
        frame[PARETO] = front(frame, self.document)
        schema = self.schema.append(pa.field(PARETO, pa.bool_()))
        if len(played) and len(screened):
            for name in self.document.objectives:  # how far a screen is off is for all to see
                known = screened.set_index(POINT)[name]
                frame[screened_name(name)] = frame[POINT].map(known)
                schema = schema.append(pa.field(screened_name(name), pa.float64()))
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        with _writing(self.path / TABLE):
            _put(self.path / TABLE, _bytes(table.replace_schema_metadata(None)))
            self._take_parts_away()
        return StudyTable.load(self.path)

    def _parts(self, fidelity: str = "") -> list[Path]:
        return sorted((self.path / ROWS).glob(f"{fidelity}*.parquet"))

    def _take_parts_away(self) -> None:
        """Remove what the table has too, and nothing that is not a study's."""
        for part in self._parts():
            part.unlink()
        with suppress(OSError):  # not there any more, or with files of someone else
            (self.path / ROWS).rmdir()


@contextmanager
def _closed_on_error(folder: StudyFolder) -> Iterator[None]:
    try:
        yield
    except BaseException:
        folder.close()
        raise


def _locked(path: Path) -> IO[str]:
    """Return the clock of a folder, made if need be, locked as long as it is open.

    The system's own lock, so that none outlives a process that was killed.

    Raises:
        InputError: another process has it.
        MachineError: the folder cannot be written, or its disk knows no locks.
    """
    with _writing(path):
        (path / ROWS).mkdir(parents=True, exist_ok=True)
        clock = (path / CLOCK).open("a", encoding="utf-8")
    try:
        fcntl.flock(clock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        clock.close()
        raise InputError(
            f"--out {path}: another moesim study is at work there; wait for it, or give another "
            f"folder"
        ) from None
    except OSError as error:
        clock.close()
        raise MachineError(
            f"--out {path}: cannot be locked ({(error.strerror or str(error)).lower()}); give a "
            f"folder on a disk that knows flock"
        ) from None
    return clock


def schema_of(document: StudyDocument, beside: dict[str, pa.DataType]) -> pa.Schema:
    """Return the columns of a part file.

    Args:
        beside: fields that move with the first of an axis, and what they hold.
    """
    axes = {axis.name: pa.string() if axis.labels else pa.float64() for axis in document.axes}
    numbers = {column.name: pa.float64() for column in document.columns}
    kept = {
        POINT: pa.int64(), **axes, **beside, FEASIBLE: pa.bool_(), REASON: pa.string(),
        FIDELITY: pa.string(), SEED: pa.int64(), **numbers,
    }  # fmt: skip
    return pa.schema(list(kept.items()))


def _table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    columns = {
        each.name: pa.array([row.get(each.name) for row in rows], each.type) for each in schema
    }
    return pa.table(columns, schema=schema)


def _listed(part: Path) -> list[tuple[str, int]]:
    with _reading(part):
        fidelity, *points = json.loads(pq.read_schema(_sound(part)).metadata[LOOKED_AT.encode()])
    return [(fidelity, point) for point in points]


@contextmanager
def _reading(part: Path) -> Iterator[None]:
    """Tell in one line that a part file cannot be read."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise SpecError(
            f"{part}: is damaged; take it away and go on with --resume ({error})"
        ) from None


def _sound(part: Path) -> io.BytesIO:
    """Return what is in a part file, if that is what was written."""
    content = part.read_bytes()
    if _digest(content) != part.stem.rpartition("-")[2]:
        raise ValueError("its content is not what its name says")
    return io.BytesIO(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _bytes(table: pa.Table) -> bytes:
    """Return a table as a file."""
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _put(file: Path, content: bytes) -> None:
    """Write a file beside its place, to the disk, and rename it there."""
    beside = file.with_name(f"{file.name}.tmp")
    try:
        with beside.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(file)
    except BaseException:
        with suppress(OSError):
            beside.unlink()  # a full disk needs the room
        raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell in one line why something cannot be written."""
    try:
        yield
    except OSError as error:
        message = f"{path}: {(error.strerror or str(error)).lower()}"
        wrong = FileExistsError | NotADirectoryError | IsADirectoryError
        raise (InputError if isinstance(error, wrong) else MachineError)(message) from None
