"""The inner loops of fair sharing: plain Python that Numba compiles.

Nothing here imports Numba until `compiled` is called, and each loop runs as it stands, which is
the oracle of what the compiler makes of it. Machine code is kept on disk as that of the array
engine is: in `__pycache__` beside this file, the user's cache folder, or NUMBA_CACHE_DIR.
"""

from collections.abc import Callable
from functools import cache
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints

SAME = 1e-12
"""Relative difference that is rounding: ends this close are one, and so are equal loads."""

NARROWER = 0.5
"""By which a window shrinks whose flows would leave links idle for too long."""

WINDOWS = 6
"""Windows that are tried before flows end one by one."""


class Crossings(NamedTuple):
    """Flows on links, those of one component in adjacent rows, and how far each is.

    Attributes:
        flow_first, link_first: (components + 1,) first flow and link of each component.
        link_start, link: CSR; links that each flow crosses.
        flow_start, flow: CSR; flows that cross each link. The first `movers` still move, and some
            that are over may stand between them.
        weight: (flows,) flows that a row counts for.
        bytes_per_s: (links,) capacity.
        left_bytes: (flows,) of one flow of the row.
        rate: (flows,) bytes/s of one flow of the row, negative while it is being worked out.
        due_s: (flows,) end at the rate of now.
        end_s: (flows,) end, negative until then.
        alive: (flows,) those that move, at the front of their component's part.
        near: (flows,) those that are due soon, in their component's part; room for the loops.
        movers: (links,) entries of `flow` that are looked at.
        rising, rising_weight: (links,) rows, and flows in them, whose rates still rise.
        free: (links,) bytes/s not given away.
        lost_bytes: (links,) that the link did not carry while its flows waited for others to end.
        losing_bytes: (links,) that it would not carry up to an end that is looked at.
    """

    flow_first: Ints
    link_first: Ints
    link_start: Ints
    link: Ints
    flow_start: Ints
    flow: Ints
    weight: Floats
    bytes_per_s: Floats
    left_bytes: Floats
    rate: Floats
    due_s: Floats
    end_s: Floats
    alive: Ints
    near: Ints
    movers: Ints
    rising: Ints
    rising_weight: Floats
    free: Floats
    lost_bytes: Floats
    losing_bytes: Floats


class Loops(NamedTuple):
    """The loops of fair sharing, as they stand or compiled."""

    label_components: Callable[..., Ints]
    divide_all: Callable[..., None]
    play_some: Callable[..., int]


def label_components(link_start: Ints, link: Ints, links: int) -> Ints:
    """Return (links,) a link of each component, the same for all that flows connect."""
    above = np.arange(links)
    for flow in range(link_start.size - 1):
        one = -1
        for crossing in range(link_start[flow], link_start[flow + 1]):
            other = link[crossing]
            while above[other] != other:
                above[other] = above[above[other]]
                other = above[other]
            if one >= 0 and other != one:
                above[max(one, other)] = min(one, other)
            one = other if one < 0 else min(one, other)
    for link_number in range(links):  # links above have smaller numbers, and are done
        above[link_number] = above[above[link_number]]
    return above


def divide_all(net: Crossings) -> None:
    """Fill `rate` of all flows, none of which has ended."""
    for component in range(net.flow_first.size - 1):
        divide(net, component, net.flow_first[component + 1])


def play_some(net: Crossings, batch: float, first: int, last: int) -> int:
    """Fill `end_s` of components [first, last); return how often links of one were divided."""
    allocations = 0
    for component in range(first, last):
        allocations += play(net, component, batch)
    return allocations


def play(net: Crossings, component: int, batch: float) -> int:
    """Run the flows of one component to their ends; return how often its links were divided."""
    first, last = net.flow_first[component], net.flow_first[component + 1]
    now, allocations = 0.0, 0
    while last > first:
        divide(net, component, last)
        allocations += 1
        until = end_of_batch(net, first, last, now, batch)
        moving = first
        for a in range(first, last):
            flow = net.alive[a]
            if net.due_s[flow] > until:
                moved_bytes = net.rate[flow] * (until - now)
                net.left_bytes[flow] = max(0.0, net.left_bytes[flow] - moved_bytes)
                net.alive[moving] = flow
                moving += 1
                continue
            net.end_s[flow] = until
            lose(net, flow, until, net.lost_bytes)
        now, last = until, moving
    return allocations


def end_of_batch(net: Crossings, first: int, last: int, now: float, batch: float) -> float:
    """Return the time at which the next flows end together: the end of the last of them.

    They are those of the widest window that leaves no link idle for more than its part of the time;
    windows are halved until that is so. Fills `due_s`.
    """
    earliest = np.inf
    for a in range(first, last):
        flow = net.alive[a]
        net.due_s[flow] = now + net.left_bytes[flow] / net.rate[flow]
        earliest = min(earliest, net.due_s[flow])
    window = max(batch, SAME)
    nearest = first  # components do not share their room
    for a in range(first, last):
        if net.due_s[net.alive[a]] <= earliest * (1 + window):
            net.near[nearest] = net.alive[a]
            nearest += 1
    for _ in range(WINDOWS):
        until = latest_within(net, first, nearest, earliest * (1 + window))
        if window <= SAME or bearable(net, first, nearest, until, batch):
            return until
        window *= NARROWER
    return latest_within(net, first, nearest, earliest * (1 + SAME))


