"""A cluster: equal nodes on one scale-out fabric."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from hwmodels.arrays import Floats
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics import FabricCounts, FabricSpec, SwitchedFabric
from hwmodels.fabrics.topology import Topology
from hwmodels.faults import FaultSpec, check_faults, degraded
from hwmodels.node import NodeSpec
from hwmodels.spec import Catalogue, Spec

Fabric = Annotated[SerializeAsAny[FabricSpec], BeforeValidator(FabricSpec.of_kind)]


def _several(faults: Any) -> Any:
    """A single fault need not stand in a list."""
    return (faults,) if isinstance(faults, str) else faults


PLACES_MAX = 2**21
"""GPUs, and NIC ports, of a cluster: each has a number in lists of all."""

Faults = Annotated[tuple[FaultSpec, ...], BeforeValidator(_several)]


class ClusterSpec(Spec):
    """`nodes` times `node`, joined by `fabric`.

    Attributes:
        faults: what is broken or slow; see `hwmodels.faults`.
    """

    name: str
    nodes: Annotated[int, Field(ge=1, le=10**6)]
    node: NodeSpec
    fabric: Fabric
    faults: Faults = ()

    @model_validator(mode="after")
    def _fabric_fits_the_nodes(self) -> "ClusterSpec":
        widest = max(self.node.gpus, self.node.ports)
        if self.nodes * widest > PLACES_MAX:
            raise InfeasibleError(
                f"nodes: at most {PLACES_MAX // widest:,} of {self.node.gpus} GPUs and "
                f"{self.node.ports} NIC ports each, got {self.nodes:,}"
            )
        self.fabric.check_nodes(self.nodes, self.node.ports)
        if (
            isinstance(self.fabric, SwitchedFabric)
            and self.fabric.link_bytes_per_s < self.node.nic.link_bytes_per_s
        ):
            raise InfeasibleError(
                f"fabric.link_bytes_per_s: at least that of node.nic "
                f"({self.node.nic.link_bytes_per_s:g} B/s), got {self.fabric.link_bytes_per_s:g}; "
                f"set both"
            )
        if self.faults:
            check_faults(self.topology(), self.faults)
        return self

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * self.node.gpus

    @property
    def endpoints(self) -> int:
        """NIC ports of all nodes that the fabric joins."""
        return min(self.nodes * self.node.ports, self.fabric.endpoints_max)

    def topology(self) -> Topology:
        """Return the fabric wired to the nodes, its ports at the rate of the NICs behind PCIe.

        Raises:
            InfeasibleError: the fabric is not routed yet.
        """
        rate = self.node.port_bytes_per_s
        return self.fabric.topology(self.nodes, self.node.ports, rate)

    def degraded_bytes_per_s(self) -> Floats:
        """Return the rate of each link of `topology()` that the faults leave."""
        return degraded(self.topology(), self.faults)

    @property
    def fabric_counts(self) -> FabricCounts:
        """Switches and inter-switch links this cluster needs."""
        return self.fabric.counts(self.endpoints)


CLUSTERS = Catalogue("cluster", Path(__file__).parent / "presets" / "clusters", ClusterSpec)
