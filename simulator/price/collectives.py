"""Seconds for messages: the expert exchange, pipeline hand-overs, gradient rings.

An exchange is as slow as its slowest port. Of the copies of a token on `n` nodes, all but the one
at home cross a NIC, once per node; on arrival the same-index GPU forwards them over NVLink to the
GPUs that want them (ISCA'25 "Insights into DeepSeek-V3", arXiv 2505.09343 §4.3). So

    t_port = max(nic_bytes / nic_rate, nvlink_bytes / nvlink_rate)
    t      = latency + notify + max over ports

Where all that take part sit on one node, no NIC carries anything and nothing of a NIC or a fabric
is read; one GPU by itself moves nothing and takes no time. Of ranks that lie unevenly over nodes
the slowest link binds: the fullest port of an exchange, the emptiest node of a ring.

Every message between nodes is charged the latency of three switches, so fabrics of two layers
differ by nothing here. Rates are those a profile achieved, scaled by the link it was measured on;
without a profile they are the datasheet's. They grow with the SMs given to communication up to
saturation.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.cluster import ClusterSpec
from hwmodels.costs.exchange import Notify
from hwmodels.errors import SpecError
from hwmodels.library import LibrarySpec
from simulator.price.group_ports import GroupPorts
from workloads.ops import Comm
from workloads.placement import Replicas

P = TypeVar("P")

CROSS_LEAF_HOPS = 3  # leaf, spine, leaf


@dataclass(frozen=True, slots=True)
class LinkRates:
    """Achieved bytes per second of one GPU, one direction, and seconds of an empty message.

    NVLink has three rates: in rings and messages, in an exchange inside one node, and in an
    exchange that also forwards what NICs bring; only the exchange depends on the SMs it is given.
    `notify` runs before an exchange between nodes, if the library has it.
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
    exchange = _required(library, "exchange", library.exchange)
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


def _required(library: LibrarySpec, name: str, value: P | None) -> P:
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
    return float(_required(library, path, getattr(library.exchange if owner else library, name)))


@dataclass(frozen=True, slots=True)
class ExchangePricer:
    """Prices dispatch and combine of expert groups.

    Attributes:
        layouts: ports of a group, for each way in which groups lie over nodes.
    """

    rates: LinkRates
    layouts: tuple[GroupPorts, ...]

    def exchange_s(
        self,
        comm: Comm,
        load: Floats,
        nic_slowdown: Floats | float = 1.0,
        nvlink_slowdown: Floats | float = 1.0,
        layout: Ints | None = None,
    ) -> Floats:
        """Return (...) seconds of all-to-alls.

        Args:
            comm: a dispatch or a combine.
            load: (..., ep) tokens each rank receives (combine: sends), relative to balanced.
            nic_slowdown, nvlink_slowdown: of each rank's NIC and NVLink; broadcast with `load`. The
                other direction of a port always carries a rank's own tokens, a load of 1.
            layout: (...) which of `layouts` each group has; left out, a group stands for all of
                them and is as slow as the slowest.
        """
        layouts_s = [
            self._on(ports, comm, load, nic_slowdown, nvlink_slowdown) for ports in self.layouts
        ]
        if layout is None:
            return np.asarray(np.maximum.reduce(layouts_s))
        layout_index = np.broadcast_to(layout, layouts_s[0].shape)[None]
        return np.asarray(np.take_along_axis(np.stack(layouts_s), layout_index, axis=0)[0])

    def _on(
        self,
        ports: GroupPorts,
        comm: Comm,
        load: Floats,
        nic_slowdown: Floats | float,
        nvlink_slowdown: Floats | float,
    ) -> Floats:
        if ports.ranks == 1:
            return np.zeros(load.shape[:-1])
        if comm.kind == "dispatch":
            nic, notify = self.rates.dispatch_nic, self.rates.dispatch_notify
        else:
            nic, notify = self.rates.combine_nic, self.rates.combine_notify
        inside = ports.nodes == 1
        nvlink = self.rates.exchange_nvlink if inside else self.rates.forwarding_nvlink
        latency_s = self.rates.scale_up_latency_s if inside else self.rates.latency_s
        if notify is not None:
            latency_s += float(notify.seconds(ports.nodes))
        token_bytes = comm.token_bytes
        nvlink_load = (ports.nvlink_load(load) * nvlink_slowdown).max(axis=-1)
        seconds = token_bytes * ports.nvlink * nvlink_load / nvlink
        if not inside:
            nic_load = (ports.nic_load(load) * nic_slowdown).max(axis=-1)
            seconds = np.maximum(seconds, token_bytes * ports.nic * nic_load / nic)
        return np.asarray(latency_s + seconds)


def message_s(rates: LinkRates, size_bytes: float, crosses: Mask | bool) -> Floats:
    """Return seconds of point-to-point messages, as stages pass them.

    Args:
        crosses: (...) whether each goes from node to node, over one NIC; else it takes NVLink.
    """
    inside_s = rates.scale_up_latency_s + size_bytes / rates.nvlink
    return np.asarray(np.where(crosses, rates.latency_s + size_bytes / rates.message_nic, inside_s))


class RingParts(NamedTuple):
    """What a ring is made of; it takes the latency, and the longer of the others.

    Attributes:
        latency_s: of all its hops.
        nic_s, nvlink_s: that bytes need of the NICs and of NVLink, each by itself.
    """

    latency_s: float
    nic_s: float
    nvlink_s: float


def ring_parts(rates: LinkRates, size_bytes: float, replicas: Replicas) -> RingParts:
    """Return what a ring reduce-scatter or all-gather of a buffer of `size_bytes` takes.

    `size (p - 1) / p / rate`: as many rings run side by side as the emptiest node has members; each
    enters and leaves every node by a NIC of its own, and NVLink carries each byte once wherever a
    node has several.
    """
    members, by_node = replicas.members, replicas.by_node
    if members == 1:
        return RingParts(0.0, 0.0, 0.0)
    moved_bytes = size_bytes * (members - 1) / members
    hop_s = rates.scale_up_latency_s if replicas.is_inside else rates.latency_s
    return RingParts(
        latency_s=(members - 1) * hop_s,
        nic_s=0.0 if replicas.is_inside else moved_bytes / (rates.message_nic * min(by_node)),
        nvlink_s=moved_bytes / rates.nvlink if max(by_node) > 1 else 0.0,
    )


def scalar_sum_s(rates: LinkRates, replicas: Replicas) -> float:
    """Return seconds of an all-reduce of one number: latency alone.

    Up and down again, a chain inside each node and a tree over nodes, as NCCL sums what is small;
    of nodes that hold unequally many the fullest has the longest chain.
    """
    chain_s = (max(replicas.by_node) - 1) * rates.scale_up_latency_s
    hops = math.ceil(math.log2(len(replicas.by_node)))
    return 2 * (chain_s + hops * rates.latency_s)