def latest_within(net: Crossings, first: int, nearest: int, limit_s: float) -> float:
    """Return the latest end up to `limit_s` of the near flows [first, nearest)."""
    latest = 0.0
    for n in range(first, nearest):
        if net.due_s[net.near[n]] <= limit_s:
            latest = max(latest, net.due_s[net.near[n]])
    return latest


def bearable(net: Crossings, first: int, nearest: int, until: float, batch: float) -> bool:
    """Return whether no link has lost more than its part of `until` if the next end is then."""
    part = batch / (1 + batch) * until
    for n in range(first, nearest):
        lose(net, net.near[n], until, net.losing_bytes)
    fits = True
    for n in range(first, nearest):
        flow = net.near[n]
        for crossing in range(net.link_start[flow], net.link_start[flow + 1]):
            link = net.link[crossing]
            lost_bytes = net.lost_bytes[link] + net.losing_bytes[link]
            fits = fits and lost_bytes <= part * net.bytes_per_s[link]
            net.losing_bytes[link] = 0.0
    return fits


def lose(net: Crossings, flow: int, until: float, lost_bytes: Floats) -> None:
    """Add what the links of a flow do not carry if it ends at `until`, after it is due."""
    bytes_of_row = net.weight[flow] * net.rate[flow] * (until - net.due_s[flow])
    if bytes_of_row > 0.0:
        for crossing in range(net.link_start[flow], net.link_start[flow + 1]):
            lost_bytes[net.link[crossing]] += bytes_of_row


def divide(net: Crossings, component: int, last: int) -> None:
    """Work out the max-min rates of the flows alive: the fullest link first.

    The share that a link can give to each of its rising flows never falls while others are fixed,
    so an entry of the heap that is out of date stands too early, and is put back.
    """
    shares = [(0.0, 0) for _ in range(0)]  # empty, but its type is known
    open_flows = last - net.flow_first[component]
    for a in range(net.flow_first[component], last):
        net.rate[net.alive[a]] = -1.0
    for link in range(net.link_first[component], net.link_first[component + 1]):
        count_movers(net, link)
        if net.rising[link] > 0:
            shares.append((net.free[link] / net.rising_weight[link], link))
    heapify(shares)
    level = 0.0
    while open_flows > 0:
        share, link = heappop(shares)
        if net.rising[link] == 0:
            continue
        now = net.free[link] / net.rising_weight[link]
        if now > share:
            heappush(shares, (now, link))
            continue
        level = max(level, share)  # shares fall by rounding only
        for m in range(net.flow_start[link], net.flow_start[link] + net.movers[link]):
            flow = net.flow[m]
            if net.rate[flow] < 0.0:
                net.rate[flow] = level
                open_flows -= 1
                taken = level * net.weight[flow]
                for crossing in range(net.link_start[flow], net.link_start[flow + 1]):
                    other = net.link[crossing]
                    net.free[other] -= taken
                    net.rising[other] -= 1
                    net.rising_weight[other] -= net.weight[flow]


def count_movers(net: Crossings, link: int) -> None:
    """Drop flows that are over from a link, and let all others rise."""
    first = net.flow_start[link]
    movers, weight = 0, 0.0
    for m in range(first, first + net.movers[link]):
        flow = net.flow[m]
        if net.end_s[flow] < 0.0:
            net.flow[first + movers] = flow
            movers += 1
            weight += net.weight[flow]
    net.movers[link] = net.rising[link] = movers
    net.rising_weight[link] = weight
    net.free[link] = net.bytes_per_s[link]


HELPERS = (count_movers, divide, lose, latest_within, bearable, end_of_batch, play)
"""What the loops call; compiled into them."""

PLAIN = Loops(label_components, divide_all, play_some)
"""The loops as they stand, run by the interpreter."""


PATIENCE = 200_000
"""Crossings looked at by interpreted loops in about the time that loading the compiler takes."""

_interpreted = 0


def loops_for(crossings: int) -> Loops:
    """Return the loops to look at so many crossings with; both kinds give the same numbers.

    Compiled once that is worth their loading time in this process, as they stand before that.
    """
    global _interpreted  # noqa: PLW0603 - how long a process has waited is a fact of it
    _interpreted += crossings
    if compiled.cache_info().currsize or _interpreted > PATIENCE:
        return compiled()
    return PLAIN


@cache
def compiled() -> Loops:
    """Return the loops compiled; the first call of each compiles it or reads it from disk."""
    import numba  # noqa: PLC0415 - half a second that a start of the command line does not pay

    for helper in HELPERS:
        numba.extending.register_jitable(helper)

    def jit(loop: Callable[..., Any], keep: bool = True) -> Any:
        return numba.njit(cache=keep, nogil=True)(loop)

    try:
        return Loops(*map(jit, PLAIN))
    except RuntimeError:  # no folder can be written: every process compiles for itself
        return Loops(*(jit(loop, keep=False) for loop in PLAIN))
