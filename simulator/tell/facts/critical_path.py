"""The chain of work that a step could not have been shorter without, over all ranks.

Walked backwards from the rank that ends the step: each task started when the last of what it waited
for ended, or when the last member of its collective was ready, so the chain has no gaps and its
seconds sum to the step. Inside a run of kernels time is shared out as at balanced load.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from rich.console import Console

from hwmodels.arrays import Floats
from simulator.engines.order import Order, order_of
from simulator.lower.expansion import Expansion, expand
from simulator.lower.explicit import ExplicitPlay, last_rank
from simulator.lower.lowered import Lowered
from simulator.lower.played import Played
from simulator.price.segments import SegmentPrices
from simulator.tell.exhibits import Column, Table, words
from simulator.tell.facts import Facts

MESSAGES, OPTIMIZER = "pipeline messages", "optimizer"
LINKS_SHOWN = 8


class CriticalPath(Facts):
    """The chain of work that the step could not have been shorter without.

    Attributes:
        by_family_s: its seconds by kernel family, `dispatch`, `combine`, messages and optimizer
            among them, the largest first; they sum to the step.
    """

    example: ClassVar[Mapping[str, Any]] = {"ranks.play": "explicit"}

    kind: Literal["critical_path"] = "critical_path"
    by_family_s: dict[str, float]

    @classmethod
    def of(cls, played: Played) -> "CriticalPath | None":
        """Return the critical path; None where ranks were folded.

        Raises:
            InputError: the timeline of the group that ended the step was not kept.
        """
        play = played.explicit
        if play is None:
            return None
        return cls(by_family_s=critical_path_s(played.lowered, played.folded.prices, play))

    def show(self, console: Console) -> None:
        """Print its largest shares."""
        path, step_s = list(self.by_family_s.items()), sum(self.by_family_s.values())
        shown = ", ".join(
            f"{name.replace('_', ' ')} {seconds / step_s:.0%}"
            for name, seconds in path[:LINKS_SHOWN]
        )
        console.print(
            f"critical path: {shown}, {max(len(path) - LINKS_SHOWN, 0)} more", highlight=False
        )

    def exhibits(self) -> Iterator[Table]:
        """Yield every family with its seconds and its share of the step."""
        step_s = sum(self.by_family_s.values())
        columns = (Column("work"), Column("on the path", "s"), Column("share", "share", bars=True))
        rows = tuple((words(name), s, s / step_s) for name, s in self.by_family_s.items())
        yield Table(
            "The chain of work that the step could not be shorter without",
            columns,
            rows,
            note=f"Its {step_s:.3f} s are the step.",
        )


class Link(NamedTuple):
    """One task of the chain, and the pipeline of the group it ran in."""

    task: int
    replica: int


def critical_path_s(
    lowered: Lowered, prices: SegmentPrices, play: ExplicitPlay
) -> dict[str, float]:
    """Return the seconds of the critical path, the largest first.

    By kernel family, `dispatch` and `combine` among them, messages and optimizer; sums to the step.

    Raises:
        InputError: the timeline of the group that ends the step was not kept.
    """
    expansion = expand(lowered)
    rank, pipeline = last_rank(lowered, play)
    group, replica = lowered.program.placement.group_of_pipeline(pipeline)
    _, played, duration_s = play.group(group)
    final = expansion.end[lowered.pipeline.links.first[rank + 1] - 1]
    seconds = defaultdict(float, {OPTIMIZER: play.step_s - float(play.finish_s[rank, pipeline])})
    shares = _family_shares(lowered, prices)
    for link in _walk(order_of(expansion.graph), played.end_s, Link(int(final), replica)):
        task_s = float(duration_s[link])
        for name, share in _names(lowered, expansion, shares, link.task).items():
            seconds[name] += share * task_s
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def _walk(order: Order, end_s: Floats, link: Link) -> Iterator[Link]:
    """Yield the tasks of the chain that ends with `link`, the last first.

    Args:
        end_s: (tasks, replicas) of one group.
    """
    place_of = np.empty(len(order.sequence), np.int64)
    place_of[order.sequence] = np.arange(len(order.sequence))
    joined = np.repeat(order.joined, np.diff(order.event_start))
    task, replica = link
    while True:
        yield Link(task, replica)
        place = place_of[task]
        before = order.before[order.before_start[place] : order.before_start[place + 1]]
        if not len(before):
            return
        if joined[place]:  # the last of the group to be ready was waited for
            replica = int(np.argmax(end_s[before].max(axis=0)))
        task = int(before[np.argmax(end_s[before, replica])])


def _family_shares(lowered: Lowered, prices: SegmentPrices) -> list[dict[str, float]]:
    """Return for each segment the shares of its kernel families, at balanced load in overlapped
    parts.

    A segment that takes no time, as launches do on a roofline, has none.
    """
    shares, segments = [], lowered.segments
    for launched in np.split(segments.launched, segments.first[1:]):
        total: defaultdict[str, float] = defaultdict(float)
        for index in launched.tolist():
            total[segments.ops[index].family] += float(prices.op_s[0, index])
        whole = sum(total.values())
        shares.append({name: seconds / whole for name, seconds in total.items() if whole})
    return shares


def _names(
    lowered: Lowered, expansion: Expansion, shares: list[dict[str, float]], task: int
) -> dict[str, float]:
    """Return what a task's seconds are booked under, and in which shares."""
    if expansion.part[task] < 0:
        return {MESSAGES: 1.0}  # begin and end take no time
    number, place = expansion.parts[expansion.part[task]].tolist()
    part = lowered.parts[lowered.keys[number]]
    comm = part.graph.segments[place].comm
    return shares[int(part.row[place])] if comm is None else {comm.kind: 1.0}
