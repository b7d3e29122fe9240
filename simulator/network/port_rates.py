"""What one GPU's NIC and NVLink reach in an expert exchange, and how long an empty one takes."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hwmodels.cluster import ClusterSpec
from hwmodels.costs.exchange import Direction, ExchangeParameters
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics.topology import Topology
from hwmodels.library import LibrarySpec


@dataclass(frozen=True, slots=True)
class PortRates:
    """What one GPU's ports reach, one direction, and the time of an exchange of nothing."""

    nic_bytes_per_s: float
    nvlink_bytes_per_s: float
    latency_s: float
    basis: str


def datasheet_rates(cluster: ClusterSpec, latency_s: float) -> PortRates:
    """Return the datasheet rates of one GPU's ports."""
    node = cluster.node
    nic, nvlink = node.scale_out_bytes_per_s_per_gpu, node.chip.nvlink_bytes_per_s
    return PortRates(nic, nvlink, latency_s, "datasheet rates of the links")


def forwarded_latency_s(cluster: ClusterSpec, nodes: int, topology: Topology) -> float:
    """Return the latency of copies among the first `nodes` nodes that arrive over NVLink.

    Between nodes the fabric's, by as many switches as lie between ports of the same place, and
    NVLink's after it; inside one node NVLink's.
    """
    nvlink_s = cluster.node.scale_up.latency_s
    if nodes == 1:
        return nvlink_s
    passed = _switches_passed(topology, nodes, cluster.node.ports)
    return float(cluster.fabric.latency_s(passed)) + nvlink_s * (cluster.node.gpus > 1)


@lru_cache(maxsize=64)
def _switches_passed(topology: Topology, nodes: int, ports: int) -> int:
    """Return the switches between the ports of the same place of the first nodes, at most."""
    port = np.arange(nodes * ports).reshape(nodes, ports)
    # As in any tree the farthest pair is as far as the farthest from one of them.
    return int(topology.switches_passed(port[0], port).max())


def straight_latency_s(cluster: ClusterSpec, nodes: int, by_nics: bool) -> float:
    """Return the latency of copies that take NICs alone where those are joined, else NVLink too.

    Args:
        by_nics: whether any copy takes a NIC.
    """
    nvlink_s = cluster.node.scale_up.latency_s
    if not by_nics:
        return nvlink_s
    topology, ports = cluster.topology(), _ports(cluster, nodes).ravel()
    planes, first, plane = np.unique(
        topology.plane_of[ports], return_index=True, return_inverse=True
    )
    passed = topology.switches_passed(ports[first][plane], ports).max()
    nics_s = float(cluster.fabric.latency_s(passed))
    if nodes > 1 and planes.size > 1:
        return max(nics_s, forwarded_latency_s(cluster, nodes, topology))
    return max(nics_s, nvlink_s)


def longest_latency_s(cluster: ClusterSpec, between_nodes: bool, topology: Topology) -> float:
    """Return the latency that libraries without a measured one are given: NVLink's or the fabric's.

    Of the fabric the longest way, whichever nodes take part.
    """
    if not between_nodes:
        return cluster.node.scale_up.latency_s
    return float(cluster.fabric.latency_s(topology.diameter))


def exchange_rates(
    direction: Direction,
    nodes: int,
    cluster: ClusterSpec,
    library: LibrarySpec | None,
    sms: int,
    topology: Topology,
) -> PortRates:
    """Return what ports reach in normal mode with `sms` SMs, on the links of `cluster`.

    An engine in place of SMs (`ChipSpec.exchange_engine`) keeps links as busy as enough SMs do;
    what links reach at best, and how long ranks wait for each other, stays.

    Args:
        nodes: of the group.
        topology: how the fabric of the cluster is wired.

    Raises:
        InfeasibleError: the library has no exchange, or none between nodes.
    """
    if library is None:
        return datasheet_rates(cluster, forwarded_latency_s(cluster, nodes, topology))
    exchange = library.exchange
    if exchange is None:
        raise InfeasibleError(f"library {library.name}: has no exchange in normal mode")
    share = 1.0
    if exchange.saturating_sms is not None and not cluster.node.chip.exchange_engine:
        share = min(1.0, sms / exchange.saturating_sms)
    spans = nodes > 1
    nic_scale, nvlink_scale = link_scales(library, cluster, spans)
    nvlink = exchange.nvlink_bytes_per_s
    nic = cluster.node.scale_out_bytes_per_s_per_gpu  # which nothing meets inside one node
    if spans:
        nic, nvlink = _rates_between(exchange, direction, nodes, library.name)
    return PortRates(
        nic * nic_scale * share,
        nvlink * nvlink_scale * share,
        longest_latency_s(cluster, spans, topology) + float(exchange.notify_s(direction, nodes)),
        f"library {library.name}",
    )


def _rates_between(
    exchange: ExchangeParameters, direction: Direction, nodes: int, name: str
) -> tuple[float, float]:
    nic = exchange.nic_bytes_per_s(direction, nodes)
    nvlink = exchange.forwarding_nvlink_bytes_per_s
    if nic is None or nvlink is None:
        raise InfeasibleError(f"library {name}: its exchange was measured inside one node only")
    return float(nic), nvlink


def link_scales(library: LibrarySpec, cluster: ClusterSpec, spans: bool) -> tuple[float, float]:
    """Return links here / links the library was measured on, NIC and NVLink.

    Raises:
        InfeasibleError: it was measured on none such.
    """
    nvlink, nic = library.link_nvlink_bytes_per_s, library.link_nic_bytes_per_s
    if nvlink is None or (spans and nic is None):
        raise InfeasibleError(
            f"library {library.name}: must have rates {'between nodes' if nvlink else 'of NVLink'} "
            f"for such a group, got none measured"
        )
    node = cluster.node
    scale = node.scale_out_bytes_per_s_per_gpu / nic if spans and nic is not None else 1.0
    return scale, node.chip.nvlink_bytes_per_s / nvlink


def _ports(cluster: ClusterSpec, nodes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return (nodes, ports of a node) the fabric's endpoints of the first nodes."""
    return np.arange(nodes * cluster.node.ports).reshape(nodes, cluster.node.ports)
