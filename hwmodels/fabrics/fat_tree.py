"""One fat tree of two or three layers: any port of any GPU reaches any other.

Nodes fill leaves one after another, all ports of a node under one leaf if it has room. ISCA'25
§5.1, Table 3 (FT2, FT3); three layers after M. Al-Fares et al., SIGCOMM 2008.
"""

import math
from typing import Literal

from pydantic import model_validator

from hwmodels.arrays import Ints
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics.clos import Clos, three_layers, two_layers
from hwmodels.fabrics.clos_fabric import FatTreeFabric


class FatTree(FatTreeFabric):
    """A single plane of `layers` layers of switches.

    Attributes:
        layers: 2, leaves under spines; 3, pods of `radix / 2` leaves under cores.
    """

    kind: Literal["fat_tree"] = "fat_tree"
    planes: Literal[1] = 1
    layers: Literal[2, 3]

    @model_validator(mode="after")
    def _a_pod_has_several_leaves(self) -> "FatTree":
        if self.layers == 3 and self.switch_radix < 4:
            raise InfeasibleError(
                f"switch_radix: at least 4 for three layers, got {self.switch_radix}"
            )
        return self

    @property
    def endpoints_max(self) -> int:
        """`radix` leaves of two layers, `radix` pods of `radix / 2` leaves of three."""
        leaves = self.switch_radix if self.layers == 2 else self.switch_radix**2 // 2
        return leaves * self.leaf_down

    def clos(self, endpoints: int) -> Clos:
        """Return leaves filled one after another."""
        leaves = math.ceil(endpoints / self.leaf_down)
        if self.layers == 2:
            return two_layers(1, leaves, self.switch_radix, self.leaf_up)
        return three_layers(leaves, self.switch_radix, self.leaf_up)

    def check_ports(self, ports: int) -> None:
        """Any number of ports will do."""

    def leaf(self, node: Ints, port: Ints, clos: Clos, ports: int) -> Ints:
        """Fill leaves with endpoints in their order."""
        return (node * ports + port) // self.leaf_down
