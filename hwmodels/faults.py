"""What is broken in a cluster, in words: `nic:17.2`, `plane:3`, `leaf:0.3=0.5`.

    node:12         node 12: all of its NIC ports, and its GPUs
    nic:17.2        port 2 of node 17
    plane:3         everything on plane 3
    leaf:0.3        leaf 3 of plane 0, with all cables at it
    spine:0.2       switch 2 above the leaves of plane 0: spines first, then cores, if any
    link:0.3.7      uplink 7 of leaf 3 of plane 0, both directions
    core:0.3.7      uplink 7 of aggregation switch 3 of plane 0 to a core, in three layers

Behind `=` stands the share of its rate that is left; without it nothing is. Faults are those of the
scale-out network: of NVLink only a whole node can be taken away.
"""

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_serializer, model_validator

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InfeasibleError, SpecError, shown
from hwmodels.fabrics.topology import Topology
from hwmodels.spec import Spec
from hwmodels.units import LEAST_SHARE

PLACES = {
    "node": ("node",),
    "nic": ("node", "port"),
    "plane": ("plane",),
    "leaf": ("plane", "leaf"),
    "spine": ("plane", "spine"),
    "link": ("plane", "leaf", "uplink"),
    "core": ("plane", "aggregation", "uplink"),
}
"""What the numbers of each kind of fault count."""

_FAULT = re.compile(r"([a-z]+):(\d{1,9}(?:\.\d{1,9}){0,2})(?:=(.+))?")
_ALLOWED = ", ".join(f"{kind}:{'.'.join(place).upper()}" for kind, place in PLACES.items())


class FaultSpec(Spec):
    """One broken or slow part; written, read and stored as a string.

    Attributes:
        kind: a key of `PLACES`.
        place: which one, a number for each name in `PLACES`.
        rate_left: share of the rate that is left, 0 for a part that is down.
    """

    kind: str
    place: tuple[Annotated[int, Field(ge=0, lt=10**9)], ...]
    rate_left: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _read(cls, written: Any) -> Any:
        if isinstance(written, FaultSpec):
            return written
        match = _FAULT.fullmatch(written) if isinstance(written, str) else None
        kind = match[1] if match else ""
        place = tuple(int(number) for number in match[2].split(".")) if match else ()
        if match is None or len(place) != len(PLACES.get(kind, ())):
            raise SpecError(
                f"must be one of {_ALLOWED}, or that and =RATE_LEFT, got {shown(written)}"
            )
        return {"kind": kind, "place": place, "rate_left": _rate_left(match[3], written)}

    @model_serializer
    def _write(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """Return the fault as it is written."""
        place = ".".join(str(number) for number in self.place)
        rate = f"={self.rate_left!r}" if self.rate_left else ""
        return f"{self.kind}:{place}{rate}"


def check_faults(topology: Topology, faults: Iterable[FaultSpec]) -> None:
    """Refuse faults of what is not there.

    Raises:
        InfeasibleError: a fault is outside the cluster; it says what is in it.
    """
    clos = topology.clos
    sizes = {
        "node": topology.nodes,
        "port": topology.ports if topology.endpoints else 0,
        "plane": clos.planes,
        "leaf": clos.leaves,
        "spine": clos.spines + clos.cores,
        "aggregation": clos.spines if clos.pod.count else 0,
    }
    for fault in faults:
        sizes["uplink"] = (clos.pod if fault.kind == "core" else clos.leaf).count
        for name, number in zip(PLACES[fault.kind], fault.place, strict=True):
            if not sizes[name]:
                raise InfeasibleError(f"faults: no {name} in this cluster, got {fault}")
            if number >= sizes[name]:
                raise InfeasibleError(f"faults: {name} must be below {sizes[name]}, got {fault}")


def degraded(topology: Topology, faults: Iterable[FaultSpec]) -> Floats:
    """Return (directed_links,) bytes per second that faults leave; arguments as `rate_left`."""
    return rate_left(topology, faults) * topology.bytes_per_s


def rate_left(topology: Topology, faults: Iterable[FaultSpec]) -> Floats:
    """Return (directed_links,) shares of their rate that faults leave; of several the worst counts.

    Raises:
        InfeasibleError: a fault is outside the cluster.
    """
    faults = tuple(faults)
    check_faults(topology, faults)
    left = np.ones(topology.directed_links)
    for fault in faults:
        links = _links(topology, fault)
        left[links] = np.minimum(left[links], fault.rate_left)
    return left


def dead_nodes(faults: Iterable[FaultSpec]) -> frozenset[int]:
    """Return the nodes that are down, whose GPUs compute and send nothing."""
    return frozenset(f.place[0] for f in faults if f.kind == "node" and not f.rate_left)


def _links(topology: Topology, fault: FaultSpec) -> Ints:
    """Return the directed links a fault is about."""
    place = fault.place
    match fault.kind:
        case "node":
            ports = place[0] * topology.ports + np.arange(topology.ports)
            ports = ports[ports < topology.endpoints]
            return np.concatenate([topology.tx(ports), topology.rx(ports)])
        case "nic":
            port = place[0] * topology.ports + place[1]
            return np.array([topology.tx(port), topology.rx(port)])
        case "link":
            up = topology.uplink(place[0] * topology.clos.leaves + place[1], place[2])
            return np.array([up, up + topology.clos.leaf_links])
        case "core":
            up = topology.core_uplink(place[0] * topology.clos.spines + place[1], place[2])
            return np.array([up, up + topology.clos.pod_links])
        case "plane":
            broken = topology.endpoints + np.flatnonzero(topology.switch_plane == place[0])
        case "leaf":
            broken = np.array([topology.leaf_vertex(*place)])
        case _:
            broken = np.array([topology.spine_vertex(*place)])
    return np.flatnonzero(np.isin(topology.tail, broken) | np.isin(topology.head, broken))


def _rate_left(text: str | None, written: str) -> float:
    """Return the number behind `=`; 0 without one."""
    if text is None:
        return 0.0
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (rate == 0 or LEAST_SHARE <= rate < 1):
        raise SpecError(
            f"share left must be 0, or at least {LEAST_SHARE:g} and below 1, got {shown(written)}"
        )
    return rate
