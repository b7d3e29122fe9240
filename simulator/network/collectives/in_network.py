"""Switches that reduce and multicast: NVLink's inside a node, the fabric's between nodes.

Inside a node the NVLink switch fetches the buffer of every rank and hands each the sum of its
share; what a rank writes back is multicast: `S (p + 1) / p` out of a GPU and into it for an
all-reduce, `S` for the other kinds (NVLink SHARP, NVLS in NCCL). Between nodes each rail's share
goes up a tree of switches, reduced at every one, and down again (R. L. Graham et al., "Scalable
hierarchical aggregation protocol (SHArP)", COM-HPC 2016): a NIC carries it once each way, and so
does one uplink of each leaf. Whether switches can do this no cluster document says, so nothing
takes this algorithm unasked.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.errors import InfeasibleError
from simulator.network.collectives.plan import Plan
from simulator.network.collectives.rails import held
from simulator.network.links import Network
from simulator.network.placement import Group
from simulator.network.traffic import Traffic

NAME = "in-network"
MAKES = ("all_gather", "reduce_scatter", "all_reduce", "broadcast")


def pays(kind: str, group: Group) -> bool:
    """Return False: not every switch reduces, so it is taken only where it is asked for."""
    return False


def plan(network: Network, group: Group, kind: str) -> Plan:
    """Return the plan of an all-reduce, all-gather, reduce-scatter or broadcast.

    Raises:
        InfeasibleError: a NIC port of the group or a link of its tree is down, or its ports are not
            on one plane a rail.
    """
    traffic, ways = Traffic(network), 2 if kind == "all_reduce" else 1
    if group.channels > 1:
        _inside(traffic, group, kind)
    inside = ways if group.channels > 1 else 0
    if len(group.nodes) == 1:
        return Plan.of([traffic], inside, 0)
    ports = _ports(network, group)
    _at_nics(traffic, network, group, kind, ports)
    switches = _between_leaves(traffic, network, ports)
    return replace(Plan.of([traffic], inside, ways), switches=switches)


def _inside(traffic: Traffic, group: Group, kind: str) -> None:
    """Add what GPUs exchange with the NVLink switch; a lone member has no need of it."""
    whole = (group.counts[group.place] > 1).astype(np.float64)
    share = held(group) * whole  # of the channels that a member reduces and writes back
    shard = np.maximum(whole / len(group), share)
    per_node, root = group.gpus_per_node, group.gpus[0]
    at_home = group.members // per_node == root // per_node
    first = np.where(group.members == root, whole, np.where(at_home, 0.0, share))
    out, into = {
        "all_reduce": (whole + share, whole + share),
        "all_gather": (shard, whole),
        "reduce_scatter": (whole, shard),
        "broadcast": (first, whole),
    }[kind]
    gpus = traffic.network.gpus
    traffic.links(group.members[:, None], out)
    traffic.links(gpus + group.members[:, None], into)


def _ports(network: Network, group: Group) -> Ints:
    """Return (nodes, trees) endpoints; a tree joins the ports of one place."""
    first = group.slot(np.zeros(group.channels, dtype=np.int64), np.arange(group.channels))
    place = network.endpoints_of(first).ravel() % network.cluster.node.ports
    ports = group.nodes[:, None] * network.cluster.node.ports + place
    topology, rate = network.topology, network.fabric_bytes_per_s
    if not topology.connected(ports, ports[:1]).all():
        raise InfeasibleError("algorithm: in-network needs the ports of a rail on one plane")
    dead = np.argwhere((rate[topology.tx(ports)] == 0) | (rate[topology.rx(ports)] == 0))
    for node, tree in dead[:1].tolist():
        name = topology.link_name(int(topology.tx(ports[node, tree]))).split()[0]
        raise InfeasibleError(
            f"algorithm: in-network needs every NIC port of its rails, {name} is down"
        )
    return np.asarray(ports)


def _at_nics(traffic: Traffic, network: Network, group: Group, kind: str, ports: Ints) -> None:
    """Add what each port sends up and gets down."""
    part = group.counts / len(group)
    everything = np.ones(len(group.nodes))
    at_root = (group.nodes == group.gpus[0] // group.gpus_per_node).astype(np.float64)
    up, down = {
        "all_reduce": (everything, everything),
        "all_gather": (part, everything),
        "reduce_scatter": (everything, part),
        "broadcast": (at_root, 1 - at_root),
    }[kind]
    trees, topology = ports.shape[1], network.topology
    for share, links in ((up, topology.tx(ports)), (down, topology.rx(ports))):
        _add(traffic, network, links.ravel(), np.repeat(share / trees, trees))


def _between_leaves(traffic: Traffic, network: Network, ports: Ints) -> float:
    """Add one uplink of each leaf, both ways, and return the switches that a message passes."""
    topology, trees = network.topology, ports.shape[1]
    most = 1
    for tree in range(trees):
        _, first = np.unique(topology.leaf_of[ports[:, tree]], return_index=True)
        if first.size == 1:
            continue
        source = ports[first, tree]
        target = np.roll(source, -1)
        passed = topology.switches_passed(source, target)
        route = topology.routes(source, target, tree % topology.choices(source, target))
        hop = np.arange(route.shape[1])
        crossed = np.unique(route[(hop > 0) & (hop < passed[:, None])])
        for link in crossed[_is_down(network, crossed)][:1].tolist():
            name = topology.link_name(link).split()[0]
            raise InfeasibleError(
                f"algorithm: in-network needs every link of its trees, {name} is down"
            )
        _add(traffic, network, crossed.astype(np.int64), np.full(crossed.size, 1 / trees))
        most = max(most, int(passed.max()))
    return float(most)


def _is_down(network: Network, links: npt.NDArray[np.int32]) -> Mask:
    """Return whether nothing is left of links of the topology, or of the bundles they act as."""
    number = network.fabric_link(links)
    return np.asarray(network.bytes_per_s[number] == 0)


def _add(traffic: Traffic, network: Network, links: Ints, moved_bytes: Floats) -> None:
    """Add bytes on links of the topology, each by itself."""
    route = network.fabric_link(links.astype(np.int32)[:, None]).astype(np.int64)
    traffic.links(route, moved_bytes)
