"""NVLink inside nodes, a ring over each rail between them; all-to-all in two stages.

All-gather: what a node has goes round the rails, from one member of each node to the next, and is
passed on over NVLink to the others. Reduce-scatter is the same backwards, all-reduce both. With
`N` nodes a rail's hop carries what the next node does not have yet: the NIC's bytes are fewer than
a ring's through all ranks, `(N - 1) / N` instead of `(p - 1) / p`.

All-to-all: first each member collects what its node sends to targets at its own place, then the
members at the same places exchange it. The same bytes as all at once, one after the other, but in
fewer messages.
"""

import numpy as np

from simulator.network.collectives.pairwise import node_targets
from simulator.network.collectives.plan import Plan
from simulator.network.collectives.rails import add_hops, add_in_node, held, in_node_pairs
from simulator.network.links import Network
from simulator.network.placement import Group
from simulator.network.traffic import Traffic

NAME = "hierarchical"
MAKES = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all")


def pays(kind: str, group: Group) -> bool:
    """Return whether it may be fastest: joining messages for a second stage saves no bytes, and
    pays only where messages cost something by themselves, which is for a library to say.
    """
    return kind != "all_to_all" and len(group.nodes) > 1


def plan(network: Network, group: Group, kind: str) -> Plan:
    """Return the plan of a group on more than one node."""
    if kind == "all_to_all":
        return _exchange(network, group)
    gathers = 2 if kind == "all_reduce" else 1
    traffic = Traffic(network)
    if kind != "reduce_scatter":
        _gather(traffic, group, backwards=False)
    if kind != "all_gather":
        _gather(traffic, group, backwards=True)
    inside, between = gathers * (group.channels > 1), gathers * (len(group.nodes) - 1)
    messages = gathers * (group.channels - 1)
    return Plan.of([traffic], int(inside), between, messages, chain=True)


def _gather(traffic: Traffic, group: Group, backwards: bool) -> None:
    """Add an all-gather; backwards it is a reduce-scatter."""
    ranks, nodes, channels = len(group), len(group.nodes), group.channels
    channel, place = (axis.ravel() for axis in np.indices((channels, nodes)))
    following = (place + 1) % nodes
    ends = group.slot(place, channel), group.slot(following, channel)
    source, target = ends[::-1] if backwards else ends
    add_hops(traffic, group, source, target, (1 - group.counts[following] / ranks) / channels)
    elsewhere = 1 - group.counts[group.place] / ranks
    sent = 1 / ranks + held(group) * elsewhere  # its own part, and what its rails brought
    if not backwards:
        add_in_node(traffic, group, sent)
        return
    source, target = in_node_pairs(group)
    traffic.nvlink(group.members[source], group.members[target], sent[target])


def _exchange(network: Network, group: Group) -> Plan:
    """Return all-to-all: over NVLink to the member at the target's place, then to the target."""
    place, target = node_targets(group)
    chunk = 1 / len(group)
    gateway = group.slot(place, group.number[target])
    inside, between = Traffic(network), Traffic(network)
    between.message(gateway, group.members[target], group.counts[place] * chunk)
    # Each member brings its own part to the gateway, and a part to each of its own node.
    nodes, width = len(group.nodes), network.cluster.node.gpus
    passed = np.bincount(place * width + gateway % width, minlength=nodes * width)
    source, other = in_node_pairs(group)
    brought = passed[group.place[other] * width + group.members[other] % width] * chunk
    inside.nvlink(group.members[source], group.members[other], brought + chunk)
    return Plan.of([inside, between], group.channels - 1, nodes - 1)
