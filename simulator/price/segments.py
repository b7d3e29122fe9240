"""Seconds for segments: what the kernels between two communication points cost at every load.

Tokens come whole, so loads come in steps: a table holds each segment at multiples of `LOAD_STEP` of
the balanced load, over the range that may be met, and whoever plays ranks looks its loads up in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwmodels.arrays import Floats, Ints
from hwmodels.costs import BOUNDS
from simulator.network import exchange_pricer
from simulator.network.comm_times import Slow
from simulator.network.exchange_pricer import ExchangePricer
from simulator.price.collectives import CollectivePricer
from simulator.price.kernels import KernelPricer, price_kernels
from workloads.ops import Comm, CommKind, Op, Work
from workloads.segments import Segment

LOAD_STEP = 1 / 256
"""Of the balanced load: 128 of DeepSeek-V3's 32,768 rows, to which each expert's are padded."""

LEAST_LOAD = 1e-6
"""What stands for a load of none: kernels still launch, on next to no rows."""

ExchangePart = exchange_pricer.ExchangePart

EXCHANGE_KINDS: tuple[CommKind, ...] = ("dispatch", "combine")
"""Communication whose slowdown beside compute is known; that of others is taken for that of the
first."""


class OpSeconds(NamedTuple):
    """One op of a whole step: what its price rests on, and the seconds all its runs take."""

    op: Op
    basis: str
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class SegmentOps:
    """The kernels of distinct segments, before any price.

    Attributes:
        ops: all distinct kernels.
        launched, first: the kernels of each segment in launch order, as places in `ops`; CSR.
    """

    ops: tuple[Op, ...]
    launched: Ints
    first: Ints

    def sums(self, values: Floats, axis: int = 0) -> Floats:
        """Return sums over the kernels of each segment, of values whose `axis` is of ops."""
        launched = np.take(values, self.launched, axis)
        return np.asarray(np.add.reduceat(launched, self.first, axis))

    def launches(self, times: Floats) -> Floats:
        """Return (ops,) how often each kernel is launched if segments run (rows,) `times`."""
        counts = np.diff(np.append(self.first, len(self.launched)))
        weights = np.repeat(times, counts)
        return np.bincount(self.launched, weights, len(self.ops)).astype(np.float64)

    def places_of_row(self, row: int) -> Ints:
        """Return the kernels of one segment in launch order, as places in `ops`."""
        last = self.first[row + 1] if row + 1 < len(self.first) else len(self.launched)
        return self.launched[self.first[row] : last]

    def of_row(self, row: int) -> tuple[Op, ...]:
        """Return the kernels of one segment in launch order."""
        return tuple(self.ops[place] for place in self.places_of_row(row))


def collect_ops(programs: Sequence[Sequence[Segment]]) -> tuple[SegmentOps, list[Ints]]:
    """Return the kernels of all segments, and the row of each one's; -1 of a communication."""
    numbers: dict[tuple[Work, ...], int] = {}
    known: dict[int, int] = {}  # by identity, as kernels of many segments are one tuple

    def row_of(segment: Segment) -> int:
        if segment.comm is not None:
            return -1
        if id(segment.work) not in known:
            known[id(segment.work)] = numbers.setdefault(segment.work, len(numbers))
        return known[id(segment.work)]

    rows = [np.array([row_of(segment) for segment in program], np.intp) for program in programs]
    place: dict[Work, int] = {}
    launched = [place.setdefault(op, len(place)) for run in numbers for op in run]
    first = np.cumsum([0, *map(len, numbers)])[:-1]
    kernels: tuple[Op, ...] = tuple(op for op in place if not isinstance(op, Comm))
    return SegmentOps(kernels, np.array(launched, np.intp), first), rows


def load_index(load: Floats) -> Ints:
    """Return which multiple of `LOAD_STEP` is nearest to each load."""
    return np.rint(load * (1 / LOAD_STEP)).astype(np.intp)


