"""What `moesim show cluster` tells of a network, and changes of presets on the command line."""

import json

import pytest
from click.testing import CliRunner

from hwmodels.cluster import CLUSTERS
from hwmodels.errors import InfeasibleError
from hwmodels.prices import PRICES, PriceSpec, network_usd, power_w
from simulator.cli import moesim
from simulator.tell.network import network_facts

PRICE = PRICES.load("isca25-table3")


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(moesim, ["show", *arguments])
    assert result.exit_code == 0, result.exception
    return result.output


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(moesim, ["show", *arguments])
    assert result.exception.exit_code == 2  # type: ignore[union-attr]
    return str(result.exception)


def test_facts_of_eight_planes_by_hand() -> None:
    facts = network_facts(CLUSTERS.load("h800-2048-mpft"), PRICE)
    assert (facts["endpoints"], facts["switches"], facts["links"]) == (2048, 96, 2048)
    assert facts["diameter_switches"] == 3
    assert facts["bisection_bytes_per_s"] == pytest.approx(1024 * 50e9)
    assert facts["scale_up_bisection_bytes_per_s"] == pytest.approx(4 * 200e9)
    assert facts["cost_usd"] == 96 * PRICE.switch_usd + 2048 * PRICE.link_usd


def test_power_of_a_cluster_is_that_of_its_gpus_and_its_fabric() -> None:
    """2,048 GPUs of 700 W; 96 switches of 747 W and 2,048 links of 17 W."""
    power = power_w(CLUSTERS.load("h800-2048-mpft"), PRICE)
    assert power.gpus_w == 2048 * 700
    assert power.network_w == 96 * 747 + 2048 * 17
    assert power.total_w == power.gpus_w + power.network_w


def test_price_and_power_of_a_cluster_are_those_that_show_tells() -> None:
    cluster = CLUSTERS.load("h800-2048-mpft")
    facts = network_facts(cluster, PRICE)
    assert facts["cost_usd"] == network_usd(cluster, PRICE)
    assert facts["power_w"] == power_w(cluster, PRICE).network_w


def test_a_cluster_without_a_fabric_pays_for_none_and_draws_for_none() -> None:
    unpowered = PriceSpec(name="p", switch_usd=1, link_usd=1)
    rack = CLUSTERS.load("gb200-nvl72")
    assert network_usd(rack, unpowered) == 0
    assert power_w(rack, unpowered) == (72 * 1200, 0)
    with pytest.raises(InfeasibleError, match="price p: switch_w and link_w must be given"):
        power_w(CLUSTERS.load("h800-2048-mpft"), unpowered)


def test_what_is_not_known_is_not_told() -> None:
    unpowered = PriceSpec(name="p", switch_usd=1, link_usd=1)
    facts = network_facts(CLUSTERS.load("h800-261632-dragonfly"), unpowered)
    assert facts["bisection_bytes_per_s"] is None
    assert facts["power_w"] is None
    assert facts["cost_usd"] == 16_352 + 384_272
    assert "not known" in shown("cluster", "h800-261632-dragonfly")


def test_an_nvlink_domain_has_no_fabric() -> None:
    text = shown("cluster", "gb200-nvl72")
    assert "none" in text
    assert "USD" not in text


def test_a_larger_network_is_one_change_away() -> None:
    changed = json.loads(
        shown("cluster", "h800-2048-mpft", "--set", "cluster.nodes=2048", "--json")
    )
    assert changed["network"]["endpoints"] == 16_384
    assert changed["network"]["switches"] == 768
    assert changed["values"]["nodes"] == 2048
    assert changed["sources"]["nodes"]["text"].startswith("--set cluster.nodes=2048 (was: DeepSeek")
    assert (
        json.loads(shown("node", "h800x8", "--set", "node.nics=4", "--json"))["values"]["nics"] == 4
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("cluster", "h800-2048-mpft", "--set", "fabric.planes=4"),
            "--set 'fabric.planes=4': KEY must begin with 'cluster.', got 'fabric.planes'",
        ),
        (
            ("chip", "h800", "--prices", "isca25-table3"),
            "--prices: is about the network of a cluster, got a chip",
        ),
        (
            ("cluster", "h800-2048-mpft", "--prices", "free"),
            "price 'free': unknown preset; known: isca25-table3",
        ),
    ],
)
def test_wrong_changes_are_refused(arguments: tuple[str, ...], message: str) -> None:
    assert refused(*arguments) == message
