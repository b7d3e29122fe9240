"""The inner loops of the array engine: plain Python that Numba compiles.

Nothing here imports Numba until `compiled` is called, and each loop runs as it stands, which is
the oracle of what the compiler makes of it. Machine code is kept on disk: in `__pycache__` beside
this file, or, where that cannot be written (an installed package), in the user's cache folder;
NUMBA_CACHE_DIR names another. Loops release the GIL, so that tiles can run in threads.

A *place* is a position in the playing order; the tasks of an event (one task, or all members of
a collective) have adjacent places. CSR arrays `xs_start, xs` as in `TaskGraph`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.engines import duration_loops, replica_loops, shared_loops


class Loops(NamedTuple):
    """The loops of the array engine, as they stand or compiled."""

    link_streams: Callable[..., tuple[Ints, Ints]]
    sort_events: Callable[..., tuple[Ints, Ints, Ints]]
    assign_rows: Callable[..., tuple[Ints, Ints, int]]
    play_once: Callable[..., None]
    play_tile: Callable[..., None]
    play_shared: Callable[..., None]
    slow_beside: Callable[..., None]
    fill_durations: Callable[..., None]


def link_streams(
    stream: Ints, dependency_start: Ints, dependency: Ints, streams: int
) -> tuple[Ints, Ints]:
    """Return CSR (before_start, before): the task before each in its stream, and dependencies.

    `before` has room for more than it holds.
    """
    tasks = stream.size
    before_start = np.empty(tasks + 1, np.int64)
    before = np.empty(tasks + dependency.size, np.int64)
    last = np.empty(streams, np.int64)
    for stream_number in range(streams):
        last[stream_number] = -1
    edge = 0
    for task in range(tasks):
        before_start[task] = edge
        previous = last[stream[task]]
        if previous >= 0:
            before[edge] = previous
            edge += 1
        last[stream[task]] = task
        for d in range(dependency_start[task], dependency_start[task + 1]):
            before[edge] = dependency[d]
            edge += 1
    before_start[tasks] = edge
    return before_start, before


def sort_events(
    before_start: Ints, before: Ints, event: Ints, member_start: Ints, member: Ints
) -> tuple[Ints, Ints, Ints]:
    """Put events in an order in which each comes after all it waits for, first ready first.

    Args:
        event: (tasks,) event of each task; `member_start, member` are the tasks of each event.

    Returns:
        sequence: (placed,) tasks by place; fewer than all where the graph cannot finish.
        event_start: (placed events + 1,) first place of each.
        waits: (tasks,) how many of `before` never come; 0 where the task gets ready.
    """
    tasks, events = event.size, member_start.size - 1
    edges = before_start[tasks]
    after_start = np.zeros(tasks + 1, np.int64)  # CSR of who waits for a task, filled backwards
    after = np.empty(edges, np.int64)
    for e in range(edges):
        after_start[before[e]] += 1
    for task in range(1, tasks + 1):
        after_start[task] += after_start[task - 1]
    waits = np.empty(tasks, np.int64)
    for task in range(tasks - 1, -1, -1):
        waits[task] = before_start[task + 1] - before_start[task]
        for e in range(before_start[task], before_start[task + 1]):
            after_start[before[e]] -= 1
            after[after_start[before[e]]] = task

    missing = np.zeros(events, np.int64)  # members of an event that are not ready
    queue = np.empty(events, np.int64)
    sequence = np.empty(tasks, np.int64)
    event_start = np.zeros(events + 1, np.int64)
    queued, taken, placed = 0, 0, 0
    for task in range(tasks):
        missing[event[task]] += waits[task] > 0
    for event_number in range(events):
        if missing[event_number] == 0:
            queue[queued] = event_number
            queued += 1
    while taken < queued:
        event_number = queue[taken]
        taken += 1
        for m in range(member_start[event_number], member_start[event_number + 1]):
            task = member[m]
            sequence[placed] = task
            placed += 1
            for a in range(after_start[task], after_start[task + 1]):
                follower = after[a]
                waits[follower] -= 1
                if waits[follower] == 0:
                    missing[event[follower]] -= 1
                    if missing[event[follower]] == 0:
                        queue[queued] = event[follower]
                        queued += 1
        event_start[taken] = placed
    return sequence[:placed], event_start[: taken + 1], waits


def assign_rows(
    event_start: Ints, sequence: Ints, before_start: Ints, before: Ints
) -> tuple[Ints, Ints, int]:
    """Give each task a row for its end that is free again when the last who reads it has run.

    Args:
        before_start, before: by place.

    Returns:
        row: (tasks,) row by place.
        before_row: rows of `before`.
        rows: how many there are; few, whatever the number of tasks.
    """
    tasks = sequence.size
    readers = np.zeros(tasks, np.int64)
    for e in range(before.size):
        readers[before[e]] += 1
    row_of = np.empty(tasks, np.int64)
    row = np.empty(tasks, np.int64)
    before_row = np.empty(before.size, np.int64)
    free = np.empty(tasks, np.int64)
    spare, rows = 0, 0
    for event in range(event_start.size - 1):
        first, last = event_start[event], event_start[event + 1]
        for place in range(first, last):
            if spare > 0:
                spare -= 1
                row[place] = free[spare]
            else:
                row[place] = rows
                rows += 1
            row_of[sequence[place]] = row[place]
        for place in range(first, last):
            for e in range(before_start[place], before_start[place + 1]):
                before_row[e] = row_of[before[e]]
                readers[before[e]] -= 1
                if readers[before[e]] == 0:
                    free[spare] = before_row[e]
                    spare += 1
        for place in range(first, last):
            if readers[sequence[place]] == 0:
                free[spare] = row[place]
                spare += 1
    return row, before_row, rows


def play_once(
    event_start: Ints,
    sequence: Ints,
    before_start: Ints,
    before: Ints,
    duration_s: Floats,
    ready_s: Floats,
    start_s: Floats,
    end_s: Floats,
) -> None:
    """Fill (tasks,) `ready_s`, `start_s` and `end_s` from `duration_s`; `before` by place."""
    for event in range(event_start.size - 1):
        first, last = event_start[event], event_start[event + 1]
        latest = 0.0
        for place in range(first, last):
            at = 0.0
            for e in range(before_start[place], before_start[place + 1]):
                at = max(at, end_s[before[e]])
            ready_s[sequence[place]] = at
            latest = max(latest, at)
        for place in range(first, last):
            task = sequence[place]
            start_s[task] = latest
            end_s[task] = latest + duration_s[task]


PLAIN = Loops(
    link_streams,
    sort_events,
    assign_rows,
    play_once,
    replica_loops.play_tile,
    shared_loops.play_shared,
    duration_loops.slow_beside,
    duration_loops.fill_durations,
)
"""The loops as they stand, run by the interpreter."""


PATIENCE_TASKS = 120_000
"""Tasks that interpreted loops play in about the time that loading the compiler takes."""

_interpreted_tasks = 0


def loops_for(tasks: int) -> Loops:
    """Return the loops to play `tasks` tasks with; both kinds give the same bits.

    Compiled once they are worth their loading time in this process, as they stand before that: a
    single run is over before Numba is imported, a study soon plays compiled.
    """
    global _interpreted_tasks  # noqa: PLW0603 - how long a process has waited is a fact of it
    _interpreted_tasks += tasks
    if compiled.cache_info().currsize or _interpreted_tasks > PATIENCE_TASKS:
        return compiled()
    return PLAIN


@cache
def compiled() -> Loops:
    """Return the loops compiled; the first call of each compiles it or reads it from disk."""
    import numba  # noqa: PLC0415 - half a second that a start of the command line does not pay

    # No NaN comes in and no -0.0 matters, so a maximum may be taken in any order, in vectors.
    fastmath = {"nnan", "nsz"}

    def jit(loop: Callable[..., Any], keep: bool = True) -> Any:
        # Divisions are not checked for zero, which would keep them out of vectors.
        return numba.njit(cache=keep, nogil=True, fastmath=fastmath, error_model="numpy")(loop)

    for helper in (
        *replica_loops.HELPERS,
        *shared_loops.HELPERS,
    ):  # compiled as a part of the loop that calls them
        numba.extending.register_jitable(fastmath=fastmath)(helper)

    try:
        return Loops(*map(jit, PLAIN))
    except RuntimeError:  # no folder can be written: every process compiles for itself
        return Loops(*(jit(loop, keep=False) for loop in PLAIN))
