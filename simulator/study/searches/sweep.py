"""Every point, one way."""

from collections.abc import Iterator

from simulator.study.rows import Task
from simulator.study.searches import Search


def rounds(search: Search) -> Iterator[list[Task]]:
    """Yield all points at once."""
    yield search.tasks(search.spec.fidelity, search.points)
