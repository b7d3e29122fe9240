"""Disjoint two-layer fat trees, one per plane; DeepSeek-V3's training network has eight.

Port `p` of every node is on plane `p mod planes`: with as many planes as NICs each NIC has a plane
to itself; NICs of several ports (ConnectX-8: four) reach as many planes each. ISCA'25 "Insights
into DeepSeek-V3" §5.1, Table 3.
"""

import math
from typing import Literal

from hwmodels.arrays import Ints
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics.clos import Clos, two_layers
from hwmodels.fabrics.clos_fabric import FatTreeFabric


class MultiPlaneFatTree(FatTreeFabric):
    """`planes` independent leaf-spine networks."""

    kind: Literal["multi_plane_fat_tree"] = "multi_plane_fat_tree"

    @property
    def endpoints_max(self) -> int:
        """As many full leaves as a spine has ports, in each plane: `planes * radix^2 / 2`."""
        return self.planes * self.switch_radix * self.leaf_down

    def clos(self, endpoints: int) -> Clos:
        """Return planes of `endpoints / planes` each."""
        leaves = math.ceil(endpoints / (self.planes * self.leaf_down))
        return two_layers(self.planes, leaves, self.switch_radix, self.leaf_up)

    def check_ports(self, ports: int) -> None:
        """Refuse a number of planes that does not divide the node's ports."""
        if ports % self.planes:
            raise InfeasibleError(
                f"fabric.planes: must divide the {ports} NIC ports of a node, got {self.planes}"
            )

    def leaf(self, node: Ints, port: Ints, clos: Clos, ports: int) -> Ints:
        """Fill each plane's leaves node by node."""
        turn, plane = port // self.planes, port % self.planes
        place = node * (ports // self.planes) + turn
        return plane * clos.leaves + place // self.leaf_down
