"""What communication is priced on: links and what a library reaches on them."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from hwmodels.cluster import ClusterSpec
from hwmodels.fabrics.clos import Clos, Uplinks
from hwmodels.fabrics.topology import Topology
from hwmodels.identity import Same
from hwmodels.library import LibrarySpec
from simulator.network.links import WIRINGS, Network, Speeds, wired, wiring
from workloads.routing import RoutingStatistics


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """Links at some speed, and a library on them.

    Attributes:
        cluster: whose latencies messages have.
        wires: its network at rates of 1.
        speeds: of its links; infinite between switches where those never bind. Columns where
            several machines are priced side by side.
        library: what links achieve; the datasheet's rates without it.
        sms: given to the expert exchange.
        routing: copies that a token costs in it, for each way in which groups lie over nodes.
        whole: the same without faults; None where there are none.
    """

    cluster: ClusterSpec
    wires: Network
    speeds: Speeds
    library: LibrarySpec | None = None
    sms: int = 20
    routing: tuple[RoutingStatistics, ...] = ()
    whole: "Machine | None" = None

    @classmethod
    def on(cls, network: Network, library: LibrarySpec | None = None) -> "Machine":
        """Return the machine whose links are those of `network`, faults and switches included."""
        whole = None if network.whole is None else cls.on(network.whole, library)
        return cls(network.cluster, network.wiring, network.speeds, library, whole=whole)

    @classmethod
    def of_ports(
        cls,
        cluster: ClusterSpec,
        library: LibrarySpec | None = None,
        sms: int = 20,
        routing: tuple[RoutingStatistics, ...] = (),
    ) -> "Machine":
        """Return a machine on which NVLink and the ports of NICs are all that ever binds.

        Faults, and what links between switches add, are left out: see
        `simulator.price.fabric_slowdowns`. Where the routes of a fabric are not known, any two
        nodes are three switches apart.
        """
        speeds = Speeds.of(cluster)._replace(switch=inf)
        whole = cluster.model_copy(update={"faults": ()}) if cluster.faults else cluster
        wires = wiring(whole, "adaptive") if cluster.fabric.routed else _unrouted(whole)
        return cls(cluster, wires, speeds, library, sms, routing)

    @classmethod
    def side_by_side(cls, machines: Sequence["Machine"]) -> "Machine":
        """Return machines of one `likeness` as one whose speeds are (machines,) columns, for
        messages and collectives; a single one stays as it is.
        """
        if len(machines) == 1:
            return machines[0]
        columns: Any = np.array([machine.speeds for machine in machines]).T
        return replace(machines[0], speeds=Speeds(*columns)._replace(switch=inf))

    @property
    def likeness(self) -> Hashable:
        """What machines agree in that can be priced side by side; another one where none can."""
        if not self.only_ports_bind or self.whole is not None:
            return object()
        fabric, library = Same(self.cluster.fabric), Same(self.library)
        return self.wires, library, fabric, self.cluster.node.scale_up.latency_s

    @property
    def beside(self) -> tuple[int, ...]:
        """How many machines this is, side by side; none where it is a single one."""
        return np.shape(self.speeds.nvlink)

    @property
    def only_ports_bind(self) -> bool:
        """Whether groups meet on NVLink and ports of NICs only, all of them whole."""
        return self.speeds.switch == inf and not self.wires.cluster.faults


def _unrouted(cluster: ClusterSpec) -> Network:
    """Return nodes on a leaf each, at rates of 1; kept."""
    node = cluster.node
    key = "unrouted", cluster.nodes, node.gpus, node.nics, node.nic.ports
    return WIRINGS.get(key, lambda: _on_leaves(cluster), lambda made: len(made.rates()))


def _on_leaves(cluster: ClusterSpec) -> Network:
    nodes, ports = cluster.nodes, cluster.node.ports
    clos = Clos(1, nodes, nodes, Uplinks(ports) if nodes > 1 else Uplinks())
    leaf_of = np.repeat(np.arange(nodes), ports)
    leaf_of.flags.writeable = False
    return wired(cluster, Topology(nodes, ports, clos, leaf_of, 1.0, 1.0), "adaptive")
