"""How long flows take that share links: max-min fair at every moment, divided anew at each end.

Max-min fair: no flow could be faster unless one that is no faster became slower. A division of the
links is fair if and only if each flow has a *bottleneck*: a full link on which no other is faster
(Bertsekas and Gallager, Data Networks, 2nd edition, section 6.5.2). A row of weight `w` counts as
`w` flows.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.errors import InfeasibleError, InputError
from simulator.network.fair_loops import SAME, Crossings, Loops, loops_for
from simulator.network.flows import LEAST, MOST, Flows, check_links, link_bytes, parts

ROWS_OF_A_THREAD = 2000
"""Flows that are worth a thread of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class FlowTimes:
    """When flows end that all started at 0.

    Attributes:
        end_s: (flows,) end of each row.
        allocations: how often the links of a component were divided.
        closed_form: no division was needed.
    """

    end_s: Floats
    allocations: int
    closed_form: bool

    @property
    def last_s(self) -> float:
        """End of the last flow; 0 without any."""
        return float(self.end_s.max(initial=0.0))


def fair_rates(flows: Flows, bytes_per_s: npt.ArrayLike) -> Floats:
    """Return the max-min fair rates while all rows move, those of 0 bytes too.

    Args:
        bytes_per_s: (links,) capacities.

    Returns:
        (flows,) bytes/s of one of the flows a row stands for; infinite for one without links.

    Raises:
        InputError: a route leaves the network, or a capacity is no quantity.
    """
    capacity = _capacities(bytes_per_s)
    check_links(flows, len(capacity))
    rate = np.full(len(flows), np.inf)
    rows = np.flatnonzero((flows.route >= 0).any(axis=1))
    loops = loops_for(flows.route.size)
    net, rows = crossings(flows, rows, capacity, loops)
    loops.divide_all(net)
    rate[rows] = net.rate
    return rate


def finish(flows: Flows, bytes_per_s: npt.ArrayLike, batch: float = 0.01) -> FlowTimes:
    """Start all flows at 0 and run them to their ends.

    What is in balance ends by a closed form (`balanced_ends`). What is not is played, each
    connected component of flows and links on a clock of its own: divide the links, find the first
    end, and divide anew. With `batch = 0` that is exact, to rounding.

    Otherwise flows that are due within `batch` of the first end, as a part of the time since the
    start, end together with the last of them: they slow down to it, and what they leave idle stays
    idle until then. A batch is as wide as lets no link lose more than `batch / (1 + batch)` of the
    time since the start in this way. So times are rounded up: all bytes cross, no link is ever
    overloaded, and the ends are exact for messages that are a little larger, by no more than
    `batch` of the time on any link. A link that is otherwise full to its last end is late by at
    most `batch`. Larger messages do not delay all: a flow may end sooner than exactly if one that
    it meets is held up elsewhere, and one in the middle may be off by more than `batch`.

    Args:
        bytes_per_s: (links,) capacities.

    Raises:
        InputError: a route leaves the network, a capacity is no quantity, or `batch` is not in
            [0, 1].
        InfeasibleError: bytes cross a link of 0 bytes/s.
    """
    if not 0.0 <= batch <= 1.0:
        raise InputError(f"finish: batch must lie in 0 to 1, got {batch}")
    capacity = _capacities(bytes_per_s)
    busy_s = _busy_s(flows, capacity)
    end_s, settled = balanced_ends(flows, busy_s)
    if settled.all():
        return FlowTimes(end_s, 0, True)
    rows = np.flatnonzero(end_s > 0)
    divisions = min(len(rows), 1 / batch) if batch else len(rows)
    loops = loops_for(int(flows.route.size * divisions))
    net, rows = crossings(flows, rows, capacity, loops, settled)
    allocations = _play(net, float(batch), loops)
    end_s[rows] = net.end_s
    return FlowTimes(end_s, allocations, False)


