"""Slim Fly: routers of diameter 2 after McKay, Miller and Siran. Counts only, not routed yet.

M. Besta and T. Hoefler, "Slim Fly: a cost effective low-diameter network topology", SC'14: for
`q = 4w + d`, d in {-1, 0, 1}, there are `2 q^2` routers of network degree `(3q - d) / 2`, each with
half as many endpoints, rounded up. ISCA'25 Table 3 counts with q = 28, which is no prime power: no
such graph can be built, only counted.
"""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hwmodels.errors import InfeasibleError
from hwmodels.fabrics import FabricCounts, SwitchedFabric
from hwmodels.fabrics.topology import Topology


class SlimFly(SwitchedFabric):
    """All `2 q^2` routers, however many endpoints are on them.

    Attributes:
        q: order of the construction, 4w - 1, 4w or 4w + 1; a prime power if it is to be built.
    """

    routed: ClassVar[bool] = False
    kind: Literal["slim_fly"] = "slim_fly"
    planes: Literal[1] = 1
    q: Annotated[int, Field(ge=3, le=1024)]

    @model_validator(mode="after")
    def _switches_have_the_ports(self) -> "SlimFly":
        if self.q % 4 == 2:
            raise InfeasibleError(f"q: must be 4w - 1, 4w or 4w + 1, got {self.q}")
        if self.network_degree + self.endpoints_per_switch > self.switch_radix:
            raise InfeasibleError(
                f"switch_radix: at least {self.network_degree + self.endpoints_per_switch} for "
                f"slim_fly of q = {self.q}, got {self.switch_radix}"
            )
        return self

    @property
    def network_degree(self) -> int:
        """Ports of a switch to other switches."""
        return (3 * self.q - {0: 0, 1: 1, 3: -1}[self.q % 4]) // 2

    @property
    def endpoints_per_switch(self) -> int:
        """Endpoints on a full switch."""
        return math.ceil(self.network_degree / 2)

    @property
    def endpoints_max(self) -> int:
        """`2 q^2` full switches."""
        return 2 * self.q**2 * self.endpoints_per_switch

    def counts(self, endpoints: int) -> FabricCounts:
        """Return the counts of the whole graph."""
        self._check_endpoints(endpoints)
        switches = 2 * self.q**2
        return FabricCounts(endpoints, switches, switches * self.network_degree // 2)

    def check_ports(self, ports: int) -> None:
        """Any number of ports will do."""

    def diameter(self, endpoints: int) -> int:
        """Return 3: any two routers have a third between them at most."""
        self._check_endpoints(endpoints)
        return 3

    def topology(
        self, nodes: int, ports: int, endpoint_bytes_per_s: float | None = None
    ) -> Topology:
        """Refuse: the graph is counted, not built."""
        raise InfeasibleError(
            "fabric.kind: must be one with known routes, got slim_fly, which is not routed yet"
        )
