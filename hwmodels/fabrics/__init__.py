"""Scale-out networks: what it takes to join nodes, and how far apart they are.

One file per topology: a `FabricSpec` subclass whose `kind` is the file's name registers itself
when this package is imported. An *endpoint* is one NIC port; port `p` of every node has the same
place in the node. Counts follow "Insights into DeepSeek-V3" (ISCA'25, arXiv 2505.09343) Table 3:
links are those between switches, the cables to the endpoints are not among them.
"""

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.errors import InfeasibleError
from hwmodels.spec import Kinded
from hwmodels.units import BytesPerSecond, Seconds

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FabricCounts:
    """What a fabric of some size is made of; `links` join switches."""

    endpoints: int
    switches: int
    links: int


def leaf_spine(leaves: int, radix: int) -> tuple[int, int]:
    """Return (switches, links) of `leaves` that send half their ports up to full spines.

    A single leaf needs no spine.
    """
    if leaves == 1:
        return 1, 0
    return leaves + math.ceil(leaves / 2), leaves * (radix // 2)


class FabricSpec(Kinded, ABC):
    """A scale-out network.

    Attributes:
        switch_radix: ports of one switch.
        link_bytes_per_s: one direction of one link.
        planes: disjoint networks; traffic changes plane only inside a node.
        host_latency_s: a small message end to end, without its switches: both hosts and wires.
        hop_latency_s: added by each switch on the way.
    """

    switch_radix: Annotated[int, Field(ge=2, le=4096, multiple_of=2)]
    link_bytes_per_s: BytesPerSecond
    planes: Annotated[int, Field(ge=1, le=4096)] = 1
    host_latency_s: Seconds
    hop_latency_s: Seconds

    @property
    @abstractmethod
    def endpoints_max(self) -> int:
        """Endpoints the topology can hold with switches of this radix, all planes together."""

    @abstractmethod
    def counts(self, endpoints: int) -> FabricCounts:
        """Return the switches and links that join `endpoints` without oversubscription.

        Raises:
            InfeasibleError: there is no such fabric.
        """

    @abstractmethod
    def check_ports(self, ports: int) -> None:
        """Raise InfeasibleError unless nodes of `ports` NIC ports can be wired to this fabric."""

    @abstractmethod
    def leaf(self, node: npt.ArrayLike, port: npt.ArrayLike, ports: int) -> IntArray:
        """Return the number of the leaf switch that holds `port` of `node` (nodes have `ports`)."""

    @abstractmethod
    def hops(self, source_leaf: npt.ArrayLike, target_leaf: npt.ArrayLike) -> IntArray:
        """Return how many switches a message passes between two leaves of one plane."""

    def plane(self, port: npt.ArrayLike) -> IntArray:
        """Return the plane that NIC port `port` of any node is on."""
        return np.asarray(port, dtype=np.int64) % self.planes

    def latency_s(self, hops: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the time of a small message end to end through `hops` switches."""
        return self.host_latency_s + np.asarray(hops) * self.hop_latency_s

    def _check_endpoints(self, endpoints: int) -> None:
        if not 1 <= endpoints <= self.endpoints_max:
            raise InfeasibleError(
                f"fabric: {self.kind} with switches of {self.switch_radix} ports holds 1 to "
                f"{self.endpoints_max} endpoints, got {endpoints}"
            )


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
