"""Which of several equal paths a flow takes between two NIC ports.

    static      by destination: its place under its leaf, modulo the choices. Ports of one leaf are
                reached by different uplinks, so that what all send to all loads links alike
                (d-mod-k, E. Zahavi, "Fat-Trees Routing and Node Ordering Providing Contention Free
                Traffic for MPI Global Collectives", IPDPS workshops 2011).
    ecmp        by a hash of source port, target port and flow number: flows collide by chance.
    adaptive    packet by packet over all: links side by side act as one (`Topology.bundle`).

Paths over a link that is down are not taken: flows that would take one are dealt out by hash over
the choices that are whole, and a bundle has the less capacity.
"""

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Ints, Mask
from simulator.network.links import Network

Routes = npt.NDArray[np.int32]

CHOICES_AT_ONCE = 1 << 20
"""Choices of leaves that are looked at together, so that tables stay below 50 MB."""


def port_paths(
    network: Network, source: npt.ArrayLike, target: npt.ArrayLike, flow: npt.ArrayLike = 0
) -> Routes:
    """Return (flows, hops) links of the network from port to port, -1 after the last.

    The ports must reach each other (`reachable`).

    Args:
        source, target: (flows,) endpoints of the topology.
        flow: number that tells flows between the same ports apart.
    """
    source, target, flow = np.broadcast_arrays(np.atleast_1d(source), target, flow)
    topology = network.topology
    if network.routing == "adaptive":
        return network.fabric_link(topology.routes(source, target))
    choices = topology.choices(source, target)
    if network.routing == "ecmp":
        drawn = _hash(network.seed, source, target, flow)
    else:
        drawn = _place(network, target, topology.switches_passed(source, target))
    choice = (drawn % choices.astype(np.uint64)).astype(np.int64)
    if network.is_cut:
        drawn = _hash(network.seed, source, target, flow)
        choice = _living_choice(network, source, target, choice, drawn)
    return network.fabric_link(topology.routes(source, target, choice))


def reachable(network: Network, source: Ints, target: Ints) -> Mask:
    """Return (flows,) whether bytes can go from port to port: a path without a dead link."""
    topology, rate = network.topology, network.fabric_bytes_per_s
    ends = (rate[topology.tx(source)] > 0) & (rate[topology.rx(target)] > 0)
    alive: Mask = np.asarray(topology.connected(source, target) & ends, dtype=np.bool_)
    if not network.is_cut:
        return alive
    rows = np.flatnonzero(alive & network.cut_planes[topology.plane_of[source]])
    if not rows.size:
        return alive
    row, living = _living(network, source[rows], target[rows])
    alive[rows] = np.asarray(living.any(axis=1))[row]
    return alive


def _place(network: Network, target: Ints, passed: Ints) -> npt.NDArray[np.uint64]:
    """Return the static choice of each destination, before the modulo.

    Within a pod its place under its leaf. From another pod also its leaf's place in the pod
    decides, so that the cores above one uplink are taken in turn.
    """
    clos, leaf = network.topology.clos, network.topology.leaf_of[target]
    place, uplinks = network.place_under_leaf[target], max(1, clos.leaf.count)
    core = leaf % max(1, clos.leaves) % max(1, clos.pod_leaves) % max(1, clos.pod.count)
    far = place % uplinks + uplinks * core
    return np.where(passed == 5, far, place).astype(np.uint64)


def _hash(seed: int, source: Ints, target: Ints, flow: Ints) -> npt.NDArray[np.uint64]:
    """Return 64 mixed bits of each flow (the finalizer of splitmix64, Steele et al. 2014)."""
    bits = np.full(source.shape, seed, dtype=np.uint64)
    for part in (source, target, flow):
        bits = bits + np.uint64(0x9E3779B97F4A7C15) + part.astype(np.uint64)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits = bits ^ (bits >> np.uint64(31))
    return bits


def _living_choice(
    network: Network, source: Ints, target: Ints, choice: Ints, drawn: npt.NDArray[np.uint64]
) -> Ints:
    """Return choices without a dead link: other ones than `choice` where that has one."""
    rows = np.flatnonzero(network.cut_planes[network.topology.plane_of[source]])
    route = network.topology.routes(source[rows], target[rows], choice[rows])
    dead = ((network.fabric_bytes_per_s[route] == 0) & (route >= 0)).any(axis=1)
    rows = rows[dead]
    if not rows.size:
        return choice
    choice = choice.copy()
    row, living = _living(network, source[rows], target[rows])
    count = living.sum(axis=1)[row]
    nth = (drawn[rows] % count.astype(np.uint64)).astype(np.int64) + 1
    choice[rows] = (living.cumsum(axis=1)[row] < nth[:, None]).sum(axis=1)
    return choice


def _living(network: Network, source: Ints, target: Ints) -> tuple[Ints, Mask]:
    """Return (flows,) the row of each flow, and (rows, choices) which choices are whole.

    A path climbs as its source's leaf and its choice say, and descends as its target's: each half
    is looked at once for a leaf, not for a pair of leaves; leaves that lack the same are one row.
    The ports' own cables are not asked: between leaves all their ports have the same choices.
    """
    climb, up = _living_half(network, source, target, climbs=True)
    descent, down = _living_half(network, source, target, climbs=False)
    rows, row = np.unique(climb * len(down) + descent, return_inverse=True)
    return np.asarray(row), up[rows // len(down)] & down[rows % len(down)]


def _living_half(network: Network, source: Ints, target: Ints, climbs: bool) -> tuple[Ints, Mask]:
    """Return (flows,) the row of each flow, and (rows, choices) whose half is whole."""
    topology, rate = network.topology, network.fabric_bytes_per_s
    passed = topology.switches_passed(source, target)
    key = topology.leaf_of[source if climbs else target] * (topology.hops_max + 1) + passed
    _, first, leaf = np.unique(key, return_index=True, return_inverse=True)
    choices = topology.choices(source[first], target[first])
    living = np.zeros((first.size, int(choices.max(initial=1))), dtype=np.bool_)
    part = max(1, CHOICES_AT_ONCE // living.shape[1])
    for start in range(0, first.size, part):
        row, choice = np.nonzero(np.arange(living.shape[1]) < choices[start : start + part, None])
        flow = first[start : start + part][row]
        route = topology.routes(source[flow], target[flow], choice)
        hop, top = np.arange(route.shape[1]), passed[flow, None] // 2
        half = (hop > 0) & (hop <= top) if climbs else (hop > top) & (hop < passed[flow, None])
        living[start + row, choice] = ((rate[route] > 0) | ~half).all(axis=1)
    bits = np.packbits(living, axis=1)
    as_one = bits.view(np.dtype((np.void, bits.shape[1]))).ravel()
    _, kept, row_of_leaf = np.unique(as_one, return_index=True, return_inverse=True)
    return np.asarray(row_of_leaf[leaf]), living[kept]
