"""No scale-out network: the cluster is one node, as a rack of NVL72 by itself."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics import FabricCounts, FabricSpec
from hwmodels.fabrics.clos import Clos
from hwmodels.fabrics.topology import Topology


class ScaleUpOnly(FabricSpec):
    """A single scale-up domain; its NICs, if it has any, lead nowhere."""

    kind: Literal["scale_up_only"] = "scale_up_only"
    planes: Literal[1] = 1

    @property
    def endpoints_max(self) -> int:
        """No port is joined to another."""
        return 0

    def counts(self, endpoints: int) -> FabricCounts:
        """Return nothing at all."""
        if endpoints:
            raise InfeasibleError(f"fabric: scale_up_only holds 0 endpoints, got {endpoints}")
        return FabricCounts(0, 0, 0)

    def check_ports(self, ports: int) -> None:
        """Any number of ports may lead nowhere."""

    def check_nodes(self, nodes: int, ports: int) -> None:
        """Refuse a second node."""
        if nodes != 1:
            raise InfeasibleError(f"nodes: must be 1 with fabric scale_up_only, got {nodes}")

    def diameter(self, endpoints: int) -> int:
        """Return 0: there is no switch."""
        return 0

    def latency_s(self, switches: npt.ArrayLike) -> Floats:
        """Return zeros: no message leaves the node, so none is ever charged."""
        return np.zeros(np.shape(switches))

    def topology(
        self, nodes: int, ports: int, endpoint_bytes_per_s: float | None = None
    ) -> Topology:
        """Return a topology without endpoints, switches or links."""
        self.check_nodes(nodes, ports)
        leaf = np.zeros(0, dtype=np.int64)
        return Topology(nodes, ports, Clos(planes=0, leaves=0, pod_leaves=1), leaf, 0.0, 0.0)
