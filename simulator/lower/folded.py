"""Folded play: each distinct part once on one expert group, then one pipeline of steps.

Hierarchical: a step ends when its slowest rank does. That is exact as long as all ranks of a group
start a step together; where some run ahead it is slightly long. A step without exchanges holds
nobody: a rank goes on when its own is done, and the first exchange to come waits for the last.

One group and one pipeline stand for all. Where groups, or the hops of pipelines between two ranks,
lie over nodes in several ways, they are as slow as the slowest; explicit ranks have each its own.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints, Mask
from simulator.lower.durations import Work, exchange_seconds, fill_durations
from simulator.lower.lowered import Lowered
from simulator.lower.parts import PartPlay
from simulator.lower.spread import highest_load, part_loads
from simulator.play.graph import TaskGraph
from simulator.play.order import ready_s
from simulator.play.timeline import Timeline
from simulator.price.segments import SegmentPricer, SegmentPrices, load_index
from simulator.ranks import RanksSpec


@dataclass(frozen=True, eq=False)
class FoldedPlay:
    """Every distinct part played with each draw of the expert load.

    Attributes:
        draw_of_step: (steps,) the draw that each step of the program takes.
        loads: (draws, slots, ranks) expert loads of all distinct parts, one after another.
    """

    lowered: Lowered
    prices: SegmentPrices
    parts: dict[Hashable, PartPlay]
    draw_of_step: Ints
    loads: Floats

    @property
    def steps_s(self) -> Floats:
        """(steps,) seconds of each step, rank by rank."""
        table = [self.parts[key].duration_s for key in self.lowered.keys]
        return np.stack(table)[self.lowered.part_of_step, self.draw_of_step]

    @cached_property
    def lag_s(self) -> Floats:
        """(steps,) seconds by which the slowest rank of a group is then behind its mean one.

        Behind the last of the steps without exchanges that follow one another; 0 elsewhere.
        """
        lowered = self.lowered
        joined = np.array([self.parts[key].is_joined for key in lowered.keys])
        last_of_run = _last_of_run(joined[lowered.part_of_step], lowered.pipeline.links.first)
        alone = np.flatnonzero(last_of_run >= 0)
        ends, run = np.unique(last_of_run[alone], return_inverse=True)
        behind_s = np.zeros((len(ends), self.loads.shape[2]))
        for number in np.unique(lowered.part_of_step[alone]).tolist():
            is_part = lowered.part_of_step[alone] == number
            by_rank_s = self.parts[lowered.keys[number]].by_rank_s
            late_s = by_rank_s - by_rank_s.mean(axis=1, keepdims=True)
            np.add.at(behind_s, run[is_part], late_s[self.draw_of_step[alone[is_part]]])
        lag_s = np.zeros(len(last_of_run))
        lag_s[ends] = behind_s.max(axis=1)
        return lag_s

    def timed(self, message_s: Floats | float, optimizer_s: Floats) -> TaskGraph:
        """Return the pipeline with seconds; arguments as of `Pipeline.timed`."""
        pipeline = self.lowered.pipeline
        return pipeline.timed(self.steps_s + self.lag_s, message_s, optimizer_s)

    def of_mean_rank(self, timeline: Timeline) -> Timeline:
        """Return a timeline of the pipeline's graph, in which steps last until the slowest rank is
        done, as it is for the mean one: it goes on at once, and waits in the exchanges to come.
        """
        end_s, start_s, steps = timeline.end_s.copy(), timeline.start_s.copy(), len(self.lag_s)
        end_s[:steps] -= self.lag_s
        came_s = ready_s(timeline.graph, end_s)
        start_s[:steps] = came_s[:steps]
        return Timeline(timeline.graph.with_durations(end_s - start_s), came_s, start_s, end_s)

    @property
    def tasks(self) -> int:
        """Tasks played."""
        return sum(part.seconds.size for part in self.parts.values())


def _last_of_run(joined: Mask, first: Sequence[int]) -> Ints:
    """Return (steps,) of steps without exchanges the last of those that follow one another on their
    pipeline rank; -1 for all other steps.

    Args:
        joined: (steps,) whether it has exchanges; first: step of each rank, and the end.
    """
    breaks = np.union1d(np.flatnonzero(joined), first)
    following = breaks[np.searchsorted(breaks, np.arange(len(joined)), side="right")]
    return np.where(joined, -1, following - 1)


class PartSeconds(NamedTuple):
    """What a distinct part takes before anything runs beside anything.

    Attributes:
        alone_s: (tasks, draws * ranks) seconds of each task.
        factor: (tasks,) slowdown of one that runs wholly beside the other stream's work.
    """

    alone_s: Floats
    factor: Floats


@dataclass(frozen=True, eq=False)
class FoldedSeconds:
    """Every distinct part on one expert group, with each draw of its loads, before it is played.

    Attributes:
        loads: (draws, slots, ranks) expert loads of all parts, one after another.
        ranks: played ones: one stands for the group where all are alike.
    """

    prices: SegmentPrices
    parts: dict[Hashable, PartSeconds]
    loads: Floats
    ranks: int


def folded_seconds(
    ranks: RanksSpec,
    lowered: Lowered,
    pricer: SegmentPricer,
    rng: np.random.Generator,
) -> FoldedSeconds:
    """Return what each distinct part takes on one expert group, for every draw of its loads."""
    draws = ranks.draws if ranks.expert_load.is_drawn else 1
    loads = part_loads(ranks, lowered, draws, rng)
    highest = float(loads.max(initial=highest_load(ranks, lowered.program)))
    prices = pricer.prices(lowered.segments, highest)
    group_loads = loads.swapaxes(0, 1)  # (slots, draws, ranks)
    exchange_s = exchange_seconds(lowered, pricer, group_loads)
    played = loads.shape[2] if (loads != loads[..., :1]).any() else 1
    column = load_index(group_loads[..., :played]).reshape(len(group_loads), draws * played)
    parts, first = {}, 0
    for key, loads_met in zip(lowered.keys, lowered.loads, strict=True):
        part, slots = lowered.parts[key], slice(first, first + loads_met)
        first += loads_met
        overlapped = part.graph.part.overlapped
        exposed = prices.exchange_slowdown(overlapped=overlapped)
        work = Work(
            prices.table_rows(part.row, overlapped=overlapped),
            lowered.comm_of[key],
            np.where(part.load < 0, loads_met, part.load),
            np.where(part.is_comm, exposed, 1.0),
        )
        parts[key] = PartSeconds(
            fill_durations(work, prices.seconds, column[slots], exchange_s[:, slots]),
            prices.factors_of(part.graph.segments, part.row),
        )
    return FoldedSeconds(prices, parts, loads, played)
