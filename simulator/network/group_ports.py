"""Copies of tokens through each port of an expert group, expected, as its GPUs lie over nodes.

Of a token's copies on other nodes each crosses the NIC of its GPU once; there the GPU of the same
number forwards it over NVLink, modulo how many of the group the node holds. Where nodes hold unlike
many, the few of a node forward for many, and the fullest port holds all up. Ports count as in
`simulator.network.slowest_port`.

Where switches copy tokens (`SwitchedFabric.multicast`) a token that leaves its node crosses the NIC
of its GPU once, whatever the nodes it goes to. What NICs receive stays: as many copies arrive. On
equal nodes that are equally loaded as many were sent as are received, so that the fuller direction
of a NIC, and with it the time of the exchange, stays too; what is gained is the other direction.
Sums in switches (`reduction`) are the same for a combine, with the directions exchanged.
"""

from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats, Ints
from workloads.placement import group_layout
from workloads.routing import RoutingStatistics


@dataclass(frozen=True, slots=True, eq=False)
class GroupPorts:
    """Copies of one token, at balanced load, by rank of an expert group.

    Attributes:
        node: (ranks,) number of each rank's node in the group.
        nic, nvlink: copies through the fullest port, one direction.
        nic_sent, nic_received, nvlink_sent, nvlink_received: (ranks,) copies through each as a
            share of those; what is received grows with the load of the node, or of the GPU.
    """

    node: Ints
    nic: float
    nvlink: float
    nic_sent: Floats
    nic_received: Floats
    nvlink_sent: Floats
    nvlink_received: Floats

    @classmethod
    def of(cls, routing: RoutingStatistics, once: bool = False) -> "GroupPorts":
        """Return the ports of a group whose tokens are copied so.

        Args:
            once: switches copy tokens (combine: sum them), so that NICs send them once.
        """
        layout, hits = group_layout(routing.members), np.array(routing.node_hits)
        node, fellows = layout.node, np.array(routing.members)[layout.node] - 1
        # Ranks whose tokens each forwards, itself among them.
        forwards = np.bincount(layout.forwarder.ravel(), minlength=routing.gpus)
        copies = routing.gpus_per_token / routing.gpus
        nic_sent = np.asarray(routing.nodes_per_token - hits[node], np.float64)
        if once:
            every = range(routing.nodes)
            leaves = [routing.any_of([other for other in every if other != at]) for at in every]
            nic_sent = np.minimum(nic_sent, np.array(leaves)[node])
        nic_received = np.asarray(hits[node] * (forwards - 1), np.float64)
        nvlink_sent = np.asarray(copies * (forwards * fellows), np.float64)
        nvlink_received = np.asarray(copies * (routing.gpus - forwards), np.float64)
        nic, nvlink = _most(nic_sent, nic_received), _most(nvlink_sent, nvlink_received)
        return cls(
            node,
            nic,
            nvlink,
            _share(nic_sent, nic),
            _share(nic_received, nic),
            _share(nvlink_sent, nvlink),
            _share(nvlink_received, nvlink),
        )

    @property
    def ranks(self) -> int:
        """GPUs of the group."""
        return len(self.node)

    @property
    def nodes(self) -> int:
        """Nodes that they lie on."""
        return int(self.node[-1]) + 1

    def nic_load(self, load: Floats, sent: float = 1.0) -> Floats:
        """Return (..., ranks) the fuller direction of each NIC, against the fullest at balance.

        Args:
            load: (..., ranks) tokens each receives, relative to balanced.
            sent: share of its own copies that each sends.
        """
        first = np.searchsorted(self.node, np.arange(self.nodes))
        of_node = np.add.reduceat(load, first, axis=-1) / np.bincount(self.node)
        return np.maximum(of_node[..., self.node] * self.nic_received, sent * self.nic_sent)

    def nvlink_load(self, load: Floats, sent: float = 1.0) -> Floats:
        """Return the same of each NVLink."""
        return np.maximum(load * self.nvlink_received, sent * self.nvlink_sent)


def _most(sent: Floats, received: Floats) -> float:
    return float(max(sent.max(), received.max()))


def _share(copies: Floats, most: float) -> Floats:
    return copies / most if most else np.zeros_like(copies)
