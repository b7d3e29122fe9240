"""Seconds for segments: what the kernels between two communication points cost at every load.

Tokens come whole, so loads come in steps: a table holds each segment at every multiple of
`LOAD_STEP` of the balanced load, and whoever plays ranks looks its loads up in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.price.collectives import ExchangePricer
from simulator.price.kernels import KernelPricer
from workloads.chunks import Segment, segment_ops
from workloads.layers import Layer, Phase
from workloads.ops import Op
from workloads.schedules.step import StepKind

LOAD_STEP = 1 / 256
"""Of the balanced load: 128 of DeepSeek-V3's 32,768 rows, to which each expert's are padded."""

LEAST_LOAD = 1e-6
"""What stands for a load of none: kernels still launch, on next to no rows."""

KERNEL_PARTS = ("attn", "mlp", "layout")
PHASES: tuple[Phase, ...] = ("F", "B", "W")


class OpSeconds(NamedTuple):
    """One op of a whole step: what its price rests on, and the seconds all its runs take."""

    op: Op
    basis: str
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class SegmentOps:
    """The kernels of every segment of some layers, before any price.

    Attributes:
        row: by (kind of layer, part, phase), for runs of kernels that are not empty.
        ops: all distinct kernels.
        launched, first: the kernels of each segment in launch order, as places in `ops`; CSR.
    """

    row: dict[tuple[int, str, Phase], int]
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

    def rows_of(self, program: Sequence[Segment], kinds: Sequence[int]) -> Ints:
        """Return the row of each segment, -1 for exchanges; `kinds` of the segments' layers."""
        named = zip(program, kinds, strict=True)
        return np.array([self.row.get((kind, s.part, s.phase), -1) for s, kind in named], np.intp)


def collect_ops(layers: Sequence[Layer]) -> SegmentOps:
    """Return the kernels of all segments of `layers`."""
    named = {
        (kind, part, phase): ops
        for kind, layer in enumerate(layers)
        for part in KERNEL_PARTS
        for phase in PHASES
        if (ops := segment_ops(layer, part, phase))
    }
    place: dict[Op, int] = {}
    launched = [place.setdefault(op, len(place)) for ops in named.values() for op in ops]
    first = np.cumsum([0, *map(len, named.values())])[:-1]
    row = {name: row for row, name in enumerate(named)}
    return SegmentOps(row, tuple(place), np.array(launched, np.intp), first)


@dataclass(frozen=True, slots=True, eq=False)
class SegmentPrices:
    """What every segment of some layers costs on one rank.

    Attributes:
        seconds: (2 rows, loads) undisturbed, at loads 0, LOAD_STEP, 2 LOAD_STEP ...: on the SMs of
            overlapped chunks, then on those of chunks alone.
        factor: (rows,) slowdown when all of it runs beside the other stream's work.
        exchange_factor: the same of exchanges, by their kernels: `dispatch`, `combine`.
        op_s: (2, ops) one run of each kernel at balanced load, its launch gap included; likewise.
        basis: (ops,) what its price rests on.
    """

    seconds: Floats
    factor: Floats
    exchange_factor: dict[str, float]
    op_s: Floats
    basis: tuple[str, ...]

    def table_rows(self, kind: StepKind, rows: Ints) -> Ints:
        """Return the rows in `seconds` of segments in a chunk of this kind, -1 for exchanges."""
        return rows if kind == "FB" else np.where(rows >= 0, rows + len(self.factor), -1)

    def factors_of(self, program: Sequence[Segment], rows: Ints) -> Floats:
        """Return the slowdown of each segment wholly beside the other stream; rows as above."""
        return np.array(
            [
                self.factor[row] if row >= 0 else self.exchange_factor[segment.carrier]
                for segment, row in zip(program, rows.tolist(), strict=True)
            ]
        )


def load_index(load: Floats) -> Ints:
    """Return the column of a table of `SegmentPrices` that is nearest to each load."""
    return np.rint(load * (1 / LOAD_STEP)).astype(np.intp)


BALANCED_COLUMN = int(load_index(np.ones(1))[0])


@dataclass(frozen=True)
class SegmentPricer:
    """Prices the kernels and exchanges of layers on the ranks of one expert group.

    Attributes:
        kernels: on the SMs of overlapped chunks; `alone`: of chunks alone, the same if None.
    """

    kernels: KernelPricer
    exchanges: ExchangePricer
    alone: KernelPricer | None = None

    def prices(self, segments: SegmentOps, load_max: float = 1.0) -> SegmentPrices:
        """Return the table of all segments, up to a load of `load_max`."""
        columns = np.arange(int(load_index(np.array(max(load_max, 1.0)))) + 1)
        loads = np.maximum(columns * LOAD_STEP, LEAST_LOAD)
        costs = self.kernels.price(segments.ops, loads)
        alone = costs if self.alone is None else self.alone.price(segments.ops, loads)
        run_s = [each.duration_s + each.gap_s[:, None] for each in (costs, alone)]
        balanced_s = costs.duration_s[:, BALANCED_COLUMN]
        total = segments.sums(balanced_s)
        slowed = segments.sums(balanced_s * costs.beside_factor)
        return SegmentPrices(
            seconds=np.vstack([segments.sums(each) for each in run_s]),
            factor=np.divide(slowed, total, out=np.ones_like(total), where=total > 0),
            exchange_factor={
                "dispatch": self.exchanges.rates.dispatch_beside_compute,
                "combine": self.exchanges.rates.combine_beside_compute,
            },
            op_s=np.stack([each[:, BALANCED_COLUMN] for each in run_s]),
            basis=costs.basis,
        )
