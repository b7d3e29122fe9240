"""Where a study's tasks are done: a module a way, found by its name.

Each has `run(work, tasks, workers)`, which yields what comes of every task, in any order, and lets
go of its workers however it ends.
"""

import gc
import importlib
import pkgutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Protocol

from hwmodels.errors import InputError, suggestion
from simulator.study.rows import Done, Task

Work = Callable[[Task], Done]

SELDOM = 100_000, 50, 100
"""Objects and rounds after which garbage is looked for. Programs are many small objects that live
as long as caches do, and looking through them at Python's pace takes a fifth of a worker's time."""


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


@cache
def seldom_collect() -> None:
    """Let a worker's process look for garbage seldom, and never through what it began with."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Let this process look for garbage seldom meanwhile; it is not a study's own."""
    before = gc.get_threshold()
    gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)
