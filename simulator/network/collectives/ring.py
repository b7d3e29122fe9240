"""Rings through all ranks: as many side by side as a node has members, each over another NIC.

A ring enters a node at one member, passes the others over NVLink and leaves by the NIC of the last,
which is at the place where it enters the next node, so that rails and planes are kept. Each hop of
`channels` rings carries a `1 / channels` share: all-gather and reduce-scatter `(p - 1) / p` of the
size, all-reduce twice that, broadcast all of it on every hop but the one back to the root
(P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
JPDC 69, 2009).
"""

import numpy as np

from hwmodels.arrays import Ints
from simulator.network.collectives.plan import Plan
from simulator.network.collectives.rails import add_hops
from simulator.network.links import Network
from simulator.network.placement import Group
from simulator.network.traffic import Traffic

NAME = "ring"
MAKES = ("all_gather", "reduce_scatter", "all_reduce", "broadcast")


def plan(network: Network, group: Group, kind: str) -> Plan:
    """Return the plan of a ring collective."""
    ranks, nodes, rounds = len(group), len(group.nodes), 2 if kind == "all_reduce" else 1
    channels = group.channels if nodes > 1 else 1
    share = 1.0 if kind == "broadcast" else rounds * (ranks - 1) / ranks
    order = rings(group, channels)
    source, target = order.ravel(), np.roll(order, -1, axis=1).ravel()
    if kind == "broadcast":
        onward = target != group.gpus[0]
        source, target = source[onward], target[onward]
    traffic = Traffic(network)
    add_hops(traffic, group, source, target, share / channels)
    steps = rounds * (ranks - 1)
    fabric_steps = min(steps, rounds * nodes) if nodes > 1 else 0
    return Plan.of([traffic], steps - fabric_steps, fabric_steps, chain=True)


def rings(group: Group, channels: int) -> Ints:
    """Return (channels, ranks) the GPUs of each ring, in its order; the last sends to the first."""
    nodes, most = len(group.nodes), group.channels
    channel, place, step = np.indices((channels, nodes, most))
    count = group.counts[place]
    first = (channel + _turn(place, nodes)) % count
    last = (channel + _turn((place + 1) % nodes, nodes)) % count
    # From the entry on in the order of members, but the one to leave by changes places with the
    # last of them.
    member = (first + step) % count
    apart = first != last
    member = np.where(apart & (step == (last - first) % count), (first - 1) % count, member)
    member = np.where(apart & (step == count - 1), last, member)
    order = group.slot(place, member)[step < count]
    return np.asarray(order.reshape(channels, len(group)))


def _turn(place: Ints, nodes: int) -> Ints:
    """Return by how much a ring's entry is moved on at a node: neighbours on the ring differ."""
    last_of_odd = (place == nodes - 1) & (nodes % 2 == 1)
    return np.where(last_of_odd, 2, place % 2)
