"""What the network does to training: how much longer bytes take than NICs by themselves need.

Prices know NVLink and the ports of NICs, and nothing behind them (`Machine.of_ports` in the network
room), so that these slowdowns come on top. Each kind of traffic is played here as flows, each GPU
the same bytes, all at once:

    exchange  every GPU to the one that forwards its tokens in each other node of its expert group,
              all groups together; a group is as slow as its slowest flow
    message   every GPU of a pipeline rank to that of its pipeline on another rank
    ring      every GPU to that of its place in the next node that holds the same stages, and to the
              one of its pipeline that holds the same table

Its slowdown is the end on the network as it is (faults, links between switches and the routes over
them, where groups sit) over the end on a whole cluster in which nothing but the ports of the NICs
binds. What is dead is gone around, over other NICs of the node as `simulator.network.lanes` says;
NVLink is not what binds there. Nothing becomes faster: what others leave idle is not made use of.

Where leaves have as many links up as down and switches spread bytes evenly over them (adaptive
routing), no link between switches carries more than the ports below it, so that without faults
every slowdown is 1 and nothing is played. Faults of whole planes slow all ranks alike; anything
else is felt by those whose bytes pass there, so that every rank has to be played.

Kinds of traffic do not meet: nor do messages of one pair of pipeline ranks those of another, nor
rings of different stages.
"""

from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.cluster import ClusterSpec
from simulator.network.comm_times import Slow
from simulator.network.fair import finish
from simulator.network.flows import Flows
from simulator.network.lanes import lanes
from simulator.network.links import Network, Routing, check_alive
from simulator.network.routing import Routes, port_paths
from workloads.placement import Placement, group_layout
from workloads.program import Program


@dataclass(frozen=True, slots=True, eq=False)
class FabricSlowdowns:
    """Time / time in which NICs are all that binds; 1 or more.

    Attributes:
        causes: what may slow, in words.
        exchange: (pp, groups) of each expert group.
        message: (pp, pp, pipelines) from pipeline rank to pipeline rank; 1 where none is sent.
        ring: (pp,) of the rings among the ranks that hold the stages of each.
        nvlink: (pp, pipelines) of each GPU's NVLink.
    """

    causes: tuple[str, ...]
    exchange: Floats
    message: Floats
    ring: Floats
    nvlink: Floats

    @property
    def alike(self) -> tuple[float, Slow]:
        """By how much NICs are slower in exchanges, and in messages and rings, if all ranks are as
        slow as the slowest.
        """
        others = max(self.message.max(), self.ring.max())
        return float(self.exchange.max()), Slow(float(others))

    def __str__(self) -> str:
        """Return what is slowed, by what and by how much, for people."""
        factors, groups = np.unique(np.round(self.exchange, 3), return_counts=True)
        exchanges = ", ".join(
            f"{factor:.3g}x in {count} of {self.exchange.size} expert groups"
            for factor, count in zip(factors.tolist(), groups.tolist(), strict=True)
            if factor > 1 or len(factors) == 1
        )
        return (
            f"{', '.join(self.causes)}: time on NICs of exchanges {exchanges}, "
            f"of messages up to {self.message.max():.3g}x, "
            f"of gradient rings up to {self.ring.max():.3g}x"
        )


@dataclass(frozen=True, slots=True)
class Paths:
    """A network and how bytes find their way over it.

    Attributes:
        seed: of hashed paths.
        unlike: what may make links slower for some ranks than for others, by its path in the
            experiment.
    """

    cluster: ClusterSpec
    routing: Routing = "adaptive"
    seed: int = 0
    unlike: tuple[str, ...] = ()

    @property
    def causes(self) -> tuple[str, ...]:
        """What may slow bytes down behind the NICs, in words."""
        faults = self.cluster.faults
        found = {
            f"faults ({', '.join(map(str, faults))})": bool(faults),
            "oversubscription": "cluster.fabric.oversubscription" in self.unlike,
            f"{self.routing} routing": "communication.routing" in self.unlike,
        }
        return tuple(words for words, is_so in found.items() if is_so)


def fabric_slowdowns(paths: Paths, program: Program, pairs: Ints) -> FabricSlowdowns | None:
    """Return what the network slows down; None where it cannot.

    Args:
        pairs: (pairs, 2) pipeline ranks that send a message, and those that get it.

    Raises:
        InfeasibleError: ranks are down, or cut off from others; the message names them. Or the
            fabric is not routed yet.
    """
    return played_slowdowns(paths, program, pairs) if paths.causes else None


