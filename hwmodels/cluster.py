"""A cluster: equal nodes on one scale-out fabric."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from hwmodels.errors import InfeasibleError
from hwmodels.fabrics import FabricCounts, FabricSpec
from hwmodels.node import NodeSpec
from hwmodels.spec import Catalogue, Spec

Fabric = Annotated[SerializeAsAny[FabricSpec], BeforeValidator(FabricSpec.of_kind)]


class ClusterSpec(Spec):
    """`nodes` times `node`, joined by `fabric`."""

    name: str
    nodes: Annotated[int, Field(ge=1, le=10**6)]
    node: NodeSpec
    fabric: Fabric

    @model_validator(mode="after")
    def _fabric_fits_the_nodes(self) -> "ClusterSpec":
        self.fabric.check_ports(self.node.ports)
        if self.fabric.link_bytes_per_s < self.node.nic.link_bytes_per_s:
            raise InfeasibleError(
                f"fabric.link_bytes_per_s: at least that of node.nic "
                f"({self.node.nic.link_bytes_per_s:g} B/s), got {self.fabric.link_bytes_per_s:g}; "
                f"set both"
            )
        self.fabric.counts(self.endpoints)
        return self

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * self.node.gpus

    @property
    def endpoints(self) -> int:
        """NIC ports of all nodes."""
        return self.nodes * self.node.ports

    @property
    def fabric_counts(self) -> FabricCounts:
        """Switches and inter-switch links this cluster needs."""
        return self.fabric.counts(self.endpoints)


CLUSTERS = Catalogue("cluster", Path(__file__).parent / "presets" / "clusters", ClusterSpec)
