"""One two-layer fat tree whose leaves each serve one rail; the baseline DeepSeek-V3 compares with.

Rail `r` joins port `r` of every node. Ports of one rail meet under a leaf or, like ports of
different rails, through the spines all rails share. ISCA'25 §5.1 (MRFT), Table 4.
"""

import math
from typing import Literal

from pydantic import model_validator

from hwmodels.arrays import Ints
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics.clos import Clos, two_layers
from hwmodels.fabrics.clos_fabric import FatTreeFabric
from hwmodels.units import Parts


class MultiRailFatTree(FatTreeFabric):
    """`rails` sets of leaves under common spines.

    Attributes:
        rails: NIC ports of a node, each on leaves of its own.
    """

    kind: Literal["multi_rail_fat_tree"] = "multi_rail_fat_tree"
    planes: Literal[1] = 1
    rails: Parts

    @model_validator(mode="after")
    def _a_spine_reaches_every_rail(self) -> "MultiRailFatTree":
        if self.rails > self.switch_radix:
            raise InfeasibleError(
                f"switch_radix: at least {self.rails} for {self.rails} rails under common spines, "
                f"got {self.switch_radix}"
            )
        return self

    @property
    def endpoints_max(self) -> int:
        """`rails * floor(radix / rails)` full leaves: a spine's ports shared out to the rails."""
        return self.rails * (self.switch_radix // self.rails) * self.leaf_down

    def clos(self, endpoints: int) -> Clos:
        """Return equally many leaves for every rail."""
        leaves = self.rails * math.ceil(endpoints / (self.rails * self.leaf_down))
        return two_layers(1, leaves, self.switch_radix, self.leaf_up)

    def check_ports(self, ports: int) -> None:
        """Refuse a number of rails other than the node's ports."""
        if ports != self.rails:
            raise InfeasibleError(
                f"fabric.rails: must equal the {ports} NIC ports of a node, got {self.rails}"
            )

    def leaf(self, node: Ints, port: Ints, clos: Clos, ports: int) -> Ints:
        """Fill each rail's leaves node by node; a rail's leaves are neighbours."""
        return port * (clos.leaves // self.rails) + node // self.leaf_down
