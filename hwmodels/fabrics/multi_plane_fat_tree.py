"""Disjoint two-layer fat trees, one per plane; DeepSeek-V3's training network has eight.

Port `p` of every node is on plane `p mod planes`, so one NIC per plane where there are as many
planes as ports. One plane is the ordinary two-layer fat tree (FT2). ISCA'25 §5.1, Table 3.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwmodels.errors import InfeasibleError
from hwmodels.fabrics import FabricCounts, FabricSpec, IntArray, leaf_spine


class MultiPlaneFatTree(FabricSpec):
    """`planes` independent leaf-spine networks; half of a leaf's ports face endpoints."""

    kind: Literal["multi_plane_fat_tree"] = "multi_plane_fat_tree"

    @property
    def endpoints_max(self) -> int:
        """`planes * radix^2 / 2`: as many full leaves as a spine has ports, in each plane."""
        return self.planes * self.switch_radix**2 // 2

    def counts(self, endpoints: int) -> FabricCounts:
        """Return the counts with `endpoints` spread evenly over the planes."""
        self._check_endpoints(endpoints)
        leaves = math.ceil(endpoints / (self.planes * (self.switch_radix // 2)))
        switches, links = leaf_spine(leaves, self.switch_radix)
        return FabricCounts(endpoints, self.planes * switches, self.planes * links)

    def check_ports(self, ports: int) -> None:
        """Refuse a number of planes that does not divide the node's ports."""
        if ports % self.planes:
            raise InfeasibleError(
                f"fabric.planes: must divide the {ports} NIC ports of a node, got {self.planes}"
            )

    def leaf(self, node: npt.ArrayLike, port: npt.ArrayLike, ports: int) -> IntArray:
        """Fill each plane's leaves node by node; a plane's leaves start at `plane * radix`."""
        node, port = np.asarray(node, dtype=np.int64), np.asarray(port, dtype=np.int64)
        place = node * (ports // self.planes) + port // self.planes
        return np.asarray(self.plane(port) * self.switch_radix + place // (self.switch_radix // 2))

    def hops(self, source_leaf: npt.ArrayLike, target_leaf: npt.ArrayLike) -> IntArray:
        """One switch under the same leaf, three through a spine."""
        return np.where(np.equal(source_leaf, target_leaf), 1, 3)
