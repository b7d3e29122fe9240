"""A CSV file that only grows: each row is on disk before the next is made.

Whoever is killed loses at most the row being written; what was cut off in the middle of a line is
taken away when the file is continued.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from hwmodels.errors import CalibrationError


class AppendCsv:
    """Appends rows of fixed columns to a file.

    Attributes:
        appended: rows so far, without those that were there before.
    """

    def __init__(self, path: Path, columns: Sequence[str], what: str, *, resume: bool) -> None:
        """Begin a file, or continue one.

        Args:
            what: the rows are, for messages.

        Raises:
            CalibrationError: the file exists and is not to be continued, or holds something else.
        """
        if path.exists() and not resume:
            raise CalibrationError(f"{path}: exists; --resume continues it")
        whole = _whole_lines(path) if path.exists() else ""
        if path.exists():
            whole_rows(path, columns, what)  # refuses a file of something else, untouched
            with path.open("r+", encoding="utf-8", newline="") as file:
                file.truncate(len(whole.encode()))
        self._columns, self.appended = tuple(columns), 0
        self._file = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        if not whole:
            self._write(self._columns)

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Append rows that belong together, in one write; None is an empty cell."""
        cells = [[row[name] for name in self._columns] for row in rows]
        self._write(*(["" if cell is None else cell for cell in row] for row in cells))
        self.appended += len(rows)

    def _write(self, *rows: Sequence[Any]) -> None:
        self._writer.writerows(rows)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def whole_rows(path: Path, columns: Sequence[str], what: str) -> list[dict[str, str]]:
    """Return the rows of a file; one cut off by a kill is left out.

    Raises:
        CalibrationError: it is no CSV file, or the columns are others.
    """
    try:
        rows = list(csv.reader(io.StringIO(_whole_lines(path))))
    except csv.Error as error:
        raise CalibrationError(f"{path}: expected a CSV file of {what}: {error}") from None
    if not rows:
        return []
    if tuple(rows[0]) != tuple(columns):
        raise CalibrationError(f"{path}: columns {rows[0][:4]}... are not those of {what}")
    return [dict(zip(columns, row, strict=True)) for row in rows[1:] if len(row) == len(columns)]


def _whole_lines(path: Path) -> str:
    """Return the text up to the last line break: what was written in full.

    Raises:
        CalibrationError: it is no text.
    """
    whole = path.read_bytes()
    try:
        return whole[: whole.rfind(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError:
        raise CalibrationError(f"{path}: expected a CSV file, got no text") from None
