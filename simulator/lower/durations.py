"""Seconds of every task on every rank: prices looked up at each rank's expert load.

One task graph is played by many ranks side by side (replicas). A run of kernels takes what the
price table says at the load it meets, times what slows the rank down; an exchange takes one time on
all ranks of its group.
"""

from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.engines.loops import loops_for
from simulator.lower.lowered import Lowered
from simulator.price.finite import check_finite
from simulator.price.segments import LoadGrid, SegmentPricer


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What the tasks of a graph are, whoever runs them.

    Attributes:
        row: (tasks,) row of the price table, -1 where a task is no run of kernels.
        exchange: (tasks,) which exchange it is, -1 where it is none.
        slot: (tasks,) which expert load it meets; one past the last for none.
        factor: (tasks,) times its price; seconds of a task that has neither row nor exchange.
    """

    row: Ints
    exchange: Ints
    slot: Ints
    factor: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Slowness:
    """What slows single ranks down.

    Attributes:
        rank, step: (tasks,) rows of the arrays below.
        kernels: (ranks, replicas) time / normal time of a GPU's kernels.
        jitter: (steps, replicas) the same of single steps.
    """

    rank: Ints
    step: Ints
    kernels: Floats
    jitter: Floats


def fill_durations(
    work: Work,
    table: Floats,
    column: Ints,
    exchange_s: Floats,
    slowness: Slowness | None = None,
) -> Floats:
    """Return (tasks, replicas) seconds.

    Args:
        table: (rows, columns) seconds at several loads.
        column: (slots + 1, replicas) load each replica meets, as a column of `table`; the balanced
            one comes last.
        exchange_s: (exchanges, slots + 1, groups) seconds; groups are replicas side by side.
        slowness: of single ranks; none by default.
    """
    tasks, replicas = len(work.row), column.shape[1]
    if slowness is None:
        alike = np.ones((1, replicas))
        slowness = Slowness(np.zeros(tasks, np.int64), np.zeros(tasks, np.int64), alike, alike)
    seconds = np.empty((tasks, replicas))
    loops_for(seconds.size).fill_durations(
        work.row,
        work.exchange,
        work.slot,
        slowness.step,
        slowness.rank,
        work.factor,
        table,
        np.ascontiguousarray(column),
        np.ascontiguousarray(exchange_s),
        slowness.kernels,
        slowness.jitter,
        replicas // exchange_s.shape[2],
        seconds,
    )
    return seconds


def load_columns(grid: LoadGrid, load: Floats) -> Ints:
    """Return (slots + 1, ...) columns of a table over `grid`: those of (slots, ...) loads, and the
    balanced one.
    """
    balanced = np.full((1, *load.shape[1:]), grid.balanced)
    return np.concatenate([grid.column(load), balanced])


def exchange_seconds(
    lowered: Lowered,
    pricer: SegmentPricer,
    loads: Floats,
    nic_slowdown: Floats | float = 1.0,
    nvlink_slowdown: Floats | float = 1.0,
    layout: Ints | None = None,
) -> Floats:
    """Return (communications, slots + 1, groups) seconds of every distinct communication at every
    load; those of one that meets no load come last.

    Args:
        loads: (slots, groups, ranks); slowdowns of links broadcast with it.
        layout: (slots, groups) as of `ExchangePricer.exchange_s`; the slowest if left out.
    """
    slots, groups, ranks = loads.shape
    seconds = np.zeros((len(lowered.comms), slots + 1, groups))
    balanced = np.ones((groups, ranks))
    for number, comm in enumerate(lowered.comms):
        seconds[number, :slots] = pricer.comm_s(comm, loads, nic_slowdown, nvlink_slowdown, layout)
        if not comm.routed:
            seconds[number, slots] = pricer.comm_s(comm, balanced)
    check_finite(seconds, lambda number: f"seconds of {lowered.comms[number].kind}")
    return seconds
