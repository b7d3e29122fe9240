"""Dragonfly: groups of fully meshed switches, every two groups linked. Counts only, not routed yet.

J. Kim et al., "Technology-driven, highly-scalable dragonfly topology", ISCA'08: groups of `a`
switches with `p` endpoints and `h` links to other groups each, balanced at a = 2p = 2h; at most
`a h + 1` groups. ISCA'25 Table 3 has 511 of the 513.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hwmodels.errors import InfeasibleError
from hwmodels.fabrics import FabricCounts, SwitchedFabric
from hwmodels.fabrics.topology import Topology
from hwmodels.units import Parts


class Dragonfly(SwitchedFabric):
    """A given number of groups, however many endpoints are in them, or as many as they fill.

    Attributes:
        group_switches: switches of a group (a), all linked to each other.
        switch_endpoints: endpoints on a full switch (p).
        global_links: links of a switch to other groups (h).
        groups: how many (g); None for as many as the endpoints take.
    """

    routed: ClassVar[bool] = False
    kind: Literal["dragonfly"] = "dragonfly"
    planes: Literal[1] = 1
    group_switches: Annotated[int, Field(ge=2, le=4096)]
    switch_endpoints: Parts
    global_links: Parts
    groups: Annotated[int, Field(ge=2, le=10**6)] | None = None

    @model_validator(mode="after")
    def _switches_have_the_ports(self) -> "Dragonfly":
        ports = self.switch_endpoints + self.group_switches - 1 + self.global_links
        if ports > self.switch_radix:
            raise InfeasibleError(
                f"switch_radix: at least {ports} for this dragonfly, got {self.switch_radix}"
            )
        if self.groups is not None and self.groups > self._groups_max:
            raise InfeasibleError(
                f"groups: at most {self._groups_max}, so that any two are linked, got {self.groups}"
            )
        return self

    @property
    def _groups_max(self) -> int:
        return self.group_switches * self.global_links + 1

    @property
    def _group_endpoints(self) -> int:
        return self.group_switches * self.switch_endpoints

    @property
    def endpoints_max(self) -> int:
        """`a p g`."""
        return self._group_endpoints * (self.groups or self._groups_max)

    def counts(self, endpoints: int) -> FabricCounts:
        """Return the counts of the whole graph: a mesh in each group, all global links in use."""
        self._check_endpoints(endpoints)
        switches = self.group_switches * (self.groups or -(-endpoints // self._group_endpoints))
        local = switches * (self.group_switches - 1) // 2
        return FabricCounts(endpoints, switches, local + switches * self.global_links // 2)

    def check_ports(self, ports: int) -> None:
        """Any number of ports will do."""

    def diameter(self, endpoints: int) -> int:
        """Return 4: a local link, a global one, a local one."""
        self._check_endpoints(endpoints)
        return 4

    def topology(
        self, nodes: int, ports: int, endpoint_bytes_per_s: float | None = None
    ) -> Topology:
        """Refuse: the graph is counted, not built."""
        raise InfeasibleError(
            "fabric.kind: must be one with known routes, got dragonfly, which is not routed yet"
        )
