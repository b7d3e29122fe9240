"""Published figures of networks: their parts and price, how far apart GPUs are, and how fast."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from hwmodels.cluster import CLUSTERS
from hwmodels.costs.exchange import Direction
from hwmodels.errors import SpecError
from hwmodels.library import LIBRARIES
from hwmodels.prices import PRICES, fabric_cost_usd
from simulator.network.links import Network
from simulator.network.moe_exchange import BENCHMARK_EXPERTS, ExpertTraffic, moe_exchange
from simulator.network.placement import packed
from simulator.network.run import run_collective


def fabric_count(_: object, *, cluster: str, count: str) -> float:
    """Endpoints, switches or links of a cluster's fabric, all its places taken."""
    fabric = CLUSTERS.load(cluster).fabric
    return float(getattr(fabric.counts(fabric.endpoints_max), count))


def fabric_price_usd(_: object, *, cluster: str, prices: str) -> float:
    """Price of a cluster's fabric, all its places taken."""
    fabric = CLUSTERS.load(cluster).fabric
    return fabric_cost_usd(fabric, fabric.endpoints_max, PRICES.load(prices))


def message_latency_s(
    _: object, *, cluster: str, leaves: Literal["same-leaf", "cross-leaf"]
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
    _: object, *, kind: str, ranks: int, size_bytes: float, cluster: str, library: str
) -> float:
    """Algorithm bandwidth (nccl-tests) of a collective of the first GPUs of a cluster."""
    spec = CLUSTERS.load(cluster)
    group = packed(spec, ranks)[0]
    played = run_collective(kind, size_bytes, group, Network.of(spec), LIBRARIES.load(library))
    return played.algbw_bytes_per_s


def deepep_bytes_per_s(
    _: object, *, direction: Direction, ranks: int, library: str, cluster: str, sms: int = 24
) -> float:
    """Logical bandwidth of normal mode in DeepEP's own test.

    4,096 tokens of 7,168 elements, eight of 256 experts on at most four nodes. Counted are a
    token's distinct nodes, its own included, or distinct GPUs inside one node.
    """
    traffic = ExpertTraffic(ranks=ranks, tokens=4096, hidden=7168, routed_nodes_max=4)
    where = CLUSTERS.load(cluster), LIBRARIES.load(library)
    return moe_exchange(direction, "normal", traffic, *where, sms=sms).logical_bytes_per_s


def deepep_low_latency_s(
    _: object, *, direction: Direction, ranks: int, library: str, cluster: str, over_nvlink: bool
) -> float:
    """Seconds of low-latency mode in DeepEP's own test: 128 tokens, eight of 288 experts."""
    moe = BENCHMARK_EXPERTS.model_copy(update={"routed_experts": 288})
    traffic = ExpertTraffic(ranks=ranks, tokens=128, hidden=7168, moe=moe)
    where = CLUSTERS.load(cluster), LIBRARIES.load(library)
    run = moe_exchange(direction, "low-latency", traffic, *where, over_nvlink=over_nvlink)
    return run.time_s


NETWORK_QUANTITIES: tuple[Callable[..., float], ...] = (
    fabric_count,
    fabric_price_usd,
    message_latency_s,
    collective_bytes_per_s,
    deepep_bytes_per_s,
    deepep_low_latency_s,
)
