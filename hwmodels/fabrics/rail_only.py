"""One switch per rail and no spines: traffic between rails is forwarded inside a node.

W. Wang et al., "Rail-only: a low-cost high-performance network for training LLMs with trillion
parameters", 2023 (arXiv 2307.12169). A rail is a plane, so that it is named like one: port `p` of
every node is on plane `p mod planes`. Where the paper gives a rail of many nodes a network of its
own, that is `multi_plane_fat_tree`.
"""

from typing import Literal

from hwmodels.arrays import Ints
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics.clos import Clos
from hwmodels.fabrics.clos_fabric import ClosFabric


class RailOnly(ClosFabric):
    """`planes` single switches, every port of them down."""

    kind: Literal["rail_only"] = "rail_only"

    @property
    def endpoints_max(self) -> int:
        """`planes * radix`."""
        return self.planes * self.switch_radix

    def clos(self, endpoints: int) -> Clos:
        """Return one switch a rail."""
        return Clos(self.planes, leaves=1, pod_leaves=1)

    def check_ports(self, ports: int) -> None:
        """Refuse a number of rails that does not divide the node's ports."""
        if ports % self.planes:
            raise InfeasibleError(
                f"fabric.planes: must divide the {ports} NIC ports of a node, got {self.planes}"
            )

    def leaf(self, node: Ints, port: Ints, clos: Clos, ports: int) -> Ints:
        """Return the rail, whose switch is its only leaf."""
        return port % self.planes
