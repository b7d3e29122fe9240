"""A collective in words and as JSON: time, bandwidths, byte bound, the busiest links."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from rich.console import Console

from hwmodels.units import format_quantity
from simulator.network.expert_exchange import ExchangeRun
from simulator.network.links import Network
from simulator.network.run import CollectiveRun
from simulator.tell.summary import table
from simulator.tell.topology import LinkLoad

LINKS_SHOWN = 5
CONVENTIONS = (
    "sizes and bandwidths as in nccl-tests: algorithm bandwidth is size / time; bus bandwidth is "
    "that times 2(p-1)/p for all_reduce, (p-1)/p for all_gather, reduce_scatter and all_to_all, "
    "1 for broadcast and send_recv"
)


@dataclass(frozen=True)
class Told:
    """What ran.

    Attributes:
        runs: of each group; they ran at once.
        placement: of their ranks, in a word.
    """

    network: Network
    runs: tuple[CollectiveRun, ...]
    placement: str

    @cached_property
    def last(self) -> CollectiveRun:
        """The group that ended last."""
        return max(self.runs, key=lambda run: run.time_s)

    @cached_property
    def busiest(self) -> list[tuple[str, float, float]]:
        """(name, bytes, share of the time) of the busiest links."""
        return self.last.busiest(self.network, LINKS_SHOWN)

    def as_dict(self) -> dict[str, Any]:
        """Return one JSON document."""
        run, cluster = self.last, self.network.cluster
        return {
            "kind": run.kind,
            "cluster": cluster.name,
            "ranks": run.ranks,
            "nodes": run.nodes,
            "groups": len(self.runs),
            "placement": self.placement,
            "routing": self.network.routing,
            "seed": self.network.seed,
            "faults": [str(fault) for fault in cluster.faults],
            "size_bytes": run.size_bytes,
            "algorithm": run.algorithm,
            "protocol": run.protocol,
            "time_s": run.time_s,
            "fixed_s": run.fixed_s,
            "wire_s": run.wire_s,
            "algbw_bytes_per_s": run.algbw_bytes_per_s,
            "busbw_bytes_per_s": run.busbw_bytes_per_s,
            "bound_s": run.bound_s,
            "time_over_bound": _ratio(run),
            "group_time_s": [each.time_s for each in self.runs],
            "busiest_links": [
                {"link": name, "bytes": moved, "load": load} for name, moved, load in self.busiest
            ],
            "basis": run.basis,
            "conventions": CONVENTIONS,
        }


def link_load(told: Told) -> LinkLoad:
    """Return how busy each link was, for the picture of a cluster."""
    network, run = told.network, told.last
    rates = network.bytes_per_s * (run.time_s or 1.0)
    load = np.divide(run.link_bytes, rates, out=np.zeros(len(rates)), where=rates > 0)
    fabric = load[2 * network.gpus :]
    if network.routing == "adaptive":
        fabric = fabric[network.topology.bundle]
    nvlink = np.maximum(load[: network.gpus], load[network.gpus : 2 * network.gpus])
    size = format_quantity(run.size_bytes, "B")
    return LinkLoad(f"{run.kind} of {size}, {run.ranks} ranks", fabric, nvlink)


def show_collective(console: Console, told: Told) -> None:
    """Print one collective, or the slowest of several groups."""
    run, network = told.last, told.network
    many = f"{len(told.runs)} groups of " if len(told.runs) > 1 else ""
    title = (
        f"{run.kind} of {format_quantity(run.size_bytes, 'B')}, {many}{run.ranks} ranks on "
        f"{run.nodes} nodes of {network.cluster.name}, {told.placement}, {network.routing} routing"
    )
    console.print(title, style="bold", markup=False, highlight=False)
    facts = table("", "", "")
    if len(told.runs) > 1:
        first_s = min(each.time_s for each in told.runs)
        facts.add_row("time of the first group", format_quantity(first_s, "s"))
    facts.add_row("time of the last group" if many else "time", format_quantity(run.time_s, "s"))
    facts.add_row("of it launch and steps", format_quantity(run.fixed_s, "s"))
    taken = run.algorithm + (f", {run.protocol}" if run.protocol else "")
    facts.add_row("algorithm", taken if run.ranks > 1 else "nothing to send")
    facts.add_row("algorithm bandwidth", format_quantity(run.algbw_bytes_per_s, "B/s"))
    facts.add_row("bus bandwidth", format_quantity(run.busbw_bytes_per_s, "B/s"))
    facts.add_row("byte bound", format_quantity(run.bound_s, "s"))
    facts.add_row("time / bound", f"{_ratio(run):.3f}")
    console.print(facts, highlight=False)
    if told.busiest:
        links = table("busiest links", "", "bytes", "load at full rate")
        for name, moved, load in told.busiest:
            links.add_row(name, format_quantity(moved, "B"), f"{load:.1%}")
        console.print(links, highlight=False)
    console.print(run.basis, highlight=False)
    console.print(CONVENTIONS, highlight=False)


def show_exchange(console: Console, title: str, run: ExchangeRun) -> None:
    """Print one dispatch or combine."""
    console.print(title, style="bold", markup=False, highlight=False)
    facts = table("", "", "")
    facts.add_row("time", format_quantity(run.time_s, "s"))
    logical = format_quantity(run.logical_bytes_per_s, "B/s")
    facts.add_row("logical bandwidth, as DeepEP has it", logical)
    facts.add_row("busiest NIC", format_quantity(run.nic_bytes, "B"))
    facts.add_row("busiest NVLink", format_quantity(run.nvlink_bytes, "B"))
    facts.add_row("byte bound", format_quantity(run.bound_s, "s"))
    facts.add_row("decided by", run.slowest)
    console.print(facts, highlight=False)
    console.print(run.basis, highlight=False)


def _ratio(run: CollectiveRun) -> float:
    """Time over bound; 1 where both are nothing."""
    return run.time_s / run.bound_s if run.bound_s else 1.0
