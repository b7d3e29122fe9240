"""A collective in words and as JSON: time, bandwidths, byte bound, the busiest links."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from rich.console import Console

from hwmodels.arrays import Ints
from hwmodels.units import format_quantity
from simulator.network.expert_exchange import ExchangeRun
from simulator.network.links import Network
from simulator.network.run import CollectiveRun
from simulator.tell.link_load import LinkLoad
from simulator.tell.terminal import table

LINKS_SHOWN = 5
CONVENTIONS = (
    "sizes and bandwidths as in nccl-tests: algorithm bandwidth is size / time; bus bandwidth is "
    "that times 2(p-1)/p for all_reduce, (p-1)/p for all_gather, reduce_scatter and all_to_all, "
    "1 for broadcast and send_recv"
)


@dataclass(frozen=True, slots=True)
class BusyLinks:
    """Links that are equally busy.

    Attributes:
        link: the first of them.
        alike: how many there are.
        moved_bytes: over the first.
        load: share of the time that it is busy at its full rate.
    """

    link: str
    alike: int
    moved_bytes: float
    load: float


@dataclass(frozen=True)
class CollectiveRuns:
    """What ran.

    Attributes:
        runs: of each group; they ran at once.
        gpus: (groups, ranks) where ranks sat.
        placement: the same, in a word.
    """

    network: Network
    runs: tuple[CollectiveRun, ...]
    gpus: Ints
    placement: str

    @cached_property
    def last(self) -> CollectiveRun:
        """The group that ended last."""
        return max(self.runs, key=lambda run: run.time_s)

    @property
    def nodes(self) -> int:
        """Nodes that hold ranks of any group."""
        return len(np.unique(self.gpus // self.network.cluster.node.gpus))

    @property
    def crosses_switches(self) -> bool:
        """Whether any byte crosses a link between switches, so that routing matters."""
        ports = 2 * (self.network.gpus + self.network.topology.endpoints)
        return bool(self.last.link_bytes[ports:].any())

    @cached_property
    def busiest(self) -> list["BusyLinks"]:
        """The busiest links, those that are equally busy as one."""
        run = self.last
        busy_s = np.zeros(len(run.link_bytes))
        np.divide(run.link_bytes, self.network.bytes_per_s, out=busy_s, where=run.link_bytes > 0)
        share = np.round(busy_s / (run.time_s or 1.0), 6)
        shares, first, count = np.unique(share, return_index=True, return_counts=True)
        order = np.argsort(-shares)[:LINKS_SHOWN]
        return [
            BusyLinks(
                self.network.link_name(int(first[i])),
                int(count[i]),
                float(run.link_bytes[first[i]]),
                float(shares[i]),
            )
            for i in order.tolist()
            if shares[i] > 0
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return one JSON document."""
        run, cluster = self.last, self.network.cluster
        return {
            "kind": run.kind,
            "cluster": cluster.name,
            "ranks": run.ranks,
            "nodes": self.nodes,
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
            "group_time_s": [group.time_s for group in self.runs],
            "busiest_links": [
                {"link": b.link, "alike": b.alike, "bytes": b.moved_bytes, "load": b.load}
                for b in self.busiest
            ],
            "crosses_switches": self.crosses_switches,
            "basis": run.basis,
            "conventions": CONVENTIONS,
        }


def link_load(summary: CollectiveRuns) -> LinkLoad:
    """Return how busy each link was, for the picture of a cluster."""
    network, run = summary.network, summary.last
    rates = network.bytes_per_s * (run.time_s or 1.0)
    load = np.divide(run.link_bytes, rates, out=np.zeros(len(rates)), where=rates > 0)
    fabric = load[2 * network.gpus :]
    if network.routing == "adaptive":
        fabric = fabric[network.topology.bundle]
    nvlink = np.maximum(load[: network.gpus], load[network.gpus : 2 * network.gpus])
    return LinkLoad(_title(summary), fabric, nvlink)


def show_collective(console: Console, summary: CollectiveRuns) -> None:
    """Print one collective, or the slowest of several groups."""
    run, several = summary.last, len(summary.runs) > 1
    console.print(_title(summary), style="bold", markup=False, highlight=False)
    facts = table("", "", "")
    if several:
        first_s = min(group.time_s for group in summary.runs)
        facts.add_row("time of the first group", format_quantity(first_s, "s"))
    facts.add_row("time of the last group" if several else "time", format_quantity(run.time_s, "s"))
    facts.add_row("  launch and steps", format_quantity(run.fixed_s, "s"))
    facts.add_row("  bytes on links", format_quantity(run.wire_s, "s"))
    taken = run.algorithm + (f", {run.protocol}" if run.protocol else "")
    facts.add_row("algorithm", taken if run.ranks > 1 else "nothing to send")
    facts.add_row("algorithm bandwidth", format_quantity(run.algbw_bytes_per_s, "B/s"))
    facts.add_row("bus bandwidth", format_quantity(run.busbw_bytes_per_s, "B/s"))
    bound = "byte bound of one group alone" if several else "byte bound"
    facts.add_row(bound, format_quantity(run.bound_s, "s"))
    facts.add_row("time / bound", f"{_ratio(run):.3f}")
    if not summary.crosses_switches:
        facts.add_row("links between switches", "none used: routing does not matter")
    console.print(facts, highlight=False)
    if summary.busiest:
        links = table("busiest links", "", "bytes of each", "busy")
        for busy in summary.busiest:
            alike = f" and {busy.alike - 1:,} alike" if busy.alike > 1 else ""
            moved = format_quantity(busy.moved_bytes, "B")
            links.add_row(busy.link + alike, moved, f"{busy.load:.1%} of the time")
        console.print(links, highlight=False)
    console.print(run.basis, highlight=False)
    console.print(CONVENTIONS, highlight=False)


def _title(summary: CollectiveRuns) -> str:
    run, network = summary.last, summary.network
    several = f"{len(summary.runs)} groups of " if len(summary.runs) > 1 else ""
    nodes = f"{summary.nodes} node" + ("s" if summary.nodes > 1 else "")
    faults = ", ".join(str(fault) for fault in network.cluster.faults)
    return (
        f"{run.kind} of {format_quantity(run.size_bytes, 'B')}, {several}{run.ranks} ranks on "
        f"{nodes} of {network.cluster.name}, {summary.placement}, {network.routing} routing"
        + (f", faults {faults}" if faults else "")
    )


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