def _play(net: Crossings, batch: float, loops: Loops) -> int:
    """Play all components, large ones on all cores; return how often their links were divided.

    Components have no flow and no link in common, so it does not matter which is played when.
    """
    components, rows = len(net.flow_first) - 1, len(net.end_s)
    parts = min(components, rows // ROWS_OF_A_THREAD)
    if parts < 2:
        return loops.play_some(net, batch, 0, components)
    first = np.searchsorted(net.flow_first, np.linspace(0, rows, parts + 1)).tolist()
    with ThreadPoolExecutor(min(parts, os.cpu_count() or 1)) as threads:
        played = threads.map(partial(loops.play_some, net, batch), first[:-1], first[1:])
        return sum(played)


def balanced_ends(flows: Flows, busy_s: Floats) -> tuple[Floats, Mask]:
    """Return when each flow ends if links in balance decide, and where that is what happens.

    A flow cannot end before its busiest link is done. Let each have the constant rate with which
    it ends just then, `moved_bytes / end_s`. No link is overloaded by that. The rates are max-min
    fair until all is over if each flow has a bottleneck: a link of which all flows end as late as
    it is busy, so that it is full until then, and none moves more bytes, so that none is faster.

    Args:
        busy_s: (links,) bytes of each link over its capacity.

    Returns:
        end_s: (flows,)
        settled: (flows,) the flow has such a bottleneck. Its end holds if that is so for all flows
            that it is connected with by links.
    """
    busy_s = np.concatenate(([0.0], busy_s))  # the first is of no link
    end_s = np.zeros(len(flows))
    fit = np.ones(len(busy_s), np.bool_)  # links that no flow of theirs outlasts
    for rows, hops in parts(flows):
        part_end_s = end_s[rows]
        hop_s = [busy_s[hop] for hop in hops]
        for seconds in hop_s:
            np.maximum(part_end_s, seconds, out=part_end_s)
        part_end_s *= flows.moved_bytes[rows] > 0
        sooner_s = part_end_s * (1 - SAME)
        for hop, seconds in zip(hops, hop_s, strict=True):
            fit[hop[seconds < sooner_s]] = False
    fit[0] = False
    most_bytes = _most_bytes(flows, len(busy_s))
    settled = end_s == 0
    for rows, hops in parts(flows):
        enough_bytes = flows.moved_bytes[rows] * (1 + SAME)
        for hop in hops:
            settled[rows] |= (
                fit[hop] if most_bytes is None else (fit[hop] & (enough_bytes >= most_bytes[hop]))
            )
    return end_s, settled


def _most_bytes(flows: Flows, links: int) -> Floats | None:
    """Return the bytes of the largest flow on each link, first on none; None if all are alike."""
    most = flows.moved_bytes.max(initial=0.0)
    if ((flows.moved_bytes == most) | (flows.moved_bytes == 0)).all():
        return None
    most_bytes = np.zeros(links)
    for rows, hops in parts(flows):
        for hop in hops:
            np.maximum.at(most_bytes, hop, flows.moved_bytes[rows])
    return most_bytes


def crossings(
    flows: Flows, rows: Ints, bytes_per_s: Floats, loops: Loops, settled: Mask | None = None
) -> tuple[Crossings, Ints]:
    """Return what the loops work on: flows and links, sorted by component.

    Args:
        rows: flows that move over links.
        settled: (flows,) components of which all flows are settled are left out.

    Returns:
        The crossings, whose flow `i` is row `rows[i]` of those returned.
    """
    crosses = flows.route[rows] >= 0
    start, link = _csr(crosses.sum(axis=1)), flows.route[rows][crosses].astype(np.int64)
    label = loops.label_components(start, link, len(bytes_per_s))
    component = label[link[start[:-1]]]
    if settled is not None:
        played = np.zeros(len(bytes_per_s), np.bool_)
        played[component[~settled[rows]]] = True
        rows, component = rows[played[component]], component[played[component]]
    order = np.argsort(component, kind="stable")
    rows, component = rows[order], component[order]

    crosses = flows.route[rows] >= 0
    hops = crosses.sum(axis=1)
    start, link = _csr(hops), flows.route[rows][crosses].astype(np.int64)
    used = np.flatnonzero(np.bincount(link, minlength=len(bytes_per_s)))
    used = used[np.argsort(label[used], kind="stable")]
    number = np.empty(len(bytes_per_s), np.int64)
    number[used] = np.arange(len(used))
    link = number[link]
    movers = np.bincount(link, minlength=len(used))
    by_link = np.argsort(link, kind="stable")
    components = np.unique(component)
    ints, floats = np.zeros((2, len(used)), np.int64), np.zeros((4, len(used)))
    net = Crossings(
        flow_first=np.append(np.searchsorted(component, components), len(rows)),
        link_first=np.append(np.searchsorted(label[used], components), len(used)),
        link_start=start,
        link=link,
        flow_start=_csr(movers),
        flow=np.repeat(np.arange(len(rows)), hops)[by_link],
        weight=flows.weight[rows],
        bytes_per_s=bytes_per_s[used],
        left_bytes=flows.moved_bytes[rows],
        rate=np.zeros(len(rows)),
        due_s=np.zeros(len(rows)),
        end_s=np.full(len(rows), -1.0),
        alive=np.arange(len(rows)),
        near=np.zeros(len(rows), np.int64),
        movers=movers,
        rising=ints[0],
        rising_weight=floats[0],
        free=floats[1],
        lost_bytes=floats[2],
        losing_bytes=floats[3],
    )
    return net, rows


def _csr(counts: Ints) -> Ints:
    return np.concatenate(([0], np.cumsum(counts)))


def _capacities(bytes_per_s: npt.ArrayLike) -> Floats:
    """Return capacities that can be divided."""
    capacity = np.ascontiguousarray(bytes_per_s, dtype=np.float64)
    if capacity.ndim != 1:
        raise InputError(f"links: bytes/s must have shape (links,), got {capacity.shape}")
    wrong = ~((capacity >= LEAST) & (capacity <= MOST)) & (capacity != 0)
    for link in np.flatnonzero(wrong)[:1]:
        raise InputError(
            f"link {link}: bytes/s must be 0 or lie in {LEAST:g} to {MOST:g}, got {capacity[link]}"
        )
    return capacity


def _busy_s(flows: Flows, bytes_per_s: Floats) -> Floats:
    """Return (links,) how long each link is busy at the least."""
    carried_bytes = link_bytes(flows, len(bytes_per_s))
    for link in np.flatnonzero((bytes_per_s == 0) & (carried_bytes > 0))[:1]:
        raise InfeasibleError(
            f"link {link}: it has 0 bytes/s, so the {carried_bytes[link]:g} bytes that must cross "
            f"it never do"
        )
    busy_s = np.zeros(len(bytes_per_s))
    return np.divide(carried_bytes, bytes_per_s, out=busy_s, where=bytes_per_s > 0)
