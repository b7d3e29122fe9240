"""What a point costs: dollars of network and GPUs, watts, and tokens for each."""

from functools import lru_cache

from hwmodels.errors import InputError
from hwmodels.fabrics import FabricSpec
from hwmodels.prices import PRICES
from simulator.experiment import Experiment
from simulator.tell.headlines import Headline

LIST = "isca25-table3"
"""Prices of switches and links (ISCA'25 Table 3)."""

SECONDS_PER_HOUR = 3600.0

COLUMNS = (
    Headline("network_usd", "price of the network", "USD", "less"),
    Headline("network_usd_per_gpu", "price of the network, a GPU", "USD/GPU", "less"),
    Headline("power_w", "power of GPUs and network", "watts", "less"),
    Headline("tokens_per_joule", "tokens per joule", "tokens/J", "more"),
    Headline("tokens_per_usd", "tokens per dollar", "tokens/USD", "more"),
)
"""`power_w` counts GPUs at their TDP and what the network is known to take, no hosts."""


def economics(
    experiment: Experiment, tokens_per_s_per_gpu: float, usd_per_gpu_hour: float | None
) -> dict[str, float]:
    """Return the numbers of `COLUMNS` that are known; of all the cluster's GPUs, idle or not."""
    cluster = experiment.cluster
    tokens_per_s = tokens_per_s_per_gpu * experiment.gpus
    network_usd, network_w = _network(cluster.fabric, cluster.endpoints)
    found: dict[str, float] = {}
    if network_usd is not None:
        found |= {"network_usd": network_usd, "network_usd_per_gpu": network_usd / cluster.gpus}
    if network_w is not None:
        found["power_w"] = network_w + cluster.gpus * cluster.node.chip.tdp_w
        found["tokens_per_joule"] = tokens_per_s / found["power_w"]
    if usd_per_gpu_hour is not None:
        usd_per_s = cluster.gpus * usd_per_gpu_hour / SECONDS_PER_HOUR
        found["tokens_per_usd"] = tokens_per_s / usd_per_s
    return found


@lru_cache(maxsize=512)
def _network(fabric: FabricSpec, endpoints: int) -> tuple[float | None, float | None]:
    """Return dollars and watts of a fabric; none of what is not in the list or not counted."""
    prices = PRICES.load(LIST)
    try:
        counts = fabric.counts(endpoints)
    except InputError:
        return None, None
    powered = prices.switch_w is not None and prices.link_w is not None
    return prices.cost_usd(counts), prices.power_w(counts) if powered else None
