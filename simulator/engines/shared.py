"""The array engine where tasks move bytes over shared links: events in time, compiled.

How long a transfer takes depends on what else moves, so here there is a clock, and a play is a walk
along it instead of one along the order of the graph. It means what the reference engine means, to
rounding, which crowded networks magnify: a transfer that is late by a little makes others late by
more, over and over, whichever engine works it out.
"""

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.engines.graph import TaskGraph
from simulator.engines.loops import Loops, loops_for
from simulator.engines.order import Order, order_of
from simulator.engines.shared_loops import Links, Tasks
from simulator.engines.timeline import Timeline
from simulator.engines.transfers import SAME_INSTANT, Transfers

TRANSFER_EFFORT = 20
"""Tasks of a pass of maxima and sums that take as long to interpret as one transfer here."""


def play_shared(
    graph: TaskGraph, transfers: Transfers, duration_s: Floats, loops: Loops | None = None
) -> Timeline:
    """Run `graph`, whose durations are `duration_s`, from time zero and return its timeline.

    Raises:
        DeadlockError: some tasks can never start; names them and what each waits for.
        InputError: a column points outside the graph.
    """
    tasks = _tasks(order_of(graph, loops), transfers, duration_s)
    effort = len(graph) + TRANSFER_EFFORT * int(transfers.moves.sum())
    (loops or loops_for(effort)).play_shared(tasks, _links(transfers))
    return Timeline(graph, tasks.ready_s, tasks.start_s, tasks.end_s)


def _tasks(order: Order, transfers: Transfers, duration_s: Floats) -> Tasks:
    """Return the tasks before time zero, by task and no longer by place."""
    tasks, members = len(order.sequence), np.diff(order.event_start)
    event, waits = (np.empty(tasks, dtype=np.int64) for _ in range(2))
    event[order.sequence] = np.repeat(np.arange(len(members)), members)
    waits[order.sequence] = np.diff(order.before_start)
    after_start, edge = _grouped(order.before, tasks)
    after = np.repeat(order.sequence, np.diff(order.before_start))[edge]
    ready = np.bincount(event[waits == 0], minlength=len(members))
    return Tasks(
        event=event,
        member_start=order.event_start,
        member=order.sequence,
        after_start=after_start,
        after=after,
        waits=waits,
        missing=members - ready,
        moves=transfers.moves.astype(np.int64),
        duration_s=duration_s,
        due_s=np.zeros(tasks),
        ready_s=np.zeros(tasks),
        start_s=np.zeros(tasks),
        end_s=np.zeros(tasks),
    )


def _links(transfers: Transfers) -> Links:
    """Return the links while nothing moves yet."""
    tasks, links, crossings = (
        len(column) for column in (transfers.moved_bytes, transfers.links, transfers.link)
    )
    link = np.require(transfers.link, dtype=np.int64, requirements=["C", "W"])
    first, _ = _grouped(link, links)
    return Links(
        link_start=np.require(transfers.link_start, dtype=np.int64, requirements=["C", "W"]),
        link=link,
        bytes_per_s=np.array(transfers.link_bytes_per_s, dtype=np.float64),
        share=np.array(transfers.shares, dtype=np.float64),
        task=np.repeat(np.arange(tasks), np.diff(transfers.link_start)),
        first=first,
        movers=np.zeros(links, dtype=np.int64),
        moving=np.zeros(crossings, dtype=np.int64),
        place=np.zeros(crossings, dtype=np.int64),
        rate=np.full(tasks, -1.0),
        left_bytes=np.array(transfers.moved_bytes, dtype=np.float64),
        since_s=np.zeros(tasks),
        fair=np.zeros(tasks),
        free=np.zeros(links),
        rising=np.zeros(links, dtype=np.int64),
        load=np.zeros(links),
        seen_link=np.zeros(links, dtype=np.int64),
        seen_task=np.zeros(tasks, dtype=np.int64),
        found_links=np.zeros(links, dtype=np.int64),
        found_tasks=np.zeros(tasks, dtype=np.int64),
        same_instant=SAME_INSTANT,
    )


def _grouped(group: Ints, groups: int) -> tuple[Ints, Ints]:
    """Return the entries of each group as CSR, in their order."""
    start = np.concatenate(([0], np.cumsum(np.bincount(group, minlength=groups))))
    return start, np.argsort(group, kind="stable")
