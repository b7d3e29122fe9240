"""Seconds for segments: what the kernels between two communication points cost at every load.

Tokens come whole, so loads come in steps: a table holds each segment at every multiple of
`LOAD_STEP` of the balanced load, and whoever plays ranks looks its loads up in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwmodels.arrays import Floats, Ints
from simulator.network.exchange_pricer import ExchangePricer
from simulator.price.kernels import KernelPricer
from workloads.ops import Comm, CommKind, Op, Work
from workloads.segments import Segment

LOAD_STEP = 1 / 256
"""Of the balanced load: 128 of DeepSeek-V3's 32,768 rows, to which each expert's are padded."""

LEAST_LOAD = 1e-6
"""What stands for a load of none: kernels still launch, on next to no rows."""


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

    def sums(self, values: Floats) -> Floats:
        """Return (rows, ...) sums over the kernels of each segment of (ops, ...) values."""
        return np.add.reduceat(values[self.launched], self.first, axis=0)

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


@dataclass(frozen=True, slots=True, eq=False)
class SegmentPrices:
    """What distinct segments cost on one rank.

    Attributes:
        seconds: (2 rows, loads) undisturbed, at loads 0, LOAD_STEP, 2 LOAD_STEP ...: on the SMs of
            overlapped parts, then on those of parts alone.
        factor: (rows,) slowdown when all of it runs beside the other stream's work.
        comm_factor: the same of communication, by kind.
        exposed_factor: slowdown of exchanges in parts alone.
        op_s: (2, ops) one run of each kernel at balanced load, its launch gap included; likewise.
        bound: (ops,) what holds each kernel at balanced load, on the SMs of overlapped parts.
        basis: (ops,) what its price rests on.
    """

    seconds: Floats
    factor: Floats
    comm_factor: dict[CommKind, float]
    exposed_factor: float
    op_s: Floats
    bound: NDArray[np.str_]
    basis: tuple[str, ...]

    def table_rows(self, rows: Ints, *, overlapped: bool) -> Ints:
        """Return the rows in `seconds` of segments of a part, -1 for communication."""
        return rows if overlapped else np.where(rows >= 0, rows + len(self.factor), -1)

    def exchange_slowdown(self, *, overlapped: bool) -> float:
        """Return by how much exchanges of a part are slower than priced, before any overlap."""
        return 1.0 if overlapped else self.exposed_factor

    def factors_of(self, program: Sequence[Segment], rows: Ints) -> Floats:
        """Return the slowdown of each segment wholly beside the other stream; rows as above."""
        return np.array(
            [
                self.factor[row] if segment.comm is None else self.comm_factor[segment.comm.kind]
                for segment, row in zip(program, rows.tolist(), strict=True)
            ]
        )


def load_index(load: Floats) -> Ints:
    """Return the column of a table of `SegmentPrices` that is nearest to each load."""
    return np.rint(load * (1 / LOAD_STEP)).astype(np.intp)


BALANCED_COLUMN = int(load_index(np.ones(1))[0])


@dataclass(frozen=True)
class SegmentPricer:
    """Prices kernels and exchanges on the ranks of one expert group.

    Attributes:
        kernels: on the SMs of overlapped parts; `alone`: of parts alone, the same if None.
        exposed_factor: slowdown of exchanges in parts alone.
    """

    kernels: KernelPricer
    exchanges: ExchangePricer
    alone: KernelPricer | None = None
    exposed_factor: float = 1.0

    def prices(self, segments: SegmentOps, load_max: float = 1.0) -> SegmentPrices:
        """Return the table of all segments, up to a load of `load_max`."""
        columns = np.arange(int(load_index(np.array(max(load_max, 1.0)))) + 1)
        loads = np.maximum(columns * LOAD_STEP, LEAST_LOAD)
        costs = self.kernels.price(segments.ops, loads)
        alone = costs if self.alone is None else self.alone.price(segments.ops, loads)
        run_s = [priced.duration_s + priced.gap_s[:, None] for priced in (costs, alone)]
        balanced_s = costs.duration_s[:, BALANCED_COLUMN]
        total = segments.sums(balanced_s)
        slowed = segments.sums(balanced_s * costs.beside_factor)
        return SegmentPrices(
            seconds=np.vstack([segments.sums(op_s) for op_s in run_s]),
            factor=np.divide(slowed, total, out=np.ones_like(total), where=total > 0),
            comm_factor={
                "dispatch": self.exchanges.rates.dispatch_beside_compute,
                "combine": self.exchanges.rates.combine_beside_compute,
            },
            exposed_factor=self.exposed_factor,
            op_s=np.stack([op_s[:, BALANCED_COLUMN] for op_s in run_s]),
            bound=costs.bound,
            basis=costs.basis,
        )
