"""An expert exchange as flows over the links of a cluster, its faults and switches included."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.cluster import ClusterSpec
from simulator.network.fair import finish
from simulator.network.flows import Flows, link_bytes
from simulator.network.links import Network, check_alive
from simulator.network.port_rates import PortRates
from simulator.network.slowest_port import first_of_most


@dataclass(frozen=True, slots=True)
class PlayedExchange:
    """What the flows of one exchange took and carried.

    Attributes:
        time_s: seconds, latency included; 0 where nothing moves.
        bound_s: the most that a port, or links that a switch has side by side, carry, over their
            datasheet rate after faults. No choice among equal paths is faster.
        nic_bytes: through the busiest NIC, one direction, for one GPU's even share of it.
        nvlink_bytes: through the busiest GPU's NVLink, one direction.
        slowest: the link that takes longest for its bytes, in words.
    """

    time_s: float
    bound_s: float
    nic_bytes: float
    nvlink_bytes: float
    slowest: str


def played_exchange(
    flows_on: Callable[[Network], Flows],
    nodes: int,
    rates: PortRates,
    cluster: ClusterSpec,
    routing: str = "static",
    seed: int = 0,
) -> PlayedExchange:
    """Return the exchange whose flows on a network are `flows_on`; all start together.

    Args:
        nodes: how many of the first nodes take part.
        rates: what ports reach; links between switches reach as much of theirs as NICs.

    Raises:
        InputError: no such routing.
        InfeasibleError: a node is down, or two have no path left between them.
    """
    network = Network.of(cluster, routing, seed)
    check_alive(network, np.arange(nodes))
    flows = flows_on(network)
    if not len(flows):
        return PlayedExchange(0.0, 0.0, 0.0, 0.0, "nothing moves")
    node = cluster.node
    reached = network.rates(
        rates.nvlink_bytes_per_s / node.chip.nvlink_bytes_per_s,
        rates.nic_bytes_per_s / node.scale_out_bytes_per_s_per_gpu,
    )
    moved = link_bytes(flows, len(reached))
    nics = moved[2 * network.gpus :][: 2 * network.topology.endpoints]
    return PlayedExchange(
        time_s=rates.latency_s + finish(flows, reached).last_s,
        bound_s=_bound_s(network, moved),
        nic_bytes=float(nics.max(initial=0.0)) * node.ports / node.gpus,
        nvlink_bytes=float(moved[: 2 * network.gpus].max()),
        slowest=_slowest(network, _busy_s(moved, reached)),
    )


def _bound_s(network: Network, moved: Floats) -> float:
    """Return seconds of the port or bundle of links that is busy longest."""
    first = 2 * network.gpus
    fabric_bytes, rate = moved[first:], network.bytes_per_s[first:]
    if network.routing != "adaptive":  # whose links are bundles already
        fabric_bytes, rate = (_bundled(network, values) for values in (fabric_bytes, rate))
    nvlink_s = _busy_s(moved[:first], network.bytes_per_s[:first])
    return max(float(nvlink_s.max()), float(_busy_s(fabric_bytes, rate).max(initial=0.0)))


def _bundled(network: Network, values: Floats) -> Floats:
    """Return (bundles,) the sums over the fabric's links side by side."""
    topology = network.topology
    return np.bincount(topology.bundle, values, topology.bundles).astype(np.float64)


def _busy_s(moved: Floats, bytes_per_s: Floats) -> Floats:
    """Return (links,) seconds of each link; links without bytes may be dead."""
    return np.divide(moved, bytes_per_s, out=np.zeros(len(moved)), where=moved > 0)


def _slowest(network: Network, busy_s: Floats) -> str:
    """Return the link that is busy longest, the first of equals, in words."""
    link = first_of_most(busy_s)
    name = network.link_name(link)
    is_port = link < 2 * (network.gpus + network.topology.endpoints)
    return name if is_port else f"flows that meet on {name}"
