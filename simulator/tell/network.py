"""What the network of a cluster is made of: counts, reach, bisection, price, power."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from hwmodels.cluster import ClusterSpec
from hwmodels.errors import InfeasibleError
from hwmodels.prices import PriceSpec, network_usd, power_w
from hwmodels.units import format_quantity
from simulator.tell.terminal import table


def network_facts(cluster: ClusterSpec, prices: PriceSpec) -> dict[str, Any]:
    """Return facts of a cluster's scale-out network; None where they are not known.

    `links` are those between switches; price and power are of switches and these links, without
    NICs and the cables to them. `diameter_switches` are passed on the longest way, and
    `bisection_bytes_per_s` crosses the worst halving of the ports, one direction; `scale_up_links`
    are NVLinks of one GPU.
    """
    counts, node = cluster.fabric_counts, cluster.node
    scale_up = node.scale_up_topology()
    try:
        bisection = cluster.topology().bisection_bytes_per_s
    except InfeasibleError:  # counted, not routed
        bisection = None
    powered = prices.switch_w is not None and prices.link_w is not None
    return {
        "scale_up_gpus": node.gpus,
        "scale_up_links": node.scale_up_links,
        "scale_up_switches": scale_up.switches,
        "scale_up_bisection_bytes_per_s": scale_up.bisection_bytes_per_s,
        "endpoints": counts.endpoints,
        "switches": counts.switches,
        "links": counts.links,
        "diameter_switches": cluster.fabric.diameter(counts.endpoints),
        "bisection_bytes_per_s": bisection,
        "prices": prices.name,
        "cost_usd": network_usd(cluster, prices),
        "cost_usd_per_gpu": network_usd(cluster, prices) / cluster.gpus,
        "power_w": power_w(cluster, prices).network_w if powered else None,
    }


def show_network(console: Console, cluster: ClusterSpec, prices: PriceSpec) -> None:
    """Print those facts."""
    facts = network_facts(cluster, prices)
    grid = table(f"network of {cluster.gpus:,} GPUs", "", "")
    bisection = format_quantity(facts["scale_up_bisection_bytes_per_s"], "B/s")
    grid.add_row("GPUs joined by NVLink", str(facts["scale_up_gpus"]))
    grid.add_row("NVLinks of each", str(facts["scale_up_links"]))
    grid.add_row("switches that join them", str(facts["scale_up_switches"]))
    grid.add_row("their bisection, one direction", bisection)
    if facts["endpoints"]:
        _show_fabric(grid, facts)
    else:
        grid.add_row("NIC ports on a fabric", "none")
    console.print(grid, highlight=False)


def _show_fabric(grid: Table, facts: Mapping[str, Any]) -> None:
    def quantity(name: str, unit: str) -> str:
        return "not known" if facts[name] is None else format_quantity(facts[name], unit)

    grid.add_row("NIC ports on the fabric", f"{facts['endpoints']:,}")
    grid.add_row("switches", f"{facts['switches']:,}")
    grid.add_row("links between switches", f"{facts['links']:,}")
    grid.add_row("switches on the longest way", str(facts["diameter_switches"]))
    grid.add_row("bisection, one direction", quantity("bisection_bytes_per_s", "B/s"))
    grid.add_row("power of switches and links", quantity("power_w", "W"))
    grid.add_row(f"price of both ({facts['prices']})", f"{facts['cost_usd'] / 1e6:,.2f} M USD")
    grid.add_row("price for each GPU", f"{facts['cost_usd_per_gpu']:,.0f} USD")
