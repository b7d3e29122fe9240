"""What tests know of max-min fair rates that no engine of ours does: what defines them, how linear
programs find them, and when flows end that share links, in fractions.
"""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from scipy.optimize import linprog

from simulator.network.flows import Flows

CLOSE = 1 + 1e-9


@st.composite
def networks(draw, most_transfers, most_links, capacities):
    """(transfers, links) who crosses what, and (links,) capacities."""
    links = draw(st.integers(1, most_links))
    routes = st.lists(st.integers(0, links - 1), min_size=1, unique=True)
    drawn = draw(st.lists(routes, min_size=1, max_size=most_transfers))
    crosses = np.array([[link in route for link in range(links)] for route in drawn])
    return crosses, np.array([draw(capacities) for _ in range(links)], dtype=np.float64)


def assert_max_min(crosses, bytes_per_s, rate):
    """No link carries more than it can, and each transfer has a full link on which nobody is faster
    than it: that holds for one division of the links and no other.
    """
    carried = rate @ crosses
    assert (carried <= bytes_per_s * CLOSE).all()
    full = carried * CLOSE >= bytes_per_s
    fastest = (crosses * rate[:, None]).max(axis=0)
    held = crosses & full & (rate[:, None] * CLOSE >= fastest)
    assert held.any(axis=1).all()


def lexicographic_rates(crosses, bytes_per_s):
    """Max-min as it is often defined: make the smallest rate as large as it can be, then the next.

    A linear program finds how far all open rates can rise together; another, for each of them,
    whether it could be more while the others are no less.
    """
    transfers = len(crosses)
    lowest, highest = np.zeros(transfers), np.full(transfers, np.inf)
    while np.isinf(highest).any():
        open_rates = np.flatnonzero(np.isinf(highest))
        rise = (np.arange(transfers)[:, None] == open_rates).sum(axis=1)
        level = largest(crosses, bytes_per_s, lowest, highest, common=rise)
        lowest[open_rates] = level
        for transfer in open_rates:
            alone = (np.arange(transfers) == transfer) * 1
            if largest(crosses, bytes_per_s, lowest, highest, goal=alone) < level + 1e-6:
                highest[transfer] = level
    return highest


def largest(crosses, bytes_per_s, lowest, highest, common=None, goal=None):
    """The largest rate of `goal`, or the largest that all rates in `common` can be."""
    transfers, links = crosses.shape
    # Variables: the rates, and the level that those in `common` have to reach.
    full = np.hstack([crosses.T, np.zeros((links, 1))])
    reach = np.zeros((0, transfers + 1))
    if common is not None:
        reach = np.hstack([-np.diag(common), common[:, None]])[common > 0]
    wanted = np.append(np.zeros(transfers), 1) if goal is None else np.append(goal, 0)
    solved = linprog(
        -wanted,
        A_ub=np.vstack([full, reach]),
        b_ub=np.append(bytes_per_s, np.zeros(len(reach))),
        bounds=[*zip(lowest, highest, strict=True), (0, None if goal is None else 0)],
    )
    assert solved.status == 0, solved.message
    return -solved.fun


def exact_ends(routes, moved_bytes, bytes_per_s):
    """When flows end that start together, without rounding: all rates rise until a link is full.

    Args:
        routes: the links of each flow.

    Returns:
        Fractions, for each flow; 0 for one without links or bytes.
    """
    capacity = [Fraction(float(c)) for c in bytes_per_s]
    left = {
        flow: Fraction(float(size))
        for flow, (route, size) in enumerate(zip(routes, moved_bytes, strict=True))
        if route and size > 0
    }
    end, now = [Fraction(0)] * len(routes), Fraction(0)
    while left:
        rate = exact_rates({flow: routes[flow] for flow in left}, capacity)
        step = min(left[flow] / rate[flow] for flow in left)
        now += step
        for flow in list(left):
            left[flow] -= rate[flow] * step
            if left[flow] == 0:
                end[flow] = now
                del left[flow]
    return end


def exact_rates(routes, capacity):
    """Rates that rise together until a link is full, whose flows then stay: of {flow: links}."""
    rate, rising = dict.fromkeys(routes, Fraction(0)), set(routes)
    while rising:
        room = {
            link: (capacity[link] - sum(rate[f] for f in routes if link in routes[f])) / risers
            for link in range(len(capacity))
            if (risers := sum(link in routes[f] for f in rising))
        }
        for flow in rising:
            rate[flow] += min(room.values())
        full = {link for link, left in room.items() if left == min(room.values())}
        rising = {flow for flow in rising if not full & set(routes[flow])}
    return rate


def merged(flows):
    """Return one row for all that have the same route and bytes, in the order of their first."""
    rows = {}
    for route, moved, weight in zip(
        map(tuple, flows.route.tolist()), flows.moved_bytes, flows.weight, strict=True
    ):
        rows[route, moved] = rows.get((route, moved), 0.0) + weight
    routes = np.array([route for route, _ in rows], int).reshape(len(rows), flows.route.shape[1])
    return Flows.of(routes, [moved for _, moved in rows], list(rows.values()))
