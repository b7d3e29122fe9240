"""Seconds for messages: the expert exchange, pipeline hand-overs, gradient rings.

An exchange is as slow as its slowest port. Of the copies of a token on `n` nodes, all but the one
at home cross a NIC, once per node; on arrival the same-index GPU forwards them over NVLink to the
GPUs that want them (ISCA'25 "Insights into DeepSeek-V3", arXiv 2505.09343 §4.3). So

    t_port = max(nic_bytes / nic_rate, nvlink_bytes / nvlink_rate)
    t      = latency + notify + max over ports

Every message between nodes is charged the latency of three switches, so fabrics of two layers
differ by nothing here. Rates are those a profile achieved, scaled by the link it was measured on;
without a profile they are the datasheet's. They grow with the SMs given to communication up to
saturation.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hwmodels.cluster import ClusterSpec
from hwmodels.costs.exchange import Notify
from hwmodels.errors import SpecError
from hwmodels.library import LibrarySpec
from workloads.chunks import Carrier
from workloads.ops import Exchange
from workloads.routing import RoutingStatistics

P = TypeVar("P")

Floats = NDArray[np.float64]
CROSS_LEAF_HOPS = 3  # leaf, spine, leaf


@dataclass(frozen=True, slots=True)
class LinkRates:
    """Achieved bytes per second of one GPU, one direction, and seconds of an empty message.

    NVLink has three rates: in rings, in an exchange inside one node, and in an exchange that also
    forwards what NICs bring; only the exchange depends on the SMs it is given. `notify` runs before
    an exchange between nodes, if the library has it.
    """

    dispatch_nic: float
    combine_nic: float
    nvlink: float
    exchange_nvlink: float
    forwarding_nvlink: float
    message_nic: float
    latency_s: float
    scale_up_latency_s: float
    dispatch_beside_compute: float
    combine_beside_compute: float
    basis: str = ""
    dispatch_notify: Notify | None = None
    combine_notify: Notify | None = None


def link_rates(cluster: ClusterSpec, library: LibrarySpec | None, sms: int) -> LinkRates:
    """Return what the links of `cluster` achieve with `sms` SMs given to communication.

    Raises:
        SpecError: the library says nothing of the expert exchange, or of plain messages.
    """
    node, fabric = cluster.node, cluster.fabric
    nic, nvlink = node.scale_out_bytes_per_s_per_gpu, node.chip.nvlink_bytes_per_s
    latency_s = float(fabric.latency_s(CROSS_LEAF_HOPS))
    behind = ", NICs as fast as PCIe feeds them" if node.pcie_binds else ""
    if library is None:
        in_node_s = node.scale_up.latency_s
        datasheet = (nic, nic, nvlink, nvlink, nvlink, nic, latency_s, in_node_s, 1.0, 1.0)
        return LinkRates(*datasheet, basis=f"datasheet rates of the links{behind}")
    exchange = _given(library, "exchange", library.exchange)
    nic_scale = nic / _rate(library, "link_nic_bytes_per_s")
    nvlink_scale = nvlink / _rate(library, "link_nvlink_bytes_per_s")
    share = min(1.0, sms / _rate(library, "exchange.saturating_sms"))
    forwarding = _rate(library, "exchange.forwarding_nvlink_bytes_per_s")
    return LinkRates(
        dispatch_nic=_rate(library, "exchange.dispatch_nic_bytes_per_s") * nic_scale * share,
        combine_nic=_rate(library, "exchange.combine_nic_bytes_per_s") * nic_scale * share,
        nvlink=_rate(library, "nvlink_bytes_per_s") * nvlink_scale,
        exchange_nvlink=exchange.nvlink_bytes_per_s * nvlink_scale * share,
        forwarding_nvlink=forwarding * nvlink_scale * share,
        message_nic=_rate(library, "message_nic_bytes_per_s") * nic_scale,
        latency_s=latency_s,
        scale_up_latency_s=node.scale_up.latency_s,
        dispatch_beside_compute=_rate(library, "exchange.dispatch_beside_compute"),
        combine_beside_compute=_rate(library, "exchange.combine_beside_compute"),
        basis="achieved rates of the profile"
        + ("" if nic_scale == 1 else f", NICs scaled by {nic_scale:g}")
        + ("" if nvlink_scale == 1 else f", NVLink by {nvlink_scale:g}")
        + behind,
        dispatch_notify=exchange.dispatch_notify,
        combine_notify=exchange.combine_notify,
    )


def _given(library: LibrarySpec, name: str, value: P | None) -> P:
    """Return a value that training needs and a library may lack.

    Raises:
        SpecError: it does.
    """
    if value is None:
        raise SpecError(
            f"profile.communication: library {library.name} must have {name} for training, got none"
        )
    return value


def _rate(library: LibrarySpec, path: str) -> float:
    owner, _, name = path.rpartition(".")
    return float(_given(library, path, getattr(library.exchange if owner else library, name)))


@dataclass(frozen=True, slots=True)
class ExchangePricer:
    """Prices dispatch and combine of one group of `ep` ranks on consecutive GPUs."""

    rates: LinkRates
    routing: RoutingStatistics
    gpus_per_node: int

    def exchange_s(
        self,
        exchange: Exchange,
        carrier: Carrier,
        load: Floats,
        nic_slowdown: Floats | float = 1.0,
        nvlink_slowdown: Floats | float = 1.0,
    ) -> Floats:
        """Return (...) seconds of all-to-alls.

        Args:
            carrier: the kernels that do it.
            load: (..., ep) tokens each rank receives (combine: sends), relative to balanced.
            nic_slowdown, nvlink_slowdown: of each rank's NIC and NVLink; broadcast with `load`. The
                other direction of a port always carries a rank's own tokens, a load of 1.
        """
        ranks = load.shape[-1]
        nodes, in_node = max(1, ranks // self.gpus_per_node), min(ranks, self.gpus_per_node)
        node_load = load.reshape(*load.shape[:-1], nodes, in_node).mean(axis=-1)
        if carrier == "dispatch":
            size, nic = exchange.dispatch_bytes_per_token, self.rates.dispatch_nic
            notify = self.rates.dispatch_notify
        else:
            size, nic = exchange.combine_bytes_per_token, self.rates.combine_nic
            notify = self.rates.combine_notify
        nvlink = self.rates.forwarding_nvlink if nodes > 1 else self.rates.exchange_nvlink
        token_bytes = exchange.tokens * size
        nic_bytes = token_bytes * self.routing.remote_nodes_per_token
        nvlink_bytes = token_bytes * self.routing.gpus_per_token * (in_node - 1) / in_node
        nic_load = np.maximum(np.repeat(node_load, in_node, axis=-1), 1.0) * nic_slowdown
        nic_s = nic_bytes * nic_load.max(axis=-1) / nic
        nvlink_s = nvlink_bytes * (np.maximum(load, 1.0) * nvlink_slowdown).max(axis=-1) / nvlink
        latency_s = self.rates.latency_s if nodes > 1 else self.rates.scale_up_latency_s
        if notify is not None:
            latency_s += float(notify.seconds(nodes))
        return np.asarray(latency_s + np.maximum(nic_s, nvlink_s))


def message_s(rates: LinkRates, size_bytes: float) -> float:
    """Return seconds of one point-to-point message between nodes, as stages pass them.

    Stages that share a node (data parallel below the GPUs of a node) would be faster.
    """
    return rates.latency_s + size_bytes / rates.message_nic


def ring_s(
    rates: LinkRates, size_bytes: float, members: int, members_per_node: int, gpus_per_node: int
) -> float:
    """Return seconds of a ring reduce-scatter or all-gather of a buffer of `size_bytes`.

    `size (p - 1) / p / rate`: with a whole node in the group, rings enter and leave through all
    its NICs and NVLink carries each byte once; with one member a node, each has its own NIC share.
    """
    if members == 1:
        return 0.0
    if members_per_node == 1:
        rate = rates.message_nic
    elif members == members_per_node:
        rate = rates.nvlink
    else:
        rate = min(rates.nvlink, rates.message_nic * min(members_per_node, gpus_per_node))
    inside = members == members_per_node
    latency_s = rates.scale_up_latency_s if inside else rates.latency_s
    return size_bytes * (members - 1) / members / rate + (members - 1) * latency_s


def scalar_sum_s(rates: LinkRates, members: int, members_per_node: int) -> float:
    """Return seconds of an all-reduce of one number: latency alone.

    Up and down again, a chain inside each node and a tree over nodes, as NCCL sums what is small.
    """
    nodes = members / members_per_node
    chain_s = (members_per_node - 1) * rates.scale_up_latency_s
    return 2 * (chain_s + float(np.ceil(np.log2(nodes))) * rates.latency_s)
