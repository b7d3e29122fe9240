"""All directed links of a cluster: NVLink out of and into each GPU, then those of the fabric.

    [0, G)      NVLink out of GPU g
    [G, 2G)     NVLink into GPU g
    [2G, ...)   the fabric's links, in the topology's order; with adaptive routing its bundles

NVLink is a switch that any two GPUs of a node cross at the rate of a GPU. A NIC is beside the GPU
with its share of the node's ports; what another GPU sends through it is handed over by NVLink.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.cluster import ClusterSpec
from hwmodels.errors import InfeasibleError, InputError, suggestion
from hwmodels.fabrics import SwitchedFabric
from hwmodels.fabrics.topology import Topology
from hwmodels.faults import dead_nodes, rate_left
from simulator.network.kept import Kept

Routing = Literal["static", "ecmp", "adaptive"]

WIRINGS = Kept(rows_max=2_000_000)
"""Networks at rates of 1, by what they are wired like."""


class Speeds(NamedTuple):
    """What whole links carry, bytes/s one direction: NVLink of a GPU, a NIC port, a link between
    switches.
    """

    nvlink: float
    port: float
    switch: float

    @classmethod
    def of(cls, cluster: ClusterSpec) -> "Speeds":
        """Return the datasheet's."""
        node, fabric = cluster.node, cluster.fabric
        port = node.port_bytes_per_s
        switch = fabric.link_bytes_per_s if isinstance(fabric, SwitchedFabric) else port
        return cls(node.chip.nvlink_bytes_per_s, port, switch)

    def reached(self, nvlink: float, nic: float) -> "Speeds":
        """Return the rates of which NVLink and NICs reach these shares; switches as NICs do."""
        return Speeds(self.nvlink * nvlink, self.port * nic, self.switch * nic)


