"""Scale-out networks: what it takes to join nodes, and how they are wired.

One file per kind: a `FabricSpec` subclass whose `kind` is the file's name registers itself when
this package is imported. An *endpoint* is one NIC port; port `p` of every node has the same place
in the node. Counts follow "Insights into DeepSeek-V3" (ISCA'25, arXiv 2505.09343) Table 3: links
are those between switches, the cables to the endpoints are not among them.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.arrays import Floats
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics.topology import Topology
from hwmodels.spec import Kinded
from hwmodels.units import LinkRate, Parts, Seconds

NOT_WIRED = frozenset(
    {"link_bytes_per_s", "host_latency_s", "hop_latency_s", "multicast", "reduction"}
)
"""Values of a fabric that say how fast it is and what it can, not what is joined to what."""


@dataclass(frozen=True, slots=True)
class FabricCounts:
    """What a fabric of some size is made of; `links` join switches."""

    endpoints: int
    switches: int
    links: int


class FabricSpec(Kinded, ABC):
    """What joins the nodes of a cluster.

    Attributes:
        planes: disjoint networks; traffic changes plane only inside a node.
        routed: whether its `topology` is known; otherwise it is counted only.
    """

    routed: ClassVar[bool] = True

    planes: Parts = 1

    @property
    def shape(self) -> tuple[Hashable, ...]:
        """All values but rates, latencies and abilities: fabrics of one shape are wired alike."""
        return tuple(value for name, value in self if name not in NOT_WIRED)

    @property
    def tapered(self) -> bool:
        """Whether a leaf has fewer links up than down, so that they may bind what NICs do not."""
        return False

    @property
    @abstractmethod
    def endpoints_max(self) -> int:
        """Endpoints the fabric can hold, all planes together."""

    @abstractmethod
    def counts(self, endpoints: int) -> FabricCounts:
        """Return the switches and links that join `endpoints`.

        Raises:
            InfeasibleError: there is no such fabric.
        """

    @abstractmethod
    def check_ports(self, ports: int) -> None:
        """Raise InfeasibleError unless nodes of `ports` NIC ports can be wired to this fabric."""

    @abstractmethod
    def check_nodes(self, nodes: int, ports: int) -> None:
        """Raise InfeasibleError unless so many nodes of `ports` NIC ports find room."""

    @abstractmethod
    def diameter(self, endpoints: int) -> int:
        """Return the switches on the longest shortest path with `endpoints` joined."""

    @abstractmethod
    def latency_s(self, switches: npt.ArrayLike) -> Floats:
        """Return the time of a small message end to end through `switches` switches."""

    @abstractmethod
    def topology(
        self, nodes: int, ports: int, endpoint_bytes_per_s: float | None = None
    ) -> Topology:
        """Return the fabric wired to `nodes` of `ports` NIC ports each; equal calls share it.

        Args:
            endpoint_bytes_per_s: one direction of a NIC port; the fabric's own rate if None.

        Raises:
            InfeasibleError: no such fabric, or one whose routes are not known here.
        """


class SwitchedFabric(FabricSpec, ABC):
    """A scale-out network of equal switches.

    Attributes:
        switch_radix: ports of one switch.
        link_bytes_per_s: one direction of one link.
        host_latency_s: a small message end to end, without its switches: both hosts and wires.
        hop_latency_s: added by each switch on the way.
        multicast: whether switches copy a token that is dispatched to several nodes, so that its
            sender sends it once (ISCA'25 §6.5: a wish).
        reduction: whether switches sum the parts of a token that nodes send home in combine, so
            that its home receives one (likewise).
    """

    switch_radix: Annotated[int, Field(ge=2, le=4096, multiple_of=2)]
    link_bytes_per_s: LinkRate
    host_latency_s: Seconds
    hop_latency_s: Seconds
    multicast: bool = False
    reduction: bool = False

    def latency_s(self, switches: npt.ArrayLike) -> Floats:
        """Return `host_latency_s + switches * hop_latency_s` (ISCA'25 Table 5)."""
        return self.host_latency_s + np.asarray(switches) * self.hop_latency_s

    def check_nodes(self, nodes: int, ports: int) -> None:
        """Refuse more NIC ports than there are places."""
        self.check_ports(ports)
        self.counts(nodes * ports)

    def _check_endpoints(self, endpoints: int) -> None:
        if not 1 <= endpoints <= self.endpoints_max:
            raise InfeasibleError(
                f"fabric: {self.kind} with switches of {self.switch_radix} ports holds 1 to "
                f"{self.endpoints_max} endpoints, got {endpoints}"
            )


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