def played_slowdowns(paths: Paths, program: Program, pairs: Ints) -> FabricSlowdowns:
    """Return the slowdowns, also where they are known to be 1; arguments as `fabric_slowdowns`.

    Raises:
        InfeasibleError: as `fabric_slowdowns`.
    """
    cluster, mesh = paths.cluster, program.placement.mesh
    whole = Network.of(cluster.model_copy(update={"faults": ()}), routing="adaptive")
    network = Network.of(cluster, paths.routing, paths.seed % 2**64)  # hashes are of 64 bits
    check_alive(network, np.arange(-(-mesh.ranks // cluster.node.gpus)))
    gpus = np.arange(mesh.ranks)
    nvlink = whole.bytes_per_s[gpus] / network.bytes_per_s[gpus]
    return FabricSlowdowns(
        paths.causes,
        _exchanges(whole, network, program.placement),
        _messages(whole, network, program.placement, pairs),
        _rings(whole, network, program),
        nvlink[program.placement.pipelines.T],
    )


def _exchanges(whole: Network, network: Network, placement: Placement) -> Floats:
    """Return (pp, groups) slowdowns of the exchanges of all expert groups, all at once."""
    mesh, layouts = placement.mesh, placement.layout_of_group.ravel()
    first = mesh.groups("ep")[:, 0]
    source, target = [], []
    for number, members in enumerate(placement.layouts):
        first_ranks = first[layouts == number, None]
        layout = group_layout(members)
        sender, node = np.nonzero(layout.node[:, None] != np.arange(len(members)))
        source.append((first_ranks + sender).ravel())
        target.append((first_ranks + layout.forwarder[sender, node]).ravel())
    ends = np.concatenate(source), np.concatenate(target)
    groups = np.ones(layouts.size)
    if ends[0].size:
        last_s, needed_s = np.zeros((2, layouts.size))
        group = mesh.group_at(["ep"], ends[0])
        np.maximum.at(last_s, group, _ends_s(network, *ends))
        np.maximum.at(needed_s, group, _ports_alone_s(whole, *ends))
        sends = needed_s > 0
        groups[sends] = np.maximum(last_s[sends] / needed_s[sends], 1.0)
    return groups.reshape(placement.layout_of_group.shape)


def _messages(whole: Network, network: Network, placement: Placement, pairs: Ints) -> Floats:
    """Return (pp, pp, pipelines) slowdowns between `pairs` of pipeline ranks, pair by pair."""
    gpus = placement.pipelines.T
    message = np.ones((len(gpus), *gpus.shape))
    for first, second in pairs.tolist():
        message[first, second] = _slowdown(whole, network, gpus[first], gpus[second])
    return message


def _rings(whole: Network, network: Network, program: Program) -> Floats:
    """Return (pp,) slowdowns of the rings that ranks with the same stages, or with a table in
    common, are in; the worst of each rank's.
    """
    gpus, in_node = program.placement.pipelines.T, program.placement.gpus_per_node
    ring = np.ones(len(gpus))
    for home in program.homes:
        held = list(home.ranks)
        members = np.sort(gpus[held].ravel())
        ring[held] = _slowdown(whole, network, members, _in_next_node(members, in_node)).max()
    for joint in (held for table in program.tables for held in table.ranks):
        holders = gpus[list(joint)]
        following = np.roll(holders, -1, axis=0)
        slowdown = _slowdown(whole, network, holders.ravel(), following.ravel()).max()
        ring[list(joint)] = np.maximum(ring[list(joint)], slowdown)
    return ring


def _in_next_node(members: Ints, in_node: int) -> Ints:
    """Return (members,) the member of the same number in the next node, of ascending GPUs."""
    first, number, count = np.unique(
        members // in_node, return_index=True, return_inverse=True, return_counts=True
    )[1:]
    following = (number + 1) % first.size
    place = np.arange(members.size) - first[number]
    return np.asarray(members[first[following] + place % count[following]])


def _slowdown(whole: Network, network: Network, source: Ints, target: Ints) -> Floats:
    """Return (flows,) slowdowns of flows that all start at once; 1 inside a node."""
    in_node = whole.cluster.node.gpus
    slowdown = np.ones(len(source))
    across = source // in_node != target // in_node
    if across.any():
        ends = source[across], target[across]
        slowdown[across] = np.maximum(_ends_s(network, *ends) / _ports_alone_s(whole, *ends), 1.0)
    return slowdown


def _ends_s(network: Network, source: Ints, target: Ints) -> Floats:
    """Return (flows,) when a byte from GPU to GPU of another node is over."""
    across = lanes(network, source, target)
    route = port_paths(network, across.source, across.target, across.flow)
    return _last_s(network, route, across.flow, across.share)


def _ports_alone_s(network: Network, source: Ints, target: Ints) -> Floats:
    """Return (flows,) when that is over if no link between switches ever binds."""
    across, topology = lanes(network, source, target), network.topology
    ports = np.stack([topology.tx(across.source), topology.rx(across.target)], axis=1)
    return _last_s(network, network.fabric_link(ports.astype(np.int32)), across.flow, across.share)


def _last_s(network: Network, route: Routes, flow: Ints, share: Floats) -> Floats:
    """Return (flows,) when the last lane of each flow is over."""
    ends_s = np.zeros(int(flow.max()) + 1)
    np.maximum.at(ends_s, flow, finish(Flows.of(route, share), network.bytes_per_s, 0.0).end_s)
    return ends_s