@dataclass(frozen=True, eq=False)
class Network:
    """A cluster's links and how its switches choose among them.

    Attributes:
        topology: the fabric, whole.
        fabric_bytes_per_s: (topology.directed_links,) after faults.
        bytes_per_s: (links,) of all links, numbered as in the module docstring.
        speeds: of links without faults, which `bytes_per_s` follow from.
        routing: see `simulator.network.routing`.
        seed: of the hash by which ECMP chooses.
        whole: the same without faults; None where there are none.
    """

    cluster: ClusterSpec
    topology: Topology
    routing: Routing
    seed: int
    speeds: Speeds
    fabric_bytes_per_s: Floats
    bytes_per_s: Floats
    whole: "Network | None" = None

    @classmethod
    def of(
        cls,
        cluster: ClusterSpec,
        routing: str = "static",
        seed: int = 0,
        nvlink_bytes_per_s: float | None = None,
        nic_bytes_per_s: float | None = None,
    ) -> "Network":
        """Return the network of `cluster` after its faults.

        Args:
            nvlink_bytes_per_s: achieved by one GPU; the datasheet's rate if None.
            nic_bytes_per_s: achieved by one NIC port; links between switches scale alike.

        Raises:
            InputError: no such routing, or a rate is not above zero.
            InfeasibleError: the fabric is not routed yet, or has no such part as a fault names, or
                GPUs of a node are joined by no switch.
        """
        if routing not in get_args(Routing):
            raise InputError(
                f"routing: unknown {routing!r}{suggestion(routing, get_args(Routing))}"
            )
        for name, rate in (("nvlink", nvlink_bytes_per_s), ("nic", nic_bytes_per_s)):
            if rate is not None and not 0 < rate < np.inf:
                raise InputError(f"{name}_bytes_per_s: must be above 0 and finite, got {rate}")
        if not cluster.node.scale_up.switched:
            raise InfeasibleError(
                f"node.scale_up.switched: must be true, as links of single pairs of GPUs are not "
                f"routed, got false for node {cluster.node.name}"
            )
        speeds = Speeds.of(cluster)
        nic = 1.0 if nic_bytes_per_s is None else nic_bytes_per_s / speeds.port
        speeds = speeds.reached(1.0, nic)._replace(nvlink=nvlink_bytes_per_s or speeds.nvlink)
        whole = None
        if cluster.faults:
            unbroken = cluster.model_copy(update={"faults": ()})
            whole = cls.of(unbroken, routing, seed, nvlink_bytes_per_s, nic_bytes_per_s)
        wires = wiring(cluster, cast("Routing", routing), seed)
        topology = cluster.topology()
        return replace(wires.at(speeds), cluster=cluster, topology=topology, whole=whole)

    def at(self, speeds: Speeds) -> "Network":
        """Return the network at rates of 1 with links as fast as these."""
        ports, nvlink = 2 * self.topology.endpoints, 2 * self.gpus
        fabric, every = self.fabric_bytes_per_s * speeds.switch, self.bytes_per_s * speeds.switch
        fabric[:ports] = self.fabric_bytes_per_s[:ports] * speeds.port
        every[nvlink : nvlink + ports] = self.bytes_per_s[nvlink : nvlink + ports] * speeds.port
        every[:nvlink] = self.bytes_per_s[:nvlink] * speeds.nvlink
        return replace(self, speeds=speeds, fabric_bytes_per_s=fabric, bytes_per_s=every)

    @cached_property
    def wiring(self) -> "Network":
        """The same at rates of 1, shared by all networks that are wired alike."""
        return wiring(self.cluster, self.routing, self.seed)

    @property
    def gpus(self) -> int:
        """GPUs of the cluster; half of the NVLink links."""
        return self.cluster.gpus

    def rates(self, nvlink_efficiency: float = 1.0, nic_efficiency: float = 1.0) -> Floats:
        """Return (links,) bytes/s of links that reach these shares of their rate."""
        rates = self.bytes_per_s * nic_efficiency
        rates[: 2 * self.gpus] = self.bytes_per_s[: 2 * self.gpus] * nvlink_efficiency
        return rates

    # --- NIC ports --------------------------------------------------------------------------

    @cached_property
    def own_ports(self) -> Ints:
        """(gpus of a node, ports of a GPU) the ports of the NICs beside each; several may share."""
        node = self.cluster.node
        first_nic = np.arange(node.gpus) * node.nics // node.gpus
        ports = max(1, node.nics // node.gpus) * node.nic.ports
        return first_nic[:, None] * node.nic.ports + np.arange(ports)

    def endpoints_of(self, gpu: npt.ArrayLike) -> Ints:
        """Return (..., ports of a GPU) the fabric endpoints beside GPUs."""
        node, index = np.divmod(np.asarray(gpu), self.cluster.node.gpus)
        return np.asarray(node[..., None] * self.cluster.node.ports + self.own_ports[index])

    def owns(self, gpu: npt.ArrayLike, endpoint: npt.ArrayLike) -> Mask:
        """Return whether an endpoint is beside a GPU."""
        node = self.cluster.node
        home, index = np.divmod(np.asarray(gpu), node.gpus)
        place, port = np.divmod(np.asarray(endpoint), node.ports)
        first = self.own_ports[index, 0]
        beside = (port >= first) & (port < first + self.own_ports.shape[1])
        return np.asarray((home == place) & beside)

    def owner(self, endpoint: npt.ArrayLike) -> Ints:
        """Return the GPU beside an endpoint; the first of those that share it."""
        node = self.cluster.node
        place, port = np.divmod(np.asarray(endpoint), node.ports)
        return np.asarray(place * node.gpus + port // node.nic.ports * node.gpus // node.nics)

    @cached_property
    def dead_nodes(self) -> frozenset[int]:
        """Nodes whose GPUs are gone."""
        return frozenset(dead_nodes(self.cluster.faults))

    @cached_property
    def place_under_leaf(self) -> Ints:
        """(endpoints,) the number of each endpoint among those of its leaf."""
        leaf = self.topology.leaf_of
        order = np.argsort(leaf, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(order.size) - np.searchsorted(leaf[order], leaf[order])
        return place

    @cached_property
    def is_cut(self) -> bool:
        """A link between switches is down."""
        return bool((self.fabric_bytes_per_s[2 * self.topology.endpoints :] == 0).any())

    @cached_property
    def cut_planes(self) -> Mask:
        """(planes,) A link between switches of the plane is down."""
        topology = self.topology
        between = np.flatnonzero(topology.tier > 0)
        dead = between[self.fabric_bytes_per_s[between] == 0]
        cut = np.zeros(topology.clos.planes, np.bool_)
        cut[topology.switch_plane[topology.tail[dead] - topology.endpoints]] = True
        return cut

    # --- links ------------------------------------------------------------------------------

    def nvlink_route(self, source: npt.ArrayLike, target: npt.ArrayLike) -> Ints:
        """Return (flows, 2) links from GPU to GPU of one node."""
        return np.stack([np.asarray(source), self.gpus + np.asarray(target)], axis=-1)

    def fabric_link(self, link: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the number here of links of the topology; -1 stays."""
        bundles = self.routing == "adaptive"
        number = self.topology.bundle.astype(np.int32)[link] if bundles else link
        return np.where(link < 0, np.int32(-1), number + np.int32(2 * self.gpus))

    def link_name(self, link: int) -> str:
        """Return a link in words: `nvlink out of gpu 3`, `nic:17.2 out`, `link:0.3.7 up`."""
        if link < 2 * self.gpus:
            into, gpu = divmod(link, self.gpus)
            return f"nvlink {('out of', 'into')[into]} gpu {gpu}"
        link -= 2 * self.gpus
        if self.routing != "adaptive":
            return self.topology.link_name(link)
        members = np.flatnonzero(self.topology.bundle == link)
        name = self.topology.link_name(int(members[0]))
        if len(members) == 1:
            return name
        switch, way = name.rsplit(".", 1)[0], name.rsplit(" ", 1)[1]
        return f"all {len(members)} of {switch} {way}"


def wiring(cluster: ClusterSpec, routing: Routing, seed: int = 0) -> Network:
    """Return the network of `cluster` at rates of 1; kept, and the same for others wired alike.

    Raises:
        InfeasibleError: the fabric is not routed yet, or has no such part as a fault names.
    """
    node = cluster.node
    fabric = type(cluster.fabric), cluster.fabric.shape, cluster.nodes
    places = node.gpus, node.nics, node.nic.ports
    key = fabric, places, cluster.faults, routing, seed
    return WIRINGS.get(
        key,
        lambda: wired(cluster, cluster.topology(), routing, seed),
        lambda made: len(made.rates()),
    )


def wired(cluster: ClusterSpec, topology: Topology, routing: Routing, seed: int = 0) -> Network:
    """Return the nodes of `cluster` on a fabric, at rates of 1."""
    left = rate_left(topology, cluster.faults)
    nvlink = np.repeat(_node_rate_left(cluster), cluster.node.gpus)
    shared = left
    if routing == "adaptive":
        shared = np.bincount(topology.bundle, left, topology.bundles).astype(np.float64)
    every = np.concatenate([nvlink, nvlink, shared])
    return Network(cluster, topology, routing, seed, Speeds(1.0, 1.0, 1.0), left, every)


def check_alive(network: Network, nodes: Ints) -> None:
    """Raise InfeasibleError if a node that holds ranks is gone."""
    for node in nodes.tolist():
        if node in network.dead_nodes:
            first = node * network.cluster.node.gpus
            last = first + network.cluster.node.gpus - 1
            raise InfeasibleError(f"group: node {node} is down, and with it GPUs {first} to {last}")


def _node_rate_left(cluster: ClusterSpec) -> Floats:
    """Return (nodes,) what faults of whole nodes leave of their NVLink; the worst counts."""
    left = np.ones(cluster.nodes)
    for fault in cluster.faults:
        if fault.kind == "node":
            left[fault.place[0]] = min(left[fault.place[0]], fault.rate_left)
    return left
