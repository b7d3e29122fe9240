"""Expert exchanges, pipeline messages and gradient rings that meet on the NICs of one pipeline.

Folded play gives each kind of traffic a NIC of its own. Here the pipeline is played once more,
segment by segment, on links: each rank has a NIC out and a NIC in (full duplex), shared max-min
fair by what moves at the same time (`simulator.engines.transfers`).

A step is what the slowest rank did in the folded play of its part, its waits for the other ranks
included (the mean rank where no exchange holds them together), so that a pipeline in which nothing
meets takes what it takes folded. Waiting and latency come first, as time; then bytes move:

    exchange  over both directions of its rank's NIC, no faster than in the part, where NVLink or
              kernels beside it may have held it up; what it leaves of the NIC, others can have
    message   over the NIC out of its sender and the NIC in of its receiver, if it leaves the node
    ring      at the end of the step, over both directions, no faster than NVLink lets it

Bytes are counted in seconds of a NIC: what keeps it busy for a second alone is a second of it,
whatever rate this kind of traffic reaches. Where switches copy or sum the tokens of an exchange,
one direction of its NICs carries less (`CommTimes.lighter_s`), and others can have the rest. How
kernels and exchanges slow each other stays as in the folded part.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints, Mask
from simulator.engines.graph import TaskGraph
from simulator.engines.order import ready_s
from simulator.engines.timeline import Timeline
from simulator.engines.transfers import Transfers
from simulator.lower.durations import exchange_seconds
from simulator.lower.expansion import STREAMS, Expansion, expand
from simulator.lower.folded import FoldedPlay
from simulator.lower.folded_pipeline import of_mean_rank, timeline_of
from simulator.lower.lowered import Lowered
from simulator.lower.nic_crossings import (
    NIC_BYTES_PER_S,
    NO_TRAFFIC,
    RING,
    TRAFFIC,
    NicCrossings,
    dispatches,
    lighter_share,
    nic_crossings,
)
from simulator.lower.parts import PartPlay
from simulator.lower.record import PipelineRecord
from simulator.price.messages import MessageTimes
from simulator.price.optimizer import OptimizerSeconds
from simulator.price.segments import ExchangePart, SegmentPricer
from workloads.ops import COMPUTE


@dataclass(frozen=True, slots=True, eq=False)
class NicGraph:
    """An expansion with the end of the step behind it, and who crosses which NIC; no seconds yet.

    Attributes:
        optimizer: (parts, pp) tasks of the end of the step: rings, kernels, rings.
        is_dispatch: (tasks,) whether a task is a dispatch.
    """

    expansion: Expansion
    graph: TaskGraph
    optimizer: Ints
    crossings: NicCrossings
    is_dispatch: Mask


@dataclass(frozen=True, slots=True, eq=False)
class TaskSeconds:
    """What tasks take if they meet nobody, as columns.

    Attributes:
        seconds: all of it, waiting for other ranks included.
        wait_s, moving_s: of these, the first spent waiting, the last moving bytes over NICs.
        nic_s: seconds that a NIC would need by itself for these bytes, at most `moving_s`.
        lighter_s: of these, in the direction of which switches take work; else as many.
    """

    seconds: Floats
    wait_s: Floats
    moving_s: Floats
    nic_s: Floats
    lighter_s: Floats

    @property
    def lighter(self) -> Floats:
        """Share of a task's bytes that the direction has of which switches take work."""
        return lighter_share(self.lighter_s, self.nic_s)


@dataclass(frozen=True, slots=True, eq=False)
class SharedNics:
    """What happened in one pipeline whose traffic met on its NICs.

    Attributes:
        alone: of every task.
    """

    nics: NicGraph
    alone: TaskSeconds
    record: PipelineRecord

    @property
    def delay_s(self) -> Floats:
        """(tasks,) seconds by which others on its NICs lengthened each task."""
        segments = self.record.segments
        taken_s = segments.end_s - segments.start_s + self.alone.wait_s
        return np.asarray(taken_s - self.alone.seconds)

    def by_traffic(self, seconds: Floats) -> Floats:
        """Return (kinds, pp) sums of (tasks,) seconds by kind of traffic and sending rank."""
        traffic, pp = self.nics.crossings.traffic, len(self.nics.optimizer[0])
        moving = traffic >= 0
        rank = self.nics.graph.stream[moving] // len(STREAMS)
        sums = np.bincount(traffic[moving] * pp + rank, seconds[moving], len(TRAFFIC) * pp)
        return np.asarray(sums.reshape(len(TRAFFIC), pp))


