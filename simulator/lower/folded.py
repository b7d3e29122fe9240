"""Folded play: each distinct part once on one expert group, then one pipeline of steps.

Hierarchical: a step ends when its slowest rank does. That is exact as long as all ranks of a group
start a step together; where some run ahead it is slightly long. A step without exchanges holds
nobody: a rank goes on when its own is done, and the first exchange to come waits for the last.

One group and one pipeline stand for all. Where groups, or the hops of pipelines between two ranks,
lie over nodes in several ways, they are as slow as the slowest; explicit ranks have each its own.

Several points, machines that run one program, are columns of one play: replicas of its parts and of
its pipeline, side by side.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.errors import InputError
from simulator.engines.settle import Settled
from simulator.lower.durations import Work, exchange_seconds, fill_durations, load_columns
from simulator.lower.lowered import Lowered
from simulator.lower.parts import (
    PartPlay,
    durations_s,
    mean_busy_s,
    mean_slowdown,
    mean_wait_s,
)
from simulator.lower.spread import LoadDraw
from simulator.price.segments import (
    LoadGrid,
    SegmentPricer,
    SegmentPrices,
    segment_prices,
    table_rows,
)
from workloads.ops import COMM, COMPUTE

Keep = Literal["numbers", "prices", "insides"]
"""What is kept of folded play, each more than the one before: numbers; prices at all loads, which
single ranks meet; what each part did on every rank, to be looked into."""


class PartSeconds(NamedTuple):
    """What a distinct part takes before anything runs beside anything.

    Attributes:
        alone_s: (tasks, points * draws * ranks) seconds of each task.
        factor: (tasks, points * draws) slowdown of one that runs wholly beside the other stream.
    """

    alone_s: Floats
    factor: Floats


@dataclass(frozen=True, eq=False)
class FoldedSeconds:
    """Every distinct part on one expert group of each point, before it is played.

    Attributes:
        prices: of all points.
        draws: loads of each point.
        ranks: played ones: one stands for the group where all are alike.
    """

    lowered: Lowered
    prices: SegmentPrices
    parts: dict[Hashable, PartSeconds]
    draws: tuple[LoadDraw, ...]
    ranks: int


def folded_prices(
    lowered: Lowered, pricers: Sequence[SegmentPricer], draws: Sequence[LoadDraw]
) -> SegmentPrices:
    """Return what the segments of parts cost on several points, at all loads that they may meet."""
    grid = LoadGrid.over(min(d.least for d in draws), max(d.most for d in draws))
    return segment_prices(pricers, lowered.segments, grid)


def folded_seconds(
    lowered: Lowered,
    prices: SegmentPrices,
    pricers: Sequence[SegmentPricer],
    draws: Sequence[LoadDraw],
) -> FoldedSeconds:
    """Return what each distinct part takes on one expert group, for every draw of its loads.

    Args:
        prices, pricers, draws: of each point; all have equally many draws and ranks that are
            played.
    """
    grid = prices.grid
    points, columns = len(pricers), prices.seconds.shape[-1]
    table = np.ascontiguousarray(prices.seconds.swapaxes(0, 1)).reshape(-1, points * columns)
    ranks = draws[0].ranks
    # (slots, points, draws, ...)
    loads = np.stack([draw.loads[..., :ranks] for draw in draws], axis=1)
    exchange_s = np.stack(
        [
            exchange_seconds(lowered, pricer, draw.loads)
            for pricer, draw in zip(pricers, draws, strict=True)
        ],
        axis=2,
    )
    at_point = columns * np.arange(points)[:, None, None]
    column = load_columns(grid, loads) + at_point
    parts, first = {}, 0
    for key, met in zip(lowered.keys, lowered.loads, strict=True):
        slots = [*range(first, first + met), -1]
        parts[key] = _part_seconds(lowered, key, prices, table, column[slots], exchange_s[:, slots])
        first += met
    return FoldedSeconds(lowered, prices, parts, tuple(draws), ranks)


def _part_seconds(
    lowered: Lowered,
    key: Hashable,
    prices: SegmentPrices,
    table: Floats,
    column: Ints,
    exchange_s: Floats,
) -> PartSeconds:
    """Return what one part takes.

    Args:
        table: (rows, points * columns); column: (slots + 1, points, draws, ranks) into it.
        exchange_s: (exchanges, slots + 1, points, draws).
    """
    part, draws = lowered.parts[key], column.shape[2]
    overlapped = part.graph.part.overlapped
    work = Work(
        table_rows(part.row, len(lowered.segments.first), overlapped=overlapped),
        lowered.comm_of[key],
        np.where(part.load < 0, len(column) - 1, part.load),
        np.ones(len(part.row)),
    )
    exposed = prices.exchange_slowdown(overlapped=overlapped)
    exchange_s = exchange_s * exposed[:, None]
    groups = exchange_s.shape[2] * draws
    alone_s = fill_durations(
        work,
        table,
        column.reshape(len(column), -1),
        exchange_s.reshape(*exchange_s.shape[:2], groups),
    )
    factor = np.repeat(prices.factors_of(part.graph.segments, part.row).T, draws, axis=1)
    return PartSeconds(alone_s, factor)


class PartMeans(NamedTuple):
    """(parts, points) means over the draws of a part's loads.

    Attributes:
        duration_s: until the slowest rank is done.
        compute_s, communication_s: mean over ranks, work only.
        wait_s: mean wait of a rank for the others, per exchange.
    """

    duration_s: Floats
    compute_s: Floats
    communication_s: Floats
    wait_s: Floats


class PartDetails(NamedTuple):
    """What a part did on every rank of all points: seconds alone, and as it was played."""

    alone_s: Floats
    settled: Settled


@dataclass(frozen=True, eq=False)
class FoldedColumns:
    """Every distinct part as it was played, on all points at once.

    Attributes:
        prices: of each point.
        draws: loads of each point.
        ranks: played ones, as in `FoldedSeconds`.
        steps_s: (steps, points) seconds of each step, rank by rank.
        lag_s: (steps, points) seconds by which the slowest rank of a group is then behind its mean
            one, behind the last of steps without exchanges that follow one another; else 0.
        slowdown: of each part, (tasks, points) by how much what runs beside lengthens a task, mean
            over draws and ranks.
        details: what each part did on every rank, if that was kept.
    """

    lowered: Lowered
    prices: tuple[SegmentPrices, ...]
    draws: tuple[LoadDraw, ...]
    ranks: int
    steps_s: Floats
    lag_s: Floats
    means: PartMeans
    slowdown: tuple[Floats, ...]
    details: dict[Hashable, PartDetails] | None

    @classmethod
    def of(
        cls, seconds: FoldedSeconds, settled: dict[Hashable, Settled], keep: Keep
    ) -> "FoldedColumns":
        """Return what came of parts."""
        lowered, prices = seconds.lowered, seconds.prices
        shape = len(seconds.draws), -1, seconds.ranks
        by_rank_s = [done.played.makespan_s.reshape(shape) for done in settled.values()]
        of_draws_s = _durations_s(lowered, by_rank_s)
        of_step = np.stack([draw.of_step for draw in seconds.draws], axis=1)
        points = np.arange(len(seconds.draws))
        if keep == "numbers":
            prices = prices.within(LoadGrid.over(1.0, 1.0))
        return cls(
            lowered,
            tuple(map(prices.of, range(len(points)))),
            seconds.draws,
            seconds.ranks,
            steps_s=of_draws_s[lowered.part_of_step[:, None], points, of_step],
            lag_s=_lag_s(lowered, by_rank_s, of_step),
            means=_means(lowered, of_draws_s, list(settled.values())),
            slowdown=tuple(
                mean_slowdown(settled[key].seconds, alone_s, len(points))
                for key, (alone_s, _) in seconds.parts.items()
            ),
            details={
                key: PartDetails(seconds.parts[key].alone_s, done) for key, done in settled.items()
            }
            if keep == "insides"
            else None,
        )

    @classmethod
    def joined(cls, parts: Sequence["FoldedColumns"]) -> "FoldedColumns":
        """Return points played one after another as one; without details, which none has."""
        if len(parts) == 1:
            return parts[0]
        means = zip(*(part.means for part in parts), strict=True)
        return cls(
            parts[0].lowered,
            tuple(prices for part in parts for prices in part.prices),
            tuple(draw for part in parts for draw in part.draws),
            parts[0].ranks,
            np.concatenate([part.steps_s for part in parts], axis=1),
            np.concatenate([part.lag_s for part in parts], axis=1),
            PartMeans(*(np.concatenate(columns, axis=1) for columns in means)),
            tuple(
                np.concatenate(of_part, axis=1)
                for of_part in zip(*(part.slowdown for part in parts), strict=True)
            ),
            details=None,
        )

    def of_point(self, point: int) -> "FoldedPlay":
        """Return what was played on one point."""
        return FoldedPlay(self, point)


def _durations_s(lowered: Lowered, by_rank_s: Sequence[Floats]) -> Floats:
    """Return (parts, points, draws) seconds of each part.

    Args:
        by_rank_s: of each part, (points, draws, ranks) until each rank is done.
    """
    parts = zip(lowered.parts.values(), by_rank_s, strict=True)
    return np.stack([durations_s(rank_s, joined=part.is_joined) for part, rank_s in parts])


def _lag_s(lowered: Lowered, by_rank_s: Sequence[Floats], of_step: Ints) -> Floats:
    """Return (steps, points) seconds, as in `FoldedColumns`; `of_step`: (steps, points) draws."""
    points = np.arange(of_step.shape[1])
    joined = np.array([part.is_joined for part in lowered.parts.values()])
    last_of_run = _last_of_run(joined[lowered.part_of_step], lowered.pipeline.links.first)
    alone = np.flatnonzero(last_of_run >= 0)
    ends, run = np.unique(last_of_run[alone], return_inverse=True)
    behind_s = np.zeros((len(ends), len(points), by_rank_s[0].shape[2]))
    for number in np.unique(lowered.part_of_step[alone]).tolist():
        is_part = lowered.part_of_step[alone] == number
        late_s = by_rank_s[number] - by_rank_s[number].mean(axis=2, keepdims=True)
        np.add.at(behind_s, run[is_part], late_s[points, of_step[alone[is_part]]])
    lag_s = np.zeros(of_step.shape)
    lag_s[ends] = behind_s.max(axis=2)
    return lag_s


def _means(lowered: Lowered, of_draws_s: Floats, settled: Sequence[Settled]) -> PartMeans:
    points = of_draws_s.shape[1]
    rows = [
        (
            mean_busy_s(done.played, COMPUTE, points),
            mean_busy_s(done.played, COMM, points),
            mean_wait_s(done.played, int(part.is_comm.sum()), points),
        )
        for part, done in zip(lowered.parts.values(), settled, strict=True)
    ]
    return PartMeans(of_draws_s.mean(axis=2), *map(np.stack, zip(*rows, strict=True)))


@dataclass(frozen=True, eq=False)
class FoldedPlay:
    """Every distinct part played with each draw of the expert load, on one point."""

    columns: FoldedColumns
    point: int

    @property
    def lowered(self) -> Lowered:
        """What was played."""
        return self.columns.lowered

    @property
    def draw(self) -> LoadDraw:
        """Loads that its parts met."""
        return self.columns.draws[self.point]

    @property
    def prices(self) -> SegmentPrices:
        """What segments cost."""
        return self.columns.prices[self.point]

    @cached_property
    def parts(self) -> dict[Hashable, PartPlay]:
        """Every distinct part.

        Raises:
            InputError: what happened on their ranks was not kept.
        """
        columns, draws = self.columns, self.draw.draws
        if columns.details is None:
            raise InputError("parts: what happened in them was not kept; play the step by itself")
        groups = slice(self.point * draws, (self.point + 1) * draws)
        replicas = slice(groups.start * columns.ranks, groups.stop * columns.ranks)
        return {
            key: PartPlay.of(
                self.lowered.parts[key].graph,
                columns.ranks,
                alone_s[:, replicas],
                settled.take(groups),
            )
            for key, (alone_s, settled) in columns.details.items()
        }

    @property
    def means(self) -> PartMeans:
        """(parts,) of each distinct part."""
        return PartMeans(*(column[:, self.point] for column in self.columns.means))

    @property
    def slowdown(self) -> tuple[Floats, ...]:
        """(tasks,) of each part, as in `FoldedColumns`."""
        return tuple(of_part[:, self.point] for of_part in self.columns.slowdown)

    @property
    def steps_s(self) -> Floats:
        """(steps,) seconds of each step, rank by rank."""
        return self.columns.steps_s[:, self.point]

    @property
    def lag_s(self) -> Floats:
        """(steps,) seconds by which the slowest rank is behind, as in `FoldedColumns`."""
        return self.columns.lag_s[:, self.point]

    @property
    def tasks(self) -> int:
        """Tasks played."""
        replicas = self.draw.draws * self.columns.ranks
        return sum(len(part.row) * replicas for part in self.lowered.parts.values())


def _last_of_run(joined: Mask, first: Sequence[int]) -> Ints:
    """Return (steps,) of steps without exchanges the last of those that follow one another on their
    pipeline rank; -1 for all other steps.

    Args:
        joined: (steps,) whether it has exchanges; first: step of each rank, and the end.
    """
    breaks = np.union1d(np.flatnonzero(joined), first)
    following = breaks[np.searchsorted(breaks, np.arange(len(joined)), side="right")]
    return np.where(joined, -1, following - 1)
