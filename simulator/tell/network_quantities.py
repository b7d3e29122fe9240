"""Published figures of the network: what DeepEP reports of its expert exchange."""

from collections.abc import Callable

from hwmodels.cluster import CLUSTERS
from hwmodels.costs.exchange import Direction
from hwmodels.library import LIBRARIES
from simulator.network.moe_exchange import ExpertTraffic, moe_exchange


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
    traffic = ExpertTraffic(ranks=ranks, tokens=128, hidden=7168, experts=288)
    where = CLUSTERS.load(cluster), LIBRARIES.load(library)
    run = moe_exchange(direction, "low-latency", traffic, *where, over_nvlink=over_nvlink)
    return run.time_s


NETWORK_QUANTITIES: tuple[Callable[..., float], ...] = (deepep_bytes_per_s, deepep_low_latency_s)
