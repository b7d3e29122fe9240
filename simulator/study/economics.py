"""What a point costs: dollars of network and GPUs, watts, and tokens for each."""

from functools import cache

from hwmodels.prices import PRICES, PriceSpec, network_usd, power_w
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
    """Return the numbers of `COLUMNS`, per dollar only where a GPU's price is given; of all the
    cluster's GPUs, idle or not.
    """
    cluster, prices = experiment.cluster, _prices()
    tokens_per_s = tokens_per_s_per_gpu * experiment.gpus
    usd, watts = network_usd(cluster, prices), power_w(cluster, prices).total_w
    found = {
        "network_usd": usd,
        "network_usd_per_gpu": usd / cluster.gpus,
        "power_w": watts,
        "tokens_per_joule": tokens_per_s / watts,
    }
    if usd_per_gpu_hour is not None:
        usd_per_s = cluster.gpus * usd_per_gpu_hour / SECONDS_PER_HOUR
        found["tokens_per_usd"] = tokens_per_s / usd_per_s
    return found


@cache
def _prices() -> PriceSpec:
    return PRICES.load(LIST)
