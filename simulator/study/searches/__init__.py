"""Which points of a study are looked at, and how: a module a kind, found by its name.

Each has `rounds(search)`, which yields tasks round by round; before it is asked for the next, the
rows of the last are there.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from simulator.study.document import SweepSpec
from simulator.study.rows import Fidelity, Task
from simulator.tell.study_table import StudyDocument


@dataclass(frozen=True)
class Search:
    """What a search knows.

    Attributes:
        points: all, those that share a program one after another.
        rows: returns the rows so far of a fidelity.
        batch: points of a task, at most.
    """

    spec: SweepSpec
    document: StudyDocument
    points: Sequence[int]
    rows: Callable[[Fidelity], pd.DataFrame]
    batch: int

    def tasks(self, fidelity: Fidelity, points: Sequence[int]) -> list[Task]:
        """Return points in tasks."""
        starts = range(0, len(points), self.batch)
        return [Task(fidelity, tuple(points[first : first + self.batch])) for first in starts]


class Kind(Protocol):
    """A module of this package."""

    def rounds(self, search: Search) -> Iterator[list[Task]]:
        """Yield tasks, round by round."""


def rounds(search: Search) -> Iterator[list[Task]]:
    """Yield the tasks of a search of any kind, round by round."""
    kind: Kind = importlib.import_module(f"{__name__}.{search.spec.kind}")
    return kind.rounds(search)
