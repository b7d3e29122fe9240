"""The inner loops of the array engine where transfers meet on links: a clock and a heap of ends.

Plain Python that Numba compiles, as in `loops.py`; the arrays of a run come in two named tuples.
A task has one or two parts, its duration and then its transfer. When a transfer starts or ends,
only those that it is connected with by links are given new rates; the others move on as they were.

What waits in the heap is (end, task) of parts: of durations all, of transfers those that end first
among the connected ones. An entry whose end is no longer `due_s` of its task is passed over.
"""

from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints

Ends = list[tuple[float, int]]

OVER = -1.0
"""`due_s` of a task that has ended."""


class Tasks(NamedTuple):
    """The tasks of a run and how far each is, by task unless it says otherwise; CSR as in graphs.

    Attributes:
        event: which event it belongs to: alone, or with all members of its collective.
        member_start, member: tasks of each event.
        after_start, after: tasks that wait for it.
        waits: how many tasks it still waits for.
        missing: (events,) members that are not ready.
        moves: it has a transfer, which follows its duration.
        due_s: end of the part it is in.
    """

    event: Ints
    member_start: Ints
    member: Ints
    after_start: Ints
    after: Ints
    waits: Ints
    missing: Ints
    moves: Ints
    duration_s: Floats
    due_s: Floats
    ready_s: Floats
    start_s: Floats
    end_s: Floats


class Links(NamedTuple):
    """The links of a run and what moves over them; a crossing is an entry of `Transfers.link`.

    Attributes:
        link_start, link: CSR; links that each task crosses.
        share: (crossings,) of a task's bytes that the link carries.
        task: (crossings,) whose it is.
        first: (links,) where those of a link begin in `moving`; the first `movers` move now.
        moving, place: (crossings,) crossings by link, and where each is among them.
        rate, left_bytes, since_s: (tasks,) bytes/s since then, and what was left then.
        fair: (tasks,) bytes/s that are being worked out, negative until they are.
        free, rising: (links,) bytes/s not given away, and transfers that can still have more.
        load: (links,) sum of the shares of these.
        seen_link, seen_task: (links,) and (tasks,) the last round that each was looked at.
        found_links, found_tasks: (links,) and (tasks,) those connected, first found first.
        same_instant: transfers that end within this fraction of the time end together.
    """

    link_start: Ints
    link: Ints
    bytes_per_s: Floats
    share: Floats
    task: Ints
    first: Ints
    movers: Ints
    moving: Ints
    place: Ints
    rate: Floats
    left_bytes: Floats
    since_s: Floats
    fair: Floats
    free: Floats
    rising: Ints
    load: Floats
    seen_link: Ints
    seen_task: Ints
    found_links: Ints
    found_tasks: Ints
    same_instant: float


def play_shared(tasks: Tasks, links: Links) -> None:
    """Play a graph that can finish; fills `ready_s`, `start_s` and `end_s`."""
    ends = [(0.0, 0) for _ in range(0)]  # empty, but its type is known
    changed = [0 for _ in range(0)]  # links on which a transfer started or ended at this instant
    for event in range(tasks.missing.size):
        if tasks.missing[event] == 0:
            start_event(tasks, ends, event, 0.0)
    instant = 0
    while len(ends) > 0:
        now = ends[0][0]
        while len(ends) > 0 and ends_now(tasks, links, ends[0], now):
            due_s, task = heappop(ends)
            if due_s != tasks.due_s[task]:
                continue
            if tasks.moves[task] and links.rate[task] < 0.0:
                start_transfer(links, changed, task, now)
            else:
                if tasks.moves[task]:
                    end_transfer(links, changed, task)
                end_task(tasks, ends, task, now)
        instant += 1
        for link in changed:
            if links.seen_link[link] != instant and links.movers[link] > 0:
                found_links, found_tasks = find_connected(links, link, instant)
                divide(links, found_links, found_tasks)
                change_rates(tasks, links, ends, found_tasks, now)
        changed.clear()


def ends_now(tasks: Tasks, links: Links, end: tuple[float, int], now: float) -> bool:
    """Return whether an entry of the heap is of this instant; only transfers may end early."""
    due_s, task = end
    return due_s <= now or (links.rate[task] > 0.0 and due_s <= now * (1 + links.same_instant))


def start_event(tasks: Tasks, ends: Ends, event: int, now: float) -> None:
    """Start a task that is ready, or a collective of which all members are."""
    for m in range(tasks.member_start[event], tasks.member_start[event + 1]):
        task = tasks.member[m]
        tasks.start_s[task] = now
        tasks.due_s[task] = now + tasks.duration_s[task]
        heappush(ends, (tasks.due_s[task], task))


