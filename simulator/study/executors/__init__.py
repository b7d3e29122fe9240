"""Where a study's tasks are done: a module a way, found by its name.

Each has `run(work, tasks, workers)`, which yields what comes of every task, in any order, and lets
go of its workers however it ends.
"""

import importlib
import pkgutil
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from hwmodels.errors import InputError, suggestion
from simulator.study.rows import Done, Task

Work = Callable[[Task], Done]


class Executor(Protocol):
    """A module of this package."""

    def run(self, work: Work, tasks: Sequence[Task], workers: int) -> Generator[Done, None, None]:
        """Yield what comes of every task."""


def executor_names() -> tuple[str, ...]:
    """Return the names of all executors."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def executor(name: str) -> Executor:
    """Return an executor.

    Raises:
        InputError: there is none of that name.
    """
    if name not in executor_names():
        raise InputError(f"--executor {name!r}: unknown{suggestion(name, executor_names())}")
    module: Executor = importlib.import_module(f"{__name__}.{name}")
    return module
