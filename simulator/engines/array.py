"""The array engine: a task graph as one pass of maxima and sums, compiled.

Durations are fixed and streams are first in, first out, so a task's start is the latest end of
what it waits for (max-plus algebra) and no clock is needed, unless tasks move bytes over shared
links: `shared.py` plays those. It means what the reference engine means, to rounding. Replicas are
copies of one graph with durations of their own, side by side in memory, so that one walk over the
graph plays them all.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError
from simulator.engines.graph import TaskGraph
from simulator.engines.loops import Loops, loops_for
from simulator.engines.order import order_of
from simulator.engines.replica_loops import Places, Totals
from simulator.engines.shared import play_shared
from simulator.engines.timeline import ReplicaTimeline, Timeline

THREADED_TASKS = 1_000_000  # fewer are played sooner than threads start
CACHED_TASKS = 60_000  # of a tile: fewer stay in cache
TILE_REPLICAS = 64  # at least: half a kilobyte of each row, what is still needed of them stays too


def play(graph: TaskGraph, loops: Loops | None = None) -> Timeline:
    """Run `graph` from time zero and return its timeline.

    Args:
        loops: other than the compiled ones, such as `PLAIN`.

    Raises:
        DeadlockError: some tasks can never start; names them and what each waits for.
        InputError: a duration is negative or no number, or a column points outside the graph.
    """
    order = order_of(graph, loops)
    seconds = np.require(graph.duration_s, dtype=np.float64, requirements=["C", "W"])
    if len(seconds) != len(graph):  # the order may have been checked with other durations
        raise InputError(f"task graph: {len(graph)} tasks have {len(seconds)} durations")
    _check_durations(seconds)
    if graph.transfers is not None and graph.transfers.moves.any():
        return play_shared(graph, graph.transfers, seconds, loops)
    ready_s, start_s, end_s = (np.empty(len(graph)) for _ in range(3))
    (loops or loops_for(len(graph))).play_once(
        order.event_start,
        order.sequence,
        order.before_start,
        order.before,
        seconds,
        ready_s,
        start_s,
        end_s,
    )
    return Timeline(graph, ready_s, start_s, end_s)


def play_replicas(
    graph: TaskGraph,
    duration_s: Floats,
    group: int = 1,
    keep: Ints | None = None,
    loops: Loops | None = None,
) -> ReplicaTimeline:
    """Run replicas of `graph` side by side, each with durations of its own.

    A collective of the graph is joined by its members in all replicas of a group: replicas
    `k * group` to `(k + 1) * group - 1`, so that a group is `tile` of the graph. Groups are
    independent; tiles of whole groups run in threads, to the same bits however many there are.

    Args:
        duration_s: (tasks, replicas); those of `graph` are not used.
        keep: tasks whose ends are recorded, all of them without it. Those of other tasks are
            forgotten as soon as nothing waits for them, so that memory stays near `duration_s`.
        loops: other than the compiled ones, such as `PLAIN`.

    Raises:
        DeadlockError: some tasks can never start; names them and what each waits for.
        InputError: `duration_s` has another shape, or a duration is negative or no number; `group`
            does not divide the replicas; the graph has transfers.
    """
    if graph.transfers is not None:
        raise InputError("replicas: tasks that move bytes over shared links are played one by one")
    order = order_of(graph, loops)
    _check_replicas(graph, duration_s, group)
    places, kept, rows = order.places_of_all, order.every_task, len(graph)
    if keep is not None:
        kept = np.asarray(keep, dtype=np.int64)
        _check_kept(graph, kept)
        places, rows = order.places_of(kept), order.recycled[2]
    streams, replicas = len(graph.streams), duration_s.shape[1]
    totals = Totals(
        end_s=np.empty((rows, replicas)),
        kept_s=np.empty((0 if keep is None else len(kept), replicas)),
        busy_s=np.zeros((streams, replicas)),
        wait_s=np.zeros((streams, replicas)),
        blame_s=np.zeros((streams, replicas)),
        makespan_s=np.zeros(replicas),
    )
    _play_tiles(places, duration_s, group, totals, loops)
    ends = totals.end_s if keep is None else totals.kept_s
    return ReplicaTimeline(
        graph, kept, ends, totals.busy_s, totals.wait_s, totals.blame_s, totals.makespan_s
    )


def _play_tiles(
    places: Places, duration_s: Floats, group: int, totals: Totals, loops: Loops | None
) -> None:
    """Play all replicas, tile by tile, in threads where that is worth it."""
    seconds = np.ascontiguousarray(duration_s, dtype=np.float64)
    (tasks, replicas), size = duration_s.shape, duration_s.size
    width = group * max(1, max(TILE_REPLICAS, CACHED_TASKS // max(1, tasks)) // group)
    play_tile = (loops or loops_for(size)).play_tile

    def play_from(first: int) -> None:
        play_tile(places, seconds, group, first, min(first + width, replicas), totals)

    starts = range(0, replicas, max(1, width))
    if size < THREADED_TASKS:
        for first in starts:
            play_from(first)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(play_from, starts))


def _check_kept(graph: TaskGraph, kept: Ints) -> None:
    if len(kept) and (kept.min() < 0 or kept.max() >= len(graph)):
        raise InputError(f"keep: tasks must be from 0 to {len(graph) - 1}, got {kept.tolist()}")
    if len(np.unique(kept)) != len(kept):
        raise InputError(f"keep: must name each task once, got {kept.tolist()}")


def _check_replicas(graph: TaskGraph, duration_s: Floats, group: int) -> None:
    if duration_s.ndim != 2 or len(duration_s) != len(graph):
        raise InputError(
            f"duration_s: must have one row for each of the {len(graph)} tasks and one column for "
            f"each replica, got shape {duration_s.shape}"
        )
    replicas = duration_s.shape[1]
    if group < 1 or replicas % group:
        raise InputError(f"group: must divide the {replicas} replicas, got {group}")
    _check_durations(duration_s)


def _check_durations(duration_s: Floats) -> None:
    least = duration_s.min(initial=0.0)
    if not least >= 0:  # a NaN is not either
        raise InputError(f"duration_s: must be 0 s or more, got {least}")
