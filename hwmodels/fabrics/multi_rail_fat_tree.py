"""One two-layer fat tree whose leaves each serve one rail; the baseline DeepSeek-V3 compares with.

Rail `r` joins port `r` of every node. Ports of one rail meet under a leaf or, like ports of
different rails, through the spines all rails share. ISCA'25 §5.1 (MRFT), Table 4.
"""

import math
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.errors import InfeasibleError
from hwmodels.fabrics import FabricCounts, FabricSpec, IntArray, leaf_spine


class MultiRailFatTree(FabricSpec):
    """`rails` sets of leaves under common spines; half of a leaf's ports face endpoints.

    Attributes:
        rails: NIC ports of a node, each on leaves of its own.
    """

    kind: Literal["multi_rail_fat_tree"] = "multi_rail_fat_tree"
    planes: Literal[1] = 1
    rails: Annotated[int, Field(ge=1, le=4096)]

    @property
    def endpoints_max(self) -> int:
        """`rails * floor(radix / rails) * radix / 2`: a spine's ports shared out to the rails."""
        return self.rails * (self.switch_radix // self.rails) * (self.switch_radix // 2)

    def counts(self, endpoints: int) -> FabricCounts:
        """Return the counts with `endpoints` spread evenly over the rails."""
        self._check_endpoints(endpoints)
        leaves = self.rails * math.ceil(endpoints / (self.rails * (self.switch_radix // 2)))
        return FabricCounts(endpoints, *leaf_spine(leaves, self.switch_radix))

    def check_ports(self, ports: int) -> None:
        """Refuse a number of rails other than the node's ports."""
        if ports != self.rails:
            raise InfeasibleError(
                f"fabric.rails: must equal the {ports} NIC ports of a node, got {self.rails}"
            )

    def leaf(self, node: npt.ArrayLike, port: npt.ArrayLike, ports: int) -> IntArray:
        """Fill each rail's leaves node by node; every rail numbers `radix // rails` leaves."""
        rail = np.asarray(port, dtype=np.int64) % ports
        place = np.asarray(node, dtype=np.int64) // (self.switch_radix // 2)
        return np.asarray(rail * (self.switch_radix // self.rails) + place)

    def hops(self, source_leaf: npt.ArrayLike, target_leaf: npt.ArrayLike) -> IntArray:
        """One switch under the same leaf, three through a spine."""
        return np.where(np.equal(source_leaf, target_leaf), 1, 3)