class NicPlay(NamedTuple):
    """One pipeline whose NICs are shared, ready to be played.

    Attributes:
        graph: its tasks with what they move; alone: of every task, if it meets nobody.
    """

    nics: NicGraph
    graph: TaskGraph
    alone: TaskSeconds

    def played(self, folded: FoldedPlay, timeline: Timeline) -> SharedNics:
        """Return what happened, given the timeline of `graph`."""
        nics = self.nics
        segments = replace(timeline, start_s=timeline.start_s + self.alone.wait_s)
        record = PipelineRecord.of(
            folded.lowered.pipeline,
            nics.expansion,
            segments,
            segments.start_s[nics.optimizer[0]],
            segments.end_s[nics.optimizer[-1]],
        )
        steps = record.steps
        spans = of_mean_rank(steps.graph, steps.start_s, steps.end_s, folded.lag_s)
        record = replace(record, steps=timeline_of(steps.graph, spans))
        return SharedNics(nics, self.alone, record)


def on_shared_nics(
    folded: FoldedPlay, pricer: SegmentPricer, messages: MessageTimes, optimizer: OptimizerSeconds
) -> NicPlay:
    """Return one pipeline of folded parts with its NICs shared.

    Args:
        folded: the same experiment played folded.
        messages: between pipeline ranks.
        optimizer: the end of the step.
    """
    nics = nic_graph(folded.lowered)
    alone = _task_seconds(nics, folded, pricer, messages, optimizer)
    transfers = _transfers(nics, alone)
    first_s = before_bytes_s(alone.seconds, alone.moving_s, alone.nic_s)
    return NicPlay(nics, nics.graph.with_durations(first_s, transfers), alone)


def before_bytes_s(seconds: Floats, moving_s: Floats, nic_s: Floats) -> Floats:
    """Return seconds of tasks before their bytes move; all of those that take no NIC, which meet
    nobody over NVLink.
    """
    return np.maximum(seconds - np.where(nic_s > 0, moving_s, 0.0), 0.0)


def _transfers(nics: NicGraph, alone: TaskSeconds) -> Transfers:
    """Return what tasks move over NICs, each no faster than alone."""
    links = nics.crossings.links
    return Transfers(
        share=nics.crossings.shares(alone.lighter, nics.is_dispatch),
        moved_bytes=alone.nic_s * NIC_BYTES_PER_S,
        link_start=links.link_start,
        link=links.link,
        link_bytes_per_s=nics.crossings.bytes_per_s(alone.moving_s, alone.nic_s),
        links=links.links,
    )


@lru_cache(maxsize=4)
def nic_graph(lowered: Lowered) -> NicGraph:
    """Return the expansion of a program with the end of the step, and its NICs."""
    expansion, pipeline = expand(lowered), lowered.pipeline
    inner, pp = expansion.graph, len(pipeline.program)
    steps = lowered.program.end
    rings = [sync.name for sync in steps[0].reduce], [sync.name for sync in steps[0].gather]
    names = [*rings[0], "optimizer kernels", *rings[1]]
    tasks, ranks = len(inner), np.arange(pp)
    optimizer = tasks + np.arange(len(names) * pp).reshape(len(names), pp)
    # Ranks whose gradients meet begin together; from then on each goes its own way.
    joined = np.full(optimizer.shape, -1)
    joined[0] = inner.collective.max(initial=-1) + 1 + pipeline.joined
    rank = np.tile(ranks, len(names))
    traffic = np.full(optimizer.size, RING)
    traffic[len(rings[0]) * pp : (len(rings[0]) + 1) * pp] = NO_TRAFFIC
    crossed = np.where((traffic == RING)[:, None], 2 * rank[:, None] + [0, 1], -1)
    graph = TaskGraph(
        stream=np.concatenate([inner.stream, len(STREAMS) * rank + STREAMS.index(COMPUTE)]),
        duration_s=np.zeros(tasks + optimizer.size),
        dependency_start=np.append(
            inner.dependency_start, np.full(optimizer.size, len(inner.dependency))
        ),
        dependency=inner.dependency,
        collective=np.append(inner.collective, joined),
        label=np.append(inner.label, np.repeat(len(inner.labels) + np.arange(len(names)), pp)),
        streams=inner.streams,
        labels=(*inner.labels, *names),
    )
    before = nic_crossings(lowered)
    crossings = NicCrossings.of(
        np.append(before.traffic, traffic), np.append(before.nics, crossed, axis=0), pp
    )
    is_dispatch = np.append(dispatches(lowered), np.zeros(optimizer.size, np.bool_))
    return NicGraph(expansion, graph, optimizer, crossings, is_dispatch)


