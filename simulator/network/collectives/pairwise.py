"""Each rank sends each other rank its part, message after message; between nodes with PXN.

All-to-all, all-gather and reduce-scatter move the same: `1 / p` of the size between each two
ranks. What a node's members send to one GPU elsewhere leaves by the NIC at that GPU's place, handed
over by NVLink (NCCL's PXN), so it is a flow for each node and target, not for each two ranks.
Broadcast sends the whole from the root to each, send_recv from each rank to the next.
"""

import numpy as np

from hwmodels.arrays import Ints
from simulator.network.collectives.plan import PLANS, Plan
from simulator.network.collectives.rails import in_node_pairs
from simulator.network.links import Network
from simulator.network.placement import Group
from simulator.network.traffic import Traffic

NAME = "pairwise"
MAKES = ("all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv")


def pays(kind: str, group: Group) -> bool:
    """Return whether it may be fastest: taking messages in turn saves no bytes."""
    return kind == "send_recv"


def plan(network: Network, group: Group, kind: str) -> Plan:
    """Return the plan of any kind but all-reduce, in one message for each other rank."""
    if kind not in ("broadcast", "send_recv"):
        return exchange(network, group)
    traffic, source = Traffic(network), np.array(group.gpus)
    if kind == "broadcast":
        traffic.message(source[0], source[1:], 1.0)
        return _in_turn(traffic, group)
    traffic.message(source, np.roll(source, -1), 1.0)
    return Plan.of([traffic], int(traffic.uses_nvlink()), int(len(group.nodes) > 1))


def node_targets(group: Group) -> tuple[Ints, Ints]:
    """Return (pairs,) numbers of a node in `group.nodes` and of a member on another node."""
    place, target = (axis.ravel() for axis in np.indices((len(group.nodes), len(group))))
    elsewhere = group.place[target] != place
    return place[elsewhere], target[elsewhere]


def exchange(network: Network, group: Group) -> Plan:
    """Return the plan by which each rank sends each other `1 / p`; kept, as several kinds do it."""
    return PLANS.get(
        (network, group, "exchange"), lambda: _exchange(network, group), lambda plan: plan.rows
    )


def _exchange(network: Network, group: Group) -> Plan:
    traffic, chunk = Traffic(network), 1 / len(group)
    source, target = in_node_pairs(group)
    traffic.nvlink(group.members[source], group.members[target], chunk)
    if len(group.nodes) > 1:
        place, target = node_targets(group)
        moved = group.counts[place] * chunk
        traffic.joined_messages(group.counts, group.members, place, group.members[target], moved)
    return _in_turn(traffic, group)


def _in_turn(traffic: Traffic, group: Group) -> Plan:
    """Return the plan with messages in turn: to all others on the node, to all elsewhere."""
    inside = group.channels - 1
    return Plan.of([traffic], inside, len(group) - 1 - inside)
