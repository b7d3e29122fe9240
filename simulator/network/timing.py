"""How long the flows of plans take, of several groups at once; kept, for other sizes too."""

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.network.collectives.plan import Plan
from simulator.network.fair import finish
from simulator.network.fair_loops import loops_for
from simulator.network.flows import Flows, link_bytes
from simulator.network.kept import Kept
from simulator.network.links import Network

PLAYED = Kept()
"""Seconds of the flows of plans, and the bytes they bring to links."""


def wire_s(
    network: Network, plans: tuple[Plan, ...], nvlink_efficiency: float, nic_efficiency: float
) -> Floats:
    """Return (groups,) seconds of the flows for one byte of the size, all groups at once; kept.

    Times grow in proportion to bytes, since all flows start together.
    """
    factors = np.array([plan.factor for plan in plans])
    relative = tuple((factors / factors[0]).tolist())
    stages = tuple(plan.stages for plan in plans)
    seconds = PLAYED.get(
        (network, stages, relative, nvlink_efficiency, nic_efficiency),
        lambda: _played_s(stages, relative, network.rates(nvlink_efficiency, nic_efficiency)),
        lambda _: sum(plan.rows for plan in plans),
    )
    return np.asarray(seconds * factors[0])


def _played_s(
    stages: tuple[tuple[Flows, ...], ...], factors: tuple[float, ...], rates: Floats
) -> Floats:
    """Return (groups,) seconds until all stages are over.

    Groups that have a link in common are in step: each starts a stage when all are through with the
    one before, so that no link carries two stages at once.
    """
    end_s, start_s = np.zeros(len(stages)), np.zeros(len(stages))
    most = max(map(len, stages))
    meeting = _meeting(stages) if most > 1 else np.arange(len(stages))
    for stage in range(most):
        taking = [
            number
            for number, of_group in enumerate(stages)
            if stage < len(of_group) and len(of_group[stage])
        ]
        if taking:
            flows = [stages[number][stage] for number in taking]
            together, first = _joined(flows, [factors[number] for number in taking])
            took_s = np.maximum.reduceat(finish(together, rates).end_s, first)
            end_s[taking] = start_s[taking] + took_s
        last_s = np.zeros(len(stages))
        np.maximum.at(last_s, meeting, end_s)
        start_s = last_s[meeting]
    return end_s


def _meeting(stages: tuple[tuple[Flows, ...], ...]) -> Ints:
    """Return (groups,) a number for each group, the same for those that links connect."""
    crossed = [
        np.concatenate([crossing_bytes(flows)[0] for flows in of_group] or [np.zeros(0, np.int64)])
        for of_group in stages
    ]
    start = np.cumsum([0, *map(len, crossed)])
    link = np.concatenate(crossed)
    label = loops_for(link.size).label_components(start, link, int(link.max(initial=-1)) + 1)
    alone = -1 - np.arange(len(stages))  # groups that cross no link
    of_link = [
        label[links[0]] if links.size else number
        for links, number in zip(crossed, alone, strict=True)
    ]
    return np.unique(of_link, return_inverse=True)[1].astype(np.int64)


def crossing_bytes(flows: Flows) -> tuple[Ints, Floats]:
    """Return the links that flows cross, and the bytes of each for one byte of the size; kept."""
    return PLAYED.get(flows, lambda: _crossing_bytes(flows), lambda crossing: len(crossing[0]))


def _crossing_bytes(flows: Flows) -> tuple[Ints, Floats]:
    """Return only links that are crossed: a small group on a large network crosses few."""
    if flows.route.size > flows.route.max(initial=-1):
        crossing = link_bytes(flows, int(flows.route.max(initial=-1)) + 1)
        links = np.flatnonzero(crossing)
        return links, crossing[links]
    links, place = np.unique(flows.route, return_inverse=True)
    moved = np.broadcast_to((flows.moved_bytes * flows.weight)[:, None], flows.route.shape)
    summed = np.bincount(place.ravel(), weights=moved.ravel(), minlength=links.size)
    some = links >= 0
    return links[some].astype(np.int64), summed[some].astype(np.float64)


def _joined(flows: list[Flows], factors: list[float]) -> tuple[Flows, Ints]:
    """Return flows of several groups as one, and the first row of each."""
    if len(flows) == 1 and factors[0] == 1.0:
        return flows[0], np.zeros(1, dtype=np.int64)
    hops = max(part.route.shape[1] for part in flows)
    route = [
        np.pad(part.route, ((0, 0), (0, hops - part.route.shape[1])), constant_values=-1)
        for part in flows
    ]
    moved = [part.moved_bytes * factor for part, factor in zip(flows, factors, strict=True)]
    weight = np.concatenate([part.weight for part in flows])
    sizes = np.array([len(part) for part in flows])
    return (
        Flows.of(np.concatenate(route), np.concatenate(moved), weight),
        np.cumsum(sizes) - sizes,
    )
