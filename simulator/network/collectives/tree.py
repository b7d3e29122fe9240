"""Double binary trees over nodes, one pair for each rail; inside nodes over NVLink.

Each of two trees carries half of the bytes, and a node that is inner in one is a leaf in the other,
so that a node sends and receives no more than in a ring, in steps that grow with the logarithm
(P. Sanders, J. Speck, J. L. Traeff, "Two-tree algorithms for full bandwidth broadcast, reduction
and scan", Parallel Computing 35, 2009; the numbering is NCCL's). All-reduce goes up and down,
broadcast down, from the root that holds both trees. On one node the trees join GPUs.
"""

import numpy as np

from hwmodels.arrays import Ints
from simulator.network.collectives.plan import Plan
from simulator.network.collectives.rails import add_hops, held, in_node_pairs
from simulator.network.links import Network
from simulator.network.placement import Group
from simulator.network.traffic import Traffic

NAME = "tree"
MAKES = ("all_reduce", "broadcast")


def plan(network: Network, group: Group, kind: str) -> Plan:
    """Return the plan of an all-reduce or a broadcast."""
    ways = 2 if kind == "all_reduce" else 1
    nodes, traffic = len(group.nodes), Traffic(network)
    steps = ways * _levels(len(group))
    if nodes == 1:
        order = group.members if kind == "all_reduce" else np.array(group.gpus)
        _join(traffic, group, order[:, None], ways)
        return Plan.of([traffic], steps, 0)
    root = int(np.searchsorted(group.nodes, group.gpus[0] // group.gpus_per_node))
    place = np.roll(np.arange(nodes), -root) if ways == 1 else np.arange(nodes)
    _join(traffic, group, group.slot(place[:, None], np.arange(group.channels)), ways)
    _inside(traffic, group, root, ways)
    fabric_steps = min(steps, ways * _levels(nodes))
    return Plan.of([traffic], steps - fabric_steps, fabric_steps, chain=True)


def _join(traffic: Traffic, group: Group, gpu: Ints, ways: int) -> None:
    """Add the trees over units, a GPU for each channel: (units, channels)."""
    parent, child = _all_reduce_edges(len(gpu)) if ways == 2 else _broadcast_edges(len(gpu))
    half = 0.5 / gpu.shape[1]
    add_hops(traffic, group, gpu[parent].ravel(), gpu[child].ravel(), half)
    if ways == 2:
        add_hops(traffic, group, gpu[child].ravel(), gpu[parent].ravel(), half)


def _inside(traffic: Traffic, group: Group, root: int, ways: int) -> None:
    """Add what NVLink carries: channels to their holders' neighbours, and from them."""
    source, target = in_node_pairs(group)
    gpu, share = group.members, held(group)
    if ways == 2:
        traffic.nvlink(gpu[source], gpu[target], share[source] + share[target])
        return
    # On its own node the root deals the whole out to the others, who pass their parts on.
    at_root = group.place == root
    share = np.where(at_root, 1 / max(1, group.counts[root] - 1), share)
    to_root = gpu[target] == group.gpus[0]
    traffic.nvlink(gpu[source][~to_root], gpu[target][~to_root], share[source][~to_root])


def _all_reduce_edges(units: int) -> tuple[Ints, Ints]:
    """Return (edges of both trees,) parents and children; the second tree is the first turned."""
    child = np.arange(1, units)
    parent = _parent(child, units)
    if units % 2:
        turned = [(end + 1) % units for end in (parent, child)]
    else:
        turned = [units - 1 - end for end in (parent, child)]
    return np.concatenate([parent, turned[0]]), np.concatenate([child, turned[1]])


def _broadcast_edges(units: int) -> tuple[Ints, Ints]:
    """Return the edges of two trees over all but unit 0, which is above the root of each."""
    if units == 2:
        return np.zeros(2, dtype=np.int64), np.ones(2, dtype=np.int64)
    parent, child = _all_reduce_edges(units - 1)
    roots = np.array([0, 1 if (units - 1) % 2 else units - 2])
    parents = np.concatenate([np.zeros(2, dtype=np.int64), parent + 1])
    return parents, np.concatenate([roots + 1, child + 1])


def _parent(unit: Ints, units: int) -> Ints:
    """Return the parent in a binary tree whose odd units are leaves and whose root is unit 0."""
    bit = unit & -unit
    up = (unit ^ bit) | (bit << 1)
    return np.where(up < units, up, unit ^ bit)


def _levels(units: int) -> int:
    return int(np.ceil(np.log2(units)))
