"""What one GPU's NIC and NVLink reach in an expert exchange, and how long an empty one takes."""

from dataclasses import dataclass

import numpy as np

from hwmodels.cluster import ClusterSpec
from hwmodels.errors import InfeasibleError
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


def forwarded_latency_s(cluster: ClusterSpec, nodes: int) -> float:
    """Return the latency of copies among the first `nodes` nodes that arrive over NVLink.

    Between nodes the fabric's, by as many switches as lie between ports of the same place, and
    NVLink's after it; inside one node NVLink's.
    """
    nvlink_s = cluster.node.scale_up.latency_s
    if nodes == 1:
        return nvlink_s
    topology = cluster.topology()
    ports = _ports(cluster, nodes)
    # As in any tree the farthest pair is as far as the farthest from one of them.
    passed = topology.switches_passed(ports[0], ports).max()
    return float(cluster.fabric.latency_s(passed)) + nvlink_s * (cluster.node.gpus > 1)


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
        return max(nics_s, forwarded_latency_s(cluster, nodes))
    return max(nics_s, nvlink_s)


def longest_latency_s(cluster: ClusterSpec, between_nodes: bool) -> float:
    """Return the latency that libraries without a measured one are given: NVLink's or the fabric's.

    Of the fabric the longest way, whichever nodes take part.
    """
    if not between_nodes:
        return cluster.node.scale_up.latency_s
    return float(cluster.fabric.latency_s(cluster.topology().diameter))


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
