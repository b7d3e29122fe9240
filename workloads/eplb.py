"""DeepSeek's expert-parallel load balancer: which experts get replicas, and which GPU holds which.

The algorithm of deepseek-ai/EPLB @d52c72d, from its description, in three greedy steps:

    1. groups of experts are packed to nodes;
    2. in each node every further slot goes to the expert with the largest load a replica;
    3. in each node slots are packed to GPUs, a replica taking its share of its expert's load.

Packing takes what is largest first to the emptiest pack that has a place left, equally many to
each. Where groups do not divide over nodes all of it is done as in one node with one group, which
the authors use for decode; groups on nodes are for prefill, as node-limited routing keeps tokens of
a group on its node. A greedy packing is good and not the best: it may be worse than the one that
happens to be there.
"""

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InfeasibleError


def eplb(loads: Floats, slots: int, groups: int, nodes: int, gpus: int) -> Ints:
    """Return (layers, slots) the expert in each slot, GPU by GPU and node by node.

    Args:
        loads: (layers, experts) tokens of each expert.
        slots: of all GPUs together.
        groups: of consecutive experts; global where `nodes` does not divide them.

    Raises:
        InfeasibleError: slots do not divide over GPUs, experts over groups or GPUs over nodes, or
            there are fewer slots than experts.
    """
    experts = loads.shape[1]
    if groups % nodes:
        groups = nodes = 1
    if slots % gpus or gpus % nodes or experts % groups:
        raise InfeasibleError(
            f"eplb: {slots} slots must divide over {gpus} GPUs, {gpus} GPUs over {nodes} nodes and "
            f"{experts} experts into {groups} groups"
        )
    if slots < experts:
        raise InfeasibleError(f"eplb: must have a slot for each of {experts} experts, got {slots}")
    return np.stack([_of_layer(layer, slots, groups, nodes, gpus) for layer in loads])


def _of_layer(loads: Floats, slots: int, groups: int, nodes: int, gpus: int) -> Ints:
    """Return (slots,) the expert in each slot of one layer."""
    members = np.arange(len(loads)).reshape(groups, -1)
    order = pack(loads[members].sum(axis=1), nodes)
    of_node = members[order].reshape(nodes, -1)
    found = []
    for experts in of_node:
        replica = experts[replicate(loads[experts], slots // nodes)]
        count = np.bincount(replica, minlength=len(loads))
        found.append(replica[pack(loads[replica] / count[replica], gpus // nodes)])
    return np.concatenate(found)


def pack(loads: Floats, packs: int) -> Ints:
    """Return (items,) which item lies in each place, pack by pack, equally many in each.

    Args:
        loads: (items,) of which `packs` is a divisor; with one item a pack they stay in order.
    """
    places = len(loads) // packs
    if places == 1:
        return np.arange(len(loads))
    held: list[list[int]] = [[] for _ in range(packs)]
    weight = np.zeros(packs)
    for item in np.argsort(-loads, kind="stable").tolist():
        lightest = int(weight.argmin())
        held[lightest].append(item)
        full = len(held[lightest]) == places
        weight[lightest] = np.inf if full else weight[lightest] + loads[item]
    return np.array(held, np.int64).ravel()


def replicate(loads: Floats, slots: int) -> Ints:
    """Return (slots,) the expert of each slot: all in order, then replicas as they are given.

    Args:
        loads: (experts,), at most as many as slots.
    """
    count, found = np.ones(len(loads)), list(range(len(loads)))
    for _ in range(slots - len(loads)):
        found.append(int((loads / count).argmax()))
        count[found[-1]] += 1
    return np.array(found, np.int64)