def end_task(tasks: Tasks, ends: Ends, task: int, now: float) -> None:
    """End a task and start what was waiting for it alone."""
    tasks.end_s[task] = now
    tasks.due_s[task] = OVER
    for a in range(tasks.after_start[task], tasks.after_start[task + 1]):
        follower = tasks.after[a]
        tasks.waits[follower] -= 1
        if tasks.waits[follower] == 0:
            tasks.ready_s[follower] = now
            event = tasks.event[follower]
            tasks.missing[event] -= 1
            if tasks.missing[event] == 0:
                start_event(tasks, ends, event, now)


def start_transfer(links: Links, changed: list[int], task: int, now: float) -> None:
    """Put a transfer on its links; it has no rate until they are divided."""
    links.rate[task] = 0.0
    links.since_s[task] = now
    for crossing in range(links.link_start[task], links.link_start[task + 1]):
        link = links.link[crossing]
        place = links.first[link] + links.movers[link]
        links.moving[place] = crossing
        links.place[crossing] = place
        links.movers[link] += 1
        changed.append(link)


def end_transfer(links: Links, changed: list[int], task: int) -> None:
    """Take a transfer off its links; on each the last one takes its place."""
    for crossing in range(links.link_start[task], links.link_start[task + 1]):
        link = links.link[crossing]
        links.movers[link] -= 1
        other = links.moving[links.first[link] + links.movers[link]]
        links.moving[links.place[crossing]] = other
        links.place[other] = links.place[crossing]
        changed.append(link)


def find_connected(links: Links, link: int, instant: int) -> tuple[int, int]:
    """Find all links and transfers that share links with each other, beginning from `link`.

    Returns:
        How many of each stand in `found_links` and `found_tasks`; they are made ready to divide.
    """
    links.seen_link[link] = instant
    links.found_links[0] = link
    found_links, found_tasks, looked_at = 1, 0, 0
    while looked_at < found_links:
        visited = links.found_links[looked_at]
        looked_at += 1
        links.free[visited] = links.bytes_per_s[visited]
        links.rising[visited] = links.movers[visited]
        links.load[visited] = 0.0
        for m in range(links.first[visited], links.first[visited] + links.movers[visited]):
            links.load[visited] += links.share[links.moving[m]]
            task = links.task[links.moving[m]]
            if links.seen_task[task] == instant:
                continue
            links.seen_task[task] = instant
            links.fair[task] = -1.0
            links.found_tasks[found_tasks] = task
            found_tasks += 1
            for crossing in range(links.link_start[task], links.link_start[task + 1]):
                other = links.link[crossing]
                if links.seen_link[other] != instant:
                    links.seen_link[other] = instant
                    links.found_links[found_links] = other
                    found_links += 1
    return found_links, found_tasks


def divide(links: Links, found_links: int, found_tasks: int) -> None:
    """Work out the max-min `fair` rates of connected transfers: the fullest link first.

    The share that a link can give to each of its rising transfers never falls while others are
    fixed, so an entry of the heap that is out of date stands too early, and is put back.
    """
    shares = [(0.0, 0) for _ in range(0)]
    for f in range(found_links):
        link = links.found_links[f]
        shares.append((links.free[link] / links.load[link], link))
    heapify(shares)
    while found_tasks > 0:
        share, link = heappop(shares)
        if links.rising[link] == 0:
            continue
        if share != links.free[link] / links.load[link]:
            heappush(shares, (links.free[link] / links.load[link], link))
            continue
        for m in range(links.first[link], links.first[link] + links.movers[link]):
            task = links.task[links.moving[m]]
            if links.fair[task] < 0.0:
                links.fair[task] = share
                found_tasks -= 1
                for crossing in range(links.link_start[task], links.link_start[task + 1]):
                    links.free[links.link[crossing]] -= share * links.share[crossing]
                    links.load[links.link[crossing]] -= links.share[crossing]
                    links.rising[links.link[crossing]] -= 1


def change_rates(tasks: Tasks, links: Links, ends: Ends, found_tasks: int, now: float) -> None:
    """Let connected transfers move at their new rates, and put those that end first in the heap."""
    earliest = np.inf
    for f in range(found_tasks):
        task = links.found_tasks[f]
        if links.fair[task] != links.rate[task]:
            moved_bytes = links.rate[task] * (now - links.since_s[task])
            links.left_bytes[task] = max(0.0, links.left_bytes[task] - moved_bytes)
            links.since_s[task] = now
            links.rate[task] = links.fair[task]
            tasks.due_s[task] = now + links.left_bytes[task] / links.rate[task]
        earliest = min(earliest, tasks.due_s[task])
    for f in range(found_tasks):
        task = links.found_tasks[f]
        if tasks.due_s[task] <= earliest * (1 + links.same_instant):
            heappush(ends, (tasks.due_s[task], task))


HELPERS = (
    ends_now,
    start_event,
    end_task,
    start_transfer,
    end_transfer,
    find_connected,
    divide,
    change_rates,
)
"""What `play_shared` calls; compiled into it."""
