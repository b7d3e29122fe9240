"""In which order a graph's tasks can be played, whatever their durations.

Streams are first in, first out and members of a collective start together, so the order depends on
the graph alone: it is worked out once, kept with the graph, and every play is one pass along it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.errors import InputError
from simulator.engines.deadlock import check_finished
from simulator.engines.graph import TaskGraph
from simulator.engines.loops import Loops, loops_for
from simulator.engines.replica_loops import Places

KEPT = "order"


@dataclass(frozen=True, eq=False)
class Order:
    """Tasks by place: members of a collective side by side, each after all it waits for.

    Attributes:
        sequence, stream: (tasks,) task at each place, and its stream.
        event_start: (events + 1,) first place of each event: one task, or one collective.
        joined: (events,) the event is a collective.
        before_start, before: CSR by place; tasks that the one at this place waits for, the one
            before it in its stream included.
        loops: what worked this out, and works out the rest.
    """

    sequence: Ints
    stream: Ints
    event_start: Ints
    joined: Mask
    before_start: Ints
    before: Ints
    loops: Loops

    @cached_property
    def recycled(self) -> tuple[Ints, Ints, int]:
        """Rows of `sequence` and `before` in an array of only the ends that are still needed, and
        how many rows that array has.
        """
        return self.loops.assign_rows(
            self.event_start, self.sequence, self.before_start, self.before
        )

    @cached_property
    def awaited(self) -> tuple[Ints, tuple[Ints, ...]]:
        """Tasks, those that wait for most first, and what they wait for: the first of each, the
        second of each that has two, and so on.
        """
        waits = np.diff(self.before_start)
        place = np.argsort(-waits, kind="stable")
        having = np.searchsorted(-waits[place], -np.arange(1, waits.max(initial=0) + 1), "right")
        first = self.before_start[:-1][place]
        awaited = (self.before[first[:count] + nth] for nth, count in enumerate(having.tolist()))
        return self.sequence[place], tuple(awaited)

    @cached_property
    def every_task(self) -> Ints:
        """All tasks, by number."""
        return np.arange(len(self.sequence))

    @cached_property
    def places_of_all(self) -> Places:
        """What loops over replicas walk if all ends are kept: the row of a task is its number."""
        nowhere = np.full(len(self.sequence), -1, dtype=np.int64)
        return self._places(self.sequence, self.before, nowhere)

    def places_of(self, kept: Ints) -> Places:
        """Return the same if only the ends of some tasks are kept."""
        kept_row = np.full(len(self.sequence), -1, dtype=np.int64)
        kept_row[kept] = np.arange(len(kept))
        row, before_row, _ = self.recycled
        return self._places(row, before_row, kept_row[self.sequence])

    def _places(self, row: Ints, before_row: Ints, kept: Ints) -> Places:
        return Places(
            self.event_start,
            self.joined,
            self.sequence,
            self.stream,
            row,
            self.before_start,
            before_row,
            kept,
        )


def order_of(graph: TaskGraph, loops: Loops | None = None) -> Order:
    """Return the order of `graph`, worked out at the first call.

    Args:
        loops: other than the compiled ones; then nothing is kept with the graph.

    Raises:
        DeadlockError: some tasks can never start; names them and what each waits for.
        InputError: a column has the wrong length or points outside the graph.
    """
    if loops is not None:
        return _sort(graph, loops)
    if KEPT not in graph.derived:
        graph.derived[KEPT] = _sort(graph, loops_for(len(graph)))
    order: Order = graph.derived[KEPT]
    return order


def ready_s(graph: TaskGraph, end_s: Floats) -> Floats:
    """Return (tasks, ...) when the last of what each task waits for ended, its stream included.

    Args:
        end_s: (tasks, ...) ends, of one replica or of several.
    """
    task, awaited = order_of(graph).awaited
    latest_s = np.zeros((len(task), *end_s.shape[1:]))
    for of_some in awaited:
        first = latest_s[: len(of_some)]
        np.maximum(first, end_s[of_some], out=first)
    ready = np.empty_like(end_s)
    ready[task] = latest_s
    return ready


def _sort(graph: TaskGraph, loops: Loops) -> Order:
    _check_columns(graph)
    stream = _column(graph.stream)
    before_start, before = loops.link_streams(
        stream,
        _column(graph.dependency_start),
        _column(graph.dependency),
        len(graph.streams),
    )
    event, member_start, member = _events(graph)
    sequence, event_start, waits = loops.sort_events(
        before_start, before, event, member_start, member
    )
    ended = np.zeros(len(graph), dtype=np.bool_)
    ended[sequence] = True
    check_finished(graph, waits == 0, ended)
    before_start, before = _by_place(sequence, before_start, before)
    joined = graph.collective[sequence[event_start[:-1]]] >= 0
    return Order(
        sequence,
        stream[sequence],
        event_start,
        joined,
        before_start,
        before,
        loops,
    )


def _events(graph: TaskGraph) -> tuple[Ints, Ints, Ints]:
    """Return the event of each task, and the tasks of each event as CSR."""
    joined = graph.collective >= 0
    numbers, place = np.unique(graph.collective[joined], return_inverse=True)
    event = np.empty(len(graph), dtype=np.int64)
    event[joined] = place
    event[~joined] = len(numbers) + np.arange(len(graph) - len(place))
    member_start = np.concatenate(([0], np.cumsum(np.bincount(event))))
    return event, member_start, np.argsort(event, kind="stable")


def _by_place(sequence: Ints, start: Ints, values: Ints) -> tuple[Ints, Ints]:
    """Return the CSR rows of tasks in the order of `sequence`."""
    counts = np.diff(start)[sequence]
    placed = np.concatenate(([0], np.cumsum(counts)))
    index = np.arange(placed[-1]) + np.repeat(start[sequence] - placed[:-1], counts)
    return placed, values[index]


def _column(values: Ints) -> Ints:
    """Return `values` as the one kind of array that the loops are compiled for."""
    return np.require(values, dtype=np.int64, requirements=["C", "W"])


def _check_columns(graph: TaskGraph) -> None:
    """Refuse what would make compiled loops read outside an array."""
    tasks = len(graph)
    start, dependency = graph.dependency_start, graph.dependency
    if not len(start) - 1 == len(graph.collective) == tasks:
        raise InputError(
            f"task graph: {tasks} tasks have {len(start) - 1} rows of dependencies "
            f"and {len(graph.collective)} collectives"
        )
    if start[0] != 0 or start[-1] != len(dependency) or (np.diff(start) < 0).any():
        raise InputError(
            f"task graph: dependency_start must rise from 0 to {len(dependency)}, the dependencies"
        )
    for name, column, limit in (
        ("stream", graph.stream, len(graph.streams)),
        ("dependency", dependency, tasks),
    ):
        if len(column) and (column.min() < 0 or column.max() >= limit):
            raise InputError(
                f"task graph: {name} must lie in 0 to {limit - 1}, "
                f"got {column.min()} to {column.max()}"
            )
