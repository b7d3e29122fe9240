"""Published figures of networks: what they are made of, what they cost, how far apart GPUs are."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwmodels.cluster import CLUSTERS
from hwmodels.errors import SpecError
from hwmodels.library import LIBRARIES
from hwmodels.prices import PRICES, fabric_cost_usd
from simulator.network.links import Network
from simulator.network.placement import packed
from simulator.network.run import run_collective

if TYPE_CHECKING:
    from simulator.tell.quantities import Bench


def fabric_count(_: "Bench", *, cluster: str, count: str) -> float:
    """Endpoints, switches or links of a cluster's fabric, all its places taken."""
    fabric = CLUSTERS.load(cluster).fabric
    return float(getattr(fabric.counts(fabric.endpoints_max), count))


def fabric_price_usd(_: "Bench", *, cluster: str, prices: str) -> float:
    """Price of a cluster's fabric, all its places taken."""
    fabric = CLUSTERS.load(cluster).fabric
    return fabric_cost_usd(fabric, fabric.endpoints_max, PRICES.load(prices))


def message_latency_s(
    _: "Bench", *, cluster: str, leaves: Literal["same-leaf", "cross-leaf"]
) -> float:
    """A small message from the first NIC port to the nearest of its plane so far away.

    Raises:
        SpecError: no two ports are.
    """
    spec = CLUSTERS.load(cluster)
    topology = spec.topology()
    other = np.arange(1, topology.endpoints)
    passed = topology.switches_passed(0, other)
    reached = topology.connected(0, other) & ((passed == 1) == (leaves == "same-leaf"))
    if not reached.any():
        raise SpecError(f"{cluster}: no other port is {leaves} and reached")
    return float(spec.fabric.latency_s(passed[reached].min()))


def collective_bytes_per_s(
    _: "Bench", *, kind: str, ranks: int, size_bytes: float, cluster: str, library: str
) -> float:
    """Algorithm bandwidth (nccl-tests) of a collective of the first GPUs of a cluster."""
    spec = CLUSTERS.load(cluster)
    group = packed(spec, ranks)[0]
    played = run_collective(kind, size_bytes, group, Network.of(spec), LIBRARIES.load(library))
    return played.algbw_bytes_per_s


FABRIC_QUANTITIES: tuple[Callable[..., float], ...] = (
    fabric_count,
    fabric_price_usd,
    message_latency_s,
    collective_bytes_per_s,
)
