"""What all fat trees share: counts and wiring from one description of a folded Clos."""

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from hwmodels.arrays import Ints
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics import FabricCounts, SwitchedFabric
from hwmodels.fabrics.clos import Clos, leaf_ports
from hwmodels.fabrics.topology import Topology


class ClosFabric(SwitchedFabric, ABC):
    """A fabric of leaves under spines, in planes that are all alike."""

    @abstractmethod
    def clos(self, endpoints: int) -> Clos:
        """Return the switches and their wiring for `endpoints`, spread evenly; any number >= 1."""

    @abstractmethod
    def leaf(self, node: Ints, port: Ints, clos: Clos, ports: int) -> Ints:
        """Return the leaf, `plane * clos.leaves + leaf`, that holds `port` of `node`."""

    def counts(self, endpoints: int) -> FabricCounts:
        """Return the counts with `endpoints` spread evenly over planes and rails."""
        self._check_endpoints(endpoints)
        clos = self.clos(endpoints)
        return FabricCounts(endpoints, clos.switches, clos.leaf_links + clos.pod_links)

    def diameter(self, endpoints: int) -> int:
        """Return 1 switch under one leaf, 3 through a spine, 5 through a core."""
        self._check_endpoints(endpoints)
        return 2 * self.clos(endpoints).layers - 1

    def topology(
        self, nodes: int, ports: int, endpoint_bytes_per_s: float | None = None
    ) -> Topology:
        """Return the wired fabric; see `FabricSpec.topology`."""
        return _wired(self, nodes, ports, endpoint_bytes_per_s or self.link_bytes_per_s)


class FatTreeFabric(ClosFabric, ABC):
    """A fat tree, full or tapered.

    Attributes:
        oversubscription: ports down over ports up of a leaf, at most; 1 is a full fat tree.
    """

    oversubscription: Annotated[float, Field(ge=1, le=4095)] | None = None

    @model_validator(mode="after")
    def _a_leaf_keeps_an_uplink(self) -> "FatTreeFabric":
        if not self.leaf_down:
            raise InfeasibleError(
                f"oversubscription: at most {self.switch_radix - 1} with switches of "
                f"{self.switch_radix} ports, got {self.oversubscription:g}"
            )
        return self

    @property
    def tapered(self) -> bool:
        """Whether links up of a leaf may bind; see `FabricSpec`."""
        return self.leaf_down > self.leaf_up

    @property
    def leaf_down(self) -> int:
        """Endpoints on a full leaf."""
        return leaf_ports(self.switch_radix, self.oversubscription or 1.0)[0]

    @property
    def leaf_up(self) -> int:
        """Uplinks of a leaf."""
        return leaf_ports(self.switch_radix, self.oversubscription or 1.0)[1]


@lru_cache(maxsize=16)
def _wired(fabric: ClosFabric, nodes: int, ports: int, endpoint_bytes_per_s: float) -> Topology:
    fabric.check_nodes(nodes, ports)
    clos = fabric.clos(nodes * ports)
    node, port = np.divmod(np.arange(nodes * ports), ports)
    leaf = fabric.leaf(node, port, clos, ports)
    leaf.flags.writeable = False
    return Topology(nodes, ports, clos, leaf, endpoint_bytes_per_s, fabric.link_bytes_per_s)
