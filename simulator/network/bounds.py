"""The time that no collective beats: bytes that must cross a cut, over what the cut can carry.

Cuts are around each GPU (its NVLink, and its NICs where ranks are on several nodes), around each
node (all its NICs) and around the nodes under each set of leaves (all uplinks). Of `p` ranks, `n`
inside a cut, at least so much of the size crosses it, however clever the algorithm:

                    out                 in
    all_gather      n / p               (p - n) / p         each outside lacks the parts of inside
    reduce_scatter  (p - n) / p         n / p               the same backwards
    all_reduce      1                   1                   the sum needs both sides
    all_to_all      n (p - n) / p       n (p - n) / p
    broadcast       1 if the root is in 1 if it is not
    send_recv       messages that cross

Where no switch reduces, an element of an all-reduce also needs `2 (p - 1)` messages among `p` ranks
(and `2 (N - 1)` among `N` nodes), one for each partial sum and one for each copy: on average
`2 (p - 1) / p` of the buffer leaves each. A message of send_recv goes by the NICs of one GPU: it is
not spread over those of its node, here or in the libraries we know.
"""

from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.network.links import Network
from simulator.network.placement import Group


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Parts of a cluster, none in two of them.

    Attributes:
        part: (ranks,) the part each rank is in.
        out_bytes_per_s, in_bytes_per_s: (parts,) what can leave and enter each.
    """

    part: Ints
    out_bytes_per_s: Floats
    in_bytes_per_s: Floats


def bound_s_per_byte(network: Network, group: Group, kind: str, in_network: bool = False) -> float:
    """Return seconds for each byte of the size that bytes need at least, latency apart.

    Args:
        in_network: switches reduce.
    """
    if len(group) == 1:
        return 0.0
    bounds = [_crossing_s(group, kind, cut) for cut in _cuts(network, group, kind)]
    if kind == "all_reduce" and not in_network:
        bounds += [_messages_s(cut) for cut in _cuts(network, group, kind)]
    return max(bounds)


def _crossing_s(group: Group, kind: str, cut: Cut) -> float:
    """Return seconds of the slowest part, for one byte of the size."""
    p, parts = len(group), len(cut.out_bytes_per_s)
    n = np.bincount(cut.part, minlength=parts).astype(np.float64)
    root = np.arange(parts) == cut.part[0]
    onward = np.roll(cut.part, -1)
    leaves = cut.part != onward
    out, into = {
        "all_gather": (n / p, (p - n) / p),
        "reduce_scatter": ((p - n) / p, n / p),
        "all_reduce": (np.ones(parts), np.ones(parts)),
        "all_to_all": (n * (p - n) / p, n * (p - n) / p),
        "broadcast": (root * 1.0, 1.0 - root),
        "send_recv": tuple(
            np.bincount(side[leaves], minlength=parts).astype(np.float64)
            for side in (cut.part, onward)
        ),
    }[kind]
    crosses = (n > 0) & (n < p)
    rates = cut.out_bytes_per_s, cut.in_bytes_per_s
    return max(
        float(np.max(share[crosses] / rate[crosses], initial=0.0))
        for share, rate in zip((out, into), rates, strict=True)
    )


def _messages_s(cut: Cut) -> float:
    """Return seconds of the `2 (parts - 1)` messages an all-reduce needs among parts."""
    inside = np.unique(cut.part)
    rates = cut.out_bytes_per_s, cut.in_bytes_per_s
    return max(2 * (inside.size - 1) / float(rate[inside].sum()) for rate in rates)


def _cuts(network: Network, group: Group, kind: str) -> list[Cut]:
    gpus = np.array(group.gpus)
    ranks = np.arange(len(gpus))
    nvlink = network.bytes_per_s[gpus], network.bytes_per_s[network.gpus + gpus]
    if len(group.nodes) == 1:
        return [Cut(ranks, *nvlink)]
    nics = _port_rates(network, network.endpoints_of(gpus))
    every = [Cut(ranks, *(a + b for a, b in zip(nvlink, nics, strict=True)))]
    place = np.searchsorted(group.nodes, gpus // group.gpus_per_node)
    ports = group.nodes[:, None] * network.cluster.node.ports
    ports = ports + np.arange(network.cluster.node.ports)
    every.append(Cut(place, *_port_rates(network, ports)))
    if kind == "send_recv":
        every.append(_single_messages(network, group, every[-1]))
    leaves = _leaf_cut(network, group, place, ports)
    return every if leaves is None else [*every, leaves]


def _single_messages(network: Network, group: Group, nodes: Cut) -> Cut:
    """Return a cut around each rank whose message leaves its node, of one GPU's NICs at most."""
    onward = np.roll(nodes.part, -1)
    topology, gpu_ports = network.topology, network.own_ports.shape[1]
    rates = []
    for part, link in ((nodes.part, topology.tx), (onward, topology.rx)):
        first = group.nodes[part][:, None] * network.cluster.node.ports
        every = network.fabric_bytes_per_s[link(first + np.arange(network.cluster.node.ports))]
        rates.append(np.sort(every, axis=1)[:, -gpu_ports:].sum(axis=1))
    apart = nodes.part != onward
    out = np.where(apart, rates[0], np.inf)
    into = np.roll(np.where(apart, rates[1], np.inf), 1)
    return Cut(np.arange(len(group)), out, into)


def _leaf_cut(network: Network, group: Group, place: Ints, ports: Ints) -> Cut | None:
    """Return the cut around nodes under the same leaves; None where leaves are not shared so."""
    topology = network.topology
    leaf = topology.leaf_of[ports]
    sets, of = np.unique(leaf, axis=0, return_inverse=True)
    owners = [np.unique(leaf_set) for leaf_set in sets]
    if len(sets) == 1 or np.concatenate(owners).size != np.unique(leaf).size:
        return None
    count, rate = topology.clos.leaf.count, network.fabric_bytes_per_s
    rates = np.zeros((2, len(sets)))
    for number, leaves in enumerate(owners):
        up = topology.uplink(leaves[:, None], np.arange(count)).ravel()
        rates[0, number] = rate[up].sum()
        rates[1, number] = rate[up + topology.clos.leaf_links].sum()
    return Cut(of.ravel()[place], rates[0], rates[1])


def _port_rates(network: Network, endpoints: Ints) -> tuple[Floats, Floats]:
    """Return (rows,) bytes/s out of and into all NIC ports of each row of endpoints."""
    topology, rate = network.topology, network.fabric_bytes_per_s
    out, into = rate[topology.tx(endpoints)], rate[topology.rx(endpoints)]
    return out.sum(axis=1), into.sum(axis=1)