class LoadGrid(NamedTuple):
    """The loads that a table has a column for: every multiple of `LOAD_STEP` from `first` to
    `last`, both included, the balanced load among them.
    """

    first: int
    last: int

    @classmethod
    def over(cls, least: float, most: float) -> "LoadGrid":
        """Return the grid over some loads, and the balanced one."""
        ends = load_index(np.array([min(least, 1.0), max(most, 1.0)]))
        return cls(int(ends[0]), int(ends[1]))

    @property
    def loads(self) -> Floats:
        """(columns,) the load of each column."""
        columns = np.arange(self.first, self.last + 1)
        return np.asarray(np.maximum(columns * LOAD_STEP, LEAST_LOAD))

    @property
    def balanced(self) -> int:
        """Column of the balanced load."""
        return int(self.column(np.ones(1))[0])

    def column(self, load: Floats) -> Ints:
        """Return the column that is nearest to each load, all of which the grid holds."""
        return load_index(load) - self.first

    def holds(self, load: Floats) -> bool:
        """Return whether there is a column for each load."""
        ends = load_index(np.array([load.min(initial=1.0), load.max(initial=1.0)]))
        return bool(self.first <= ends[0] and ends[1] <= self.last)


UP_TO_BALANCED = LoadGrid.over(0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class SegmentPrices:
    """What distinct segments cost on one rank; on ranks of several machines at once with an axis
    of machines before all others.

    Attributes:
        grid: loads that there are seconds at.
        seconds: (2 rows, loads) undisturbed: on the SMs of overlapped parts, then on those of
            parts alone.
        factor: (rows,) slowdown when all of it runs beside the other stream's work.
        comm_factor: (kinds,) the same of communication, in the order of `EXCHANGE_KINDS`.
        exposed_factor: slowdown of exchanges in parts alone.
        op_s: (2, ops) one run of each kernel at balanced load, its launch gap included; likewise.
        bound_index: (ops,) what holds each kernel at balanced load, on the SMs of overlapped parts.
        pricers: of the kernels; says what prices rest on.
    """

    grid: LoadGrid
    seconds: Floats
    factor: Floats
    comm_factor: Floats
    exposed_factor: Floats
    op_s: Floats
    bound_index: Ints
    pricers: Any

    def of(self, machine: int | slice) -> "SegmentPrices":
        """Return the prices of one of several machines, or of some."""
        columns = (getattr(self, field.name)[machine] for field in fields(self)[1:])
        return SegmentPrices(self.grid, *columns)

    def within(self, grid: LoadGrid) -> "SegmentPrices":
        """Return the prices at the loads of a narrower grid only."""
        first = grid.first - self.grid.first
        columns = slice(first, first + len(grid.loads))
        return replace(self, grid=grid, seconds=self.seconds[..., columns].copy())

    def basis_of(self, op: Op) -> str:
        """Return what the price of a kernel on one machine rests on, for people."""
        pricer: KernelPricer = self.pricers
        return pricer.basis_of(op.family)

    @property
    def bound(self) -> NDArray[np.str_]:
        """(ops,) name of what holds each kernel."""
        return np.asarray(BOUNDS)[self.bound_index]

    def exchange_slowdown(self, *, overlapped: bool) -> Floats:
        """Return by how much exchanges of a part are slower than priced, before any overlap."""
        return np.ones_like(self.exposed_factor) if overlapped else self.exposed_factor

    def factors_of(self, program: Sequence[Segment], rows: Ints) -> Floats:
        """Return (segments,) the slowdown of each wholly beside the other stream; rows as above."""
        columns = [
            self.factor[..., row]
            if segment.comm is None
            else self.comm_factor[..., _measured_kind(segment.comm)]
            for segment, row in zip(program, rows.tolist(), strict=True)
        ]
        return np.stack(columns, axis=-1)


def _measured_kind(comm: Comm) -> int:
    """Return the place in `EXCHANGE_KINDS` of whose slowdown beside compute a communication has."""
    return EXCHANGE_KINDS.index(comm.kind) if comm.kind in EXCHANGE_KINDS else 0


def table_rows(rows: Ints, distinct: int, *, overlapped: bool) -> Ints:
    """Return the rows in `SegmentPrices.seconds` of segments of a part, -1 for communication.

    Args:
        rows: of each segment among the `distinct` ones.
    """
    return rows if overlapped else np.where(rows >= 0, rows + distinct, -1)


@dataclass(frozen=True)
class SegmentPricer:
    """Prices kernels and communication on the ranks of one expert group.

    Attributes:
        kernels: on the SMs of overlapped parts; `alone`: of parts alone, the same if None.
        exchanges: of tokens; `collectives`: all other communication, None where there is none.
        exposed_factor: slowdown of exchanges in parts alone.
    """

    kernels: KernelPricer
    exchanges: ExchangePricer
    collectives: CollectivePricer | None
    alone: KernelPricer | None = None
    exposed_factor: float = 1.0

    def of_exchanges(self, part: ExchangePart) -> "SegmentPricer":
        """Return the same with a part of the seconds of exchanges."""
        return replace(self, exchanges=replace(self.exchanges, part=part))

    def comm_s(
        self,
        comm: Comm,
        loads: Floats,
        nic_slowdown: Floats | float = 1.0,
        nvlink_slowdown: Floats | float = 1.0,
        layout: Ints | None = None,
    ) -> Floats:
        """Return (...) seconds of a communication, or the part of them that is asked for.

        Args:
            loads: (..., ranks) of the ranks of a group; slowdowns of links broadcast with it.
            layout: as of `ExchangePricer.times`.
        """
        if comm.routed:
            return self.exchanges.exchange_s(comm, loads, nic_slowdown, nvlink_slowdown, layout)
        assert self.collectives, "whoever prices parts of split layers says where their ranks are"
        times = self.collectives.times(comm, loads, Slow(nic_slowdown, nvlink_slowdown))
        return np.asarray(getattr(times, self.exchanges.part))

    def prices(self, segments: SegmentOps, grid: LoadGrid = UP_TO_BALANCED) -> SegmentPrices:
        """Return the table of all segments."""
        return segment_prices([self], segments, grid).of(0)


def segment_prices(
    pricers: Sequence[SegmentPricer], segments: SegmentOps, grid: LoadGrid
) -> SegmentPrices:
    """Return the tables of all segments on several machines, the same ones as one by one.

    Raises:
        OutOfRangeError, InfeasibleError: as `price_kernels`.
    """
    costs = price_kernels([pricer.kernels for pricer in pricers], segments.ops, grid.loads)
    run_s = [costs.duration_s + costs.gap_s[..., None]] * 2
    rows_s = [segments.sums(run_s[0], axis=1)] * 2
    alone = [pricer.alone or pricer.kernels for pricer in pricers]
    if any(other != pricer.kernels for other, pricer in zip(alone, pricers, strict=True)):
        others = price_kernels(alone, segments.ops, grid.loads)
        run_s[1] = others.duration_s + others.gap_s[..., None]
        rows_s[1] = segments.sums(run_s[1], axis=1)
    balanced_s = costs.duration_s[..., grid.balanced]
    total = segments.sums(balanced_s, axis=1)
    slowed = segments.sums(balanced_s * costs.beside_factor, axis=1)
    rates = [pricer.exchanges.rates for pricer in pricers]
    return SegmentPrices(
        grid,
        seconds=np.concatenate(rows_s, axis=1),
        factor=np.divide(slowed, total, out=np.ones_like(total), where=total > 0),
        comm_factor=np.array(
            [[of.dispatch_beside_compute, of.combine_beside_compute] for of in rates]
        ),
        exposed_factor=np.array([pricer.exposed_factor for pricer in pricers]),
        op_s=np.stack([op_s[..., grid.balanced] for op_s in run_s], axis=1),
        bound_index=costs.bound_index,
        pricers=tuple(pricer.kernels for pricer in pricers),
    )
