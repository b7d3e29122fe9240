"""The ways to do a collective: algorithms, at the rates and latencies a library has for them.

Without a library links run at their datasheet rates, a step inside a node takes the node's NVLink
latency, one between nodes the fabric's through the switches it passes, and nothing else does. A
library names its protocols, each with an algorithm, or at least the rates it achieves.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hwmodels.cluster import ClusterSpec
from hwmodels.costs.protocol import own_bytes, protocol_fixed_s
from hwmodels.errors import OutOfRangeError
from hwmodels.library import LibrarySpec
from hwmodels.protocols import Protocol
from simulator.network.collectives import algorithms_tried
from simulator.network.collectives.plan import Plan
from simulator.network.placement import Group


@dataclass(frozen=True, slots=True)
class Way:
    """One way to do a collective: an algorithm, and the shares of their rates that links reach."""

    algorithm: str
    protocol: Protocol | None = None
    nvlink_efficiency: float = 1.0
    nic_efficiency: float = 1.0


def ways(
    kind: str, groups: tuple[Group, ...], library: LibrarySpec | None, algorithm: str
) -> Iterator[Way]:
    """Yield all ways in which groups may do a collective at once, all of them alike.

    Args:
        algorithm: the one to take, or `auto`.

    Raises:
        OutOfRangeError: the library says nothing about such a collective.
    """
    if library is not None and kind in library.protocols:
        yield from _protocol_ways(kind, _across(groups), library, algorithm)
        return
    efficiencies = plain_efficiencies(library, kind, groups)
    tried: tuple[str, ...] = (algorithm,)
    if algorithm == "auto":
        by_group = [algorithms_tried(kind, group) for group in groups]
        tried = tuple(name for name in by_group[0] if all(name in names for names in by_group))
    yield from (Way(name, None, *efficiencies) for name in tried)


def _protocol_ways(kind: str, across: bool, library: LibrarySpec, algorithm: str) -> Iterator[Way]:
    """Yield the protocols a library has, where it was measured.

    That it lets NVLink's switch reduce says nothing about the fabric's.
    """
    found = False
    for protocol in library.protocols[kind]:
        name, nic = protocol.algorithm, protocol.nic_efficiency
        unasked = algorithm == "auto" and (name == ("in-network" if across else "hierarchical"))
        if algorithm not in ("auto", name) or unasked or (across and nic is None):
            continue
        found = True
        yield Way(name, protocol, protocol.nvlink_efficiency, nic or 1.0)
    if not found:
        where = "between nodes" if across else "inside a node"
        what = kind if algorithm == "auto" else f"{kind} by {algorithm}"
        raise OutOfRangeError(f"library {library.name}: no {what} {where} was measured")


def plain_efficiencies(
    library: LibrarySpec | None, kind: str, groups: tuple[Group, ...]
) -> tuple[float, float]:
    """Return the shares of NVLink's and NICs' rates that are reached without protocols.

    Raises:
        OutOfRangeError: the library says nothing about them.
    """
    return (1.0, 1.0) if library is None else _efficiencies(library, kind, _across(groups))


def _across(groups: tuple[Group, ...]) -> bool:
    return any(len(group.nodes) > 1 for group in groups)


def _efficiencies(library: LibrarySpec, kind: str, across: bool) -> tuple[float, float]:
    """Return the shares of NVLink's and NICs' rates that plain messages reach."""
    nvlink, nic = library.nvlink_bytes_per_s, library.message_nic_bytes_per_s
    if nvlink is None or library.link_nvlink_bytes_per_s is None:
        known = ", ".join(sorted(library.protocols)) or "none"
        raise OutOfRangeError(
            f"library {library.name}: no collective {kind!r} and no nvlink_bytes_per_s; "
            f"it has {known}"
        )
    if not across:
        return nvlink / library.link_nvlink_bytes_per_s, 1.0
    if nic is None or library.link_nic_bytes_per_s is None:
        raise OutOfRangeError(
            f"library {library.name}: message_nic_bytes_per_s is needed between nodes, got none"
        )
    return nvlink / library.link_nvlink_bytes_per_s, nic / library.link_nic_bytes_per_s


def fixed_s(
    way: Way, kind: str, size_bytes: float, group: Group, plan: Plan, cluster: ClusterSpec
) -> float:
    """Return launch and steps, seconds; nothing for one rank."""
    if len(group) == 1:
        return 0.0
    protocol = way.protocol
    hop_s = float(cluster.fabric.latency_s(plan.switches)) if plan.fabric_steps else 0.0
    if protocol is None:
        return plan.in_node_steps * cluster.node.scale_up.latency_s + plan.fabric_steps * hop_s
    kept_bytes = own_bytes(kind, len(group), size_bytes)
    inside_s = float(protocol_fixed_s(protocol, plan.in_node_messages, kept_bytes))
    if protocol.hop_s is not None:
        return inside_s + plan.fabric_messages * protocol.hop_s
    return inside_s + plan.fabric_steps * hop_s


def basis(library: LibrarySpec | None, way: Way, group: Group) -> str:
    """Say what rates and latencies rest on."""
    if library is None:
        return "datasheet rates of the links, latencies of node and fabric; no library's overhead"
    name = f"library {library.name} {library.version}"
    if way.protocol is None:
        return f"rates of {name}, latencies of node and fabric"
    if len(group.nodes) > 1 and way.protocol.hop_s is None:
        return f"protocols of {name}, latency of the fabric between nodes"
    return f"protocols of {name}"