def _task_seconds(
    nics: NicGraph,
    folded: FoldedPlay,
    pricer: SegmentPricer,
    messages: MessageTimes,
    optimizer: OptimizerSeconds,
) -> TaskSeconds:
    """Return what every task of a pipeline takes by itself."""
    expansion, tasks = nics.expansion, len(nics.graph)
    alone = TaskSeconds(*(np.zeros(tasks) for _ in fields(TaskSeconds)))
    parts = slowest_ranks(folded, pricer)
    in_parts = np.flatnonzero(expansion.part >= 0)
    drawn = expansion.part[in_parts], folded.draw.of_step[expansion.step[in_parts]]
    for field in fields(TaskSeconds):
        getattr(alone, field.name)[in_parts] = getattr(parts, field.name)[drawn]
    alone.seconds[expansion.end] = folded.lag_s
    of_messages = folded.lowered.pipeline.links.of_messages
    alone.seconds[expansion.message] = of_messages(messages.slowest(messages.times.seconds))
    for column in (alone.moving_s, alone.nic_s, alone.lighter_s):
        column[expansion.message] = of_messages(messages.slowest(messages.times.nic_s))
    before, after, kernels_s = optimizer.reduce, optimizer.gather, optimizer.kernels_s[None]
    for column, rings, between in (
        (alone.seconds, (before.seconds, after.seconds), kernels_s),
        (alone.moving_s, (before.moving_s, after.moving_s), 0 * kernels_s),
        (alone.nic_s, (before.nic_s, after.nic_s), 0 * kernels_s),
        (alone.lighter_s, (before.nic_s, after.nic_s), 0 * kernels_s),
    ):
        column[nics.optimizer] = np.concatenate([rings[0], between, rings[1]])
    return alone


def _of_group(play: PartPlay, seconds: Floats) -> Floats:
    """Return (tasks, draws) what the rank that stands for its group has of (tasks, replicas): the
    slowest one, or where no exchange holds them together their mean.
    """
    by_rank = seconds.reshape(len(seconds), play.draws, play.ranks)
    if not play.is_joined:
        return np.asarray(by_rank.mean(axis=2))
    slowest = play.played.makespan_s.reshape(play.draws, play.ranks).argmax(axis=1)
    return np.asarray(by_rank[:, np.arange(play.draws), slowest])


def slowest_ranks(folded: FoldedPlay, pricer: SegmentPricer) -> TaskSeconds:
    """Return (parts, draws) what the rank that stands for its group did with each draw of each
    distinct part.

    Played alone it takes as long as the part did on all ranks.
    """
    lowered = folded.lowered
    moving, nic_s, lighter_s = _exchange_parts(folded, pricer)
    columns: list[tuple[Floats, ...]] = []
    first = 0
    for key, loads in zip(lowered.keys, lowered.loads, strict=True):
        part, play = lowered.parts[key], folded.parts[key]
        end_s, worked_s = play.played.end_s, play.seconds
        spent_s = end_s - ready_s(part.graph.graph, end_s)
        spent_s, worked_s = (_of_group(play, seconds) for seconds in (spent_s, worked_s))
        parts = np.zeros((3, *worked_s.shape))
        comm = lowered.comm_of[key]
        moves = np.flatnonzero(comm >= 0)
        if len(moves):
            place = comm[moves], first + part.load[moves]
            moving_s = moving[place] * worked_s[moves]
            parts[:, moves] = moving_s, nic_s[place], lighter_s[place]
        columns.append((spent_s, np.maximum(spent_s - worked_s, 0.0), *parts))
        first += loads
    return TaskSeconds(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _exchange_parts(folded: FoldedPlay, pricer: SegmentPricer) -> tuple[Floats, Floats, Floats]:
    """Return (exchanges, slots, draws) of all parts, as of `exchange_parts`."""

    def seconds(part: ExchangePart) -> Floats:
        return exchange_seconds(folded.lowered, pricer.of_exchanges(part), folded.draw.loads)

    return exchange_parts(seconds)


def exchange_parts(seconds: Callable[[ExchangePart], Floats]) -> tuple[Floats, Floats, Floats]:
    """Return the share of an exchange's time in which bytes move, and the seconds that its slowest
    port needs of a NIC if nothing slows it down, in either direction and in the lighter one.

    Args:
        seconds: returns those of a part of its time.
    """
    whole_s, moving_s = seconds("seconds"), seconds("moving_s")
    moving = np.divide(moving_s, whole_s, out=np.zeros_like(whole_s), where=whole_s > 0)
    nic_s = np.minimum(seconds("nic_s"), moving_s)
    return moving, nic_s, np.minimum(seconds("lighter_s"), nic_s)
