"""What the network does to expert exchanges: how much longer they take than NICs alone would need.

Prices of exchanges know NVLink and the ports of NICs, and nothing behind them (`Machine.of_ports`
in the network room), so that these slowdowns come on top. Messages and gradient collectives need
none: they are priced on the network as it is (`Paths.network`). Exchanges are played here as flows,
each GPU the same bytes, all at once: every GPU to the one that forwards its tokens in each other
node of its expert group, all groups together; a group is as slow as its slowest flow.

Its slowdown is the end on the network as it is (faults, links between switches and the routes over
them, where groups sit) over the end on a whole cluster in which nothing but the ports of the NICs
binds. What is dead is gone around, over other NICs of the node as `simulator.network.lanes` says;
NVLink is not what binds there. Nothing becomes faster: what others leave idle is not made use of.

Where leaves have as many links up as down and switches spread bytes evenly over them (adaptive
routing), no link between switches carries more than the ports below it, so that without faults
every slowdown is 1 and nothing is played. Faults of whole planes slow all ranks alike; anything
else is felt by those whose bytes pass there, so that every rank has to be played.

What switches copy or sum (`SwitchedFabric.multicast`) is played as many copies: links between
switches are not spared, and where they bind these abilities are worth more than is told.

Kinds of traffic do not meet.
"""

from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.cluster import ClusterSpec
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
        nvlink: (pp, pipelines) of each GPU's NVLink.
    """

    causes: tuple[str, ...]
    exchange: Floats
    nvlink: Floats

    @property
    def alike(self) -> float:
        """By how much NICs are slower in exchanges if all ranks are as slow as the slowest."""
        return float(self.exchange.max())

    def __str__(self) -> str:
        """Return what is slowed, by what and by how much, for people."""
        factors, groups = np.unique(np.round(self.exchange, 3), return_counts=True)
        exchanges = ", ".join(
            f"{factor:.3g}x in {count} of {self.exchange.size} expert groups"
            for factor, count in zip(factors.tolist(), groups.tolist(), strict=True)
            if factor > 1 or len(factors) == 1
        )
        return (
            f"{', '.join(self.causes)}: time on NICs of exchanges {exchanges}; "
            f"messages and gradients on that network, flow by flow"
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

    @property
    def network(self) -> Network:
        """The cluster's links as they are, and the routes over them.

        Raises:
            InfeasibleError: the fabric is not routed yet.
        """
        return Network.of(self.cluster, self.routing, self.seed % 2**64)  # hashes are of 64 bits


def fabric_slowdowns(paths: Paths, program: Program) -> FabricSlowdowns | None:
    """Return what the network slows down; None where it cannot.

    Raises:
        InfeasibleError: ranks are down, or cut off from others; the message names them. Or the
            fabric is not routed yet.
    """
    return played_slowdowns(paths, program) if paths.causes else None


def played_slowdowns(paths: Paths, program: Program) -> FabricSlowdowns:
    """Return the slowdowns, also where they are known to be 1; arguments as `fabric_slowdowns`.

    Raises:
        InfeasibleError: as `fabric_slowdowns`.
    """
    cluster, mesh = paths.cluster, program.placement.mesh
    whole = Network.of(cluster.model_copy(update={"faults": ()}), routing="adaptive")
    network = paths.network
    check_alive(network, np.arange(-(-mesh.ranks // cluster.node.gpus)))
    gpus = np.arange(mesh.ranks)
    nvlink = whole.bytes_per_s[gpus] / network.bytes_per_s[gpus]
    return FabricSlowdowns(
        paths.causes,
        _exchanges(whole, network, program.placement),
        nvlink[program.placement.pipelines.T],
    )


def _exchanges(whole: Network, network: Network, placement: Placement) -> Floats:
    """Return (pp, groups) slowdowns of the exchanges of all expert groups, all at once."""
    layouts = placement.layout_of_group.ravel()
    every = placement.expert_groups.reshape(layouts.size, -1)
    source, target, number_of = [], [], []
    for number, members in enumerate(placement.layouts):
        alike = np.flatnonzero(layouts == number)
        layout = group_layout(members)
        sender, node = np.nonzero(layout.node[:, None] != np.arange(len(members)))
        source.append(every[alike][:, sender].ravel())
        target.append(every[alike][:, layout.forwarder[sender, node]].ravel())
        number_of.append(np.repeat(alike, len(sender)))
    ends, group = (np.concatenate(source), np.concatenate(target)), np.concatenate(number_of)
    groups = np.ones(layouts.size)
    if ends[0].size:
        last_s, needed_s = np.zeros((2, layouts.size))
        np.maximum.at(last_s, group, _ends_s(network, *ends))
        np.maximum.at(needed_s, group, _ports_alone_s(whole, *ends))
        sends = needed_s > 0
        groups[sends] = np.maximum(last_s[sends] / needed_s[sends], 1.0)
    return groups.reshape(placement.layout_of_group.shape)


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
