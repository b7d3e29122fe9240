"""Dispatch and combine of an expert layer in normal mode, from a routing matrix.

One copy a node over the NIC, then NVLink (`hwmodels.costs.exchange` has the constants and the work
of SMs). Ports count as in `simulator.network.slowest_port`; the same traffic as flows over the
links of a cluster, faults and switches included, is in `exchange_flows`.
"""

from dataclasses import dataclass, replace

import numpy as np

from hwmodels.cluster import ClusterSpec
from hwmodels.costs.channels import ExchangeShape
from hwmodels.costs.exchange import Direction, channel_s, latency_s, moving_s
from hwmodels.errors import InfeasibleError, InputError
from hwmodels.formats import FORMATS, NumberFormat
from hwmodels.library import LibrarySpec
from simulator.network.exchange_pricer import once_on_nics
from simulator.network.flows import Flows
from simulator.network.links import Network
from simulator.network.machine import Machine
from simulator.network.played_exchange import PlayedExchange, played_exchange
from simulator.network.port_rates import PortRates, exchange_rates
from simulator.network.slowest_port import PortCopies, normal_ports, port_times
from simulator.network.traffic import Traffic
from workloads.placement import members_by_node
from workloads.routing_matrix import RoutingMatrix

FORMAT_ON_THE_WIRE: dict[Direction, NumberFormat] = {
    "dispatch": FORMATS["fp8_1x128"],
    "combine": FORMATS["bf16"],
}


@dataclass(frozen=True, slots=True)
class ExchangeRun:
    """One dispatch or combine.

    Attributes:
        time_s: seconds.
        bound_s: bytes of the busiest port over its datasheet rate; where it was played as flows,
            as of `PlayedExchange`.
        logical_bytes_per_s: as DeepEP reports it: copies of a GPU's tokens, those already in place
            included, over the time. Normal mode counts nodes, or GPUs inside one; low-latency mode
            counts experts.
        nic_bytes, nvlink_bytes: through the busiest port, one direction.
        slowest: what takes longest, in words.
        basis: what the time was priced from.
    """

    time_s: float
    bound_s: float
    logical_bytes_per_s: float
    nic_bytes: float
    nvlink_bytes: float
    slowest: str
    basis: str


def normal_exchange(
    direction: Direction,
    matrix: RoutingMatrix,
    token_bytes: float,
    cluster: ClusterSpec,
    library: LibrarySpec | None = None,
    sms: int = 20,
) -> ExchangeRun:
    """Return one exchange in normal mode among the first GPUs of a cluster.

    Args:
        token_bytes: of one copy of one token, see `FORMAT_ON_THE_WIRE`.
        library: without it links run at their datasheet rates.
        sms: given to communication; an engine in their place (`ChipSpec.exchange_engine`) needs
            none, and never holds links up.

    Raises:
        InputError: no SMs, or no bytes.
        InfeasibleError: the matrix does not fit the nodes, or the library says nothing of it.
    """
    check_exchange(matrix, token_bytes, cluster)
    chip = cluster.node.chip
    least = 0 if chip.exchange_engine else 1
    if not least <= sms <= chip.sms:
        raise InputError(f"sms: must be {least} to {chip.sms}, got {sms}")
    once = direction in once_on_nics(cluster.fabric)
    ports = normal_ports(matrix, once).carrying(direction)
    rates = normal_rates(direction, matrix, token_bytes, cluster, library, sms)
    times = port_times(ports.nic, ports.nvlink, token_bytes, rates)
    time_s = float(times.seconds)
    slowest = ports.slowest(rates.nic_bytes_per_s, rates.nvlink_bytes_per_s)
    if library is not None and library.exchange is not None:
        exchange, busiest = library.exchange, _busiest(matrix, token_bytes)
        busy_s = 0.0 if chip.exchange_engine else channel_s(exchange, direction, busiest, sms)
        parts_s = busy_s, times.nic_s, times.nvlink_s
        time_s = rates.latency_s + float(moving_s(exchange, direction, busiest, *parts_s))
        if busy_s > times.moving_s:
            slowest = "channels"
    counted = matrix.node_copies if matrix.nodes > 1 else matrix.gpu_copies
    return exchange_run(
        ports, counted.sum() / matrix.gpus, token_bytes, time_s, slowest, rates, cluster
    )


def exchange_run(
    ports: PortCopies,
    logical_copies: float,
    token_bytes: float,
    time_s: float,
    slowest: str,
    rates: PortRates,
    cluster: ClusterSpec,
) -> ExchangeRun:
    """Return what is told of an exchange of `time_s`; one GPU alone takes none."""
    alone = not ports.copies.any()
    node = cluster.node
    nic, nvlink = token_bytes * ports.nic, token_bytes * ports.nvlink
    bound_s = nvlink / node.chip.nvlink_bytes_per_s
    if nic:
        bound_s = max(bound_s, nic / node.scale_out_bytes_per_s_per_gpu)
    time_s = 0.0 if alone else time_s
    return ExchangeRun(
        time_s=time_s,
        bound_s=bound_s,
        logical_bytes_per_s=float(logical_copies * token_bytes / time_s) if time_s else 0.0,
        nic_bytes=nic,
        nvlink_bytes=nvlink,
        slowest="nothing moves" if alone else slowest,
        basis=rates.basis,
    )


def normal_rates(
    direction: Direction,
    matrix: RoutingMatrix,
    token_bytes: float,
    cluster: ClusterSpec,
    library: LibrarySpec | None,
    sms: int,
) -> PortRates:
    """Return what ports reach in normal mode with `sms` SMs, on the links of `cluster`.

    Raises:
        InfeasibleError: the library has no exchange, or none between nodes.
    """
    topology = Machine.of_ports(cluster).wires.topology
    rates = exchange_rates(direction, matrix.nodes, cluster, library, sms, topology)
    exchange = library.exchange if library else None
    if exchange is None:
        return rates
    measured_s = latency_s(exchange, direction, _busiest(matrix, token_bytes))
    if measured_s is None:
        return rates
    whole_s = float(measured_s + exchange.notify_s(direction, matrix.nodes))
    return replace(rates, latency_s=whole_s)


def check_exchange(matrix: RoutingMatrix, token_bytes: float, cluster: ClusterSpec) -> None:
    """Refuse a matrix that is not of the cluster's first GPUs, and tokens of no bytes."""
    if not 0 < token_bytes < np.inf:
        raise InputError(f"token_bytes: must be above 0 and finite, got {token_bytes}")
    in_node = cluster.node.gpus
    if matrix.members != members_by_node(0, matrix.gpus, in_node) or matrix.nodes > cluster.nodes:
        raise InfeasibleError(
            f"group: must fill nodes of {in_node} GPUs, {cluster.nodes} at most, the last of them "
            f"maybe in part; got {', '.join(map(str, matrix.members))}"
        )


def _busiest(matrix: RoutingMatrix, token_bytes: float) -> ExchangeShape:
    """Return the shape of the GPU that sends or receives most."""
    tokens = max(matrix.tokens, 1e-300)
    sent, received = matrix.gpu_copies.sum(axis=1), matrix.gpu_copies.sum(axis=0)
    ports = normal_ports(matrix)
    return ExchangeShape.of(
        tokens=matrix.tokens,
        token_bytes=token_bytes,
        node_copies=ports.nic / tokens,
        gpu_copies=max(sent.max(), received.max()) / tokens,
        nodes=matrix.nodes,
        gpus_per_node=matrix.gpus_per_node,
    )


def exchange_flows(
    direction: Direction, matrix: RoutingMatrix, token_bytes: float, network: Network
) -> Flows:
    """Return the exchange as flows among the first GPUs of `network`; all start together.

    A copy that is forwarded is two flows, over NICs and over NVLink, as it is passed on in pieces.
    What switches copy or sum is one flow for each copy all the same: what that spares NICs out and
    links between switches is not counted here.

    Raises:
        InfeasibleError: the matrix does not fit, or two nodes have no path left between them.
    """
    check_exchange(matrix, token_bytes, network.cluster)
    layout, gpus = matrix.layout, matrix.gpus
    gpu, node = (axis.ravel() for axis in np.indices((gpus, matrix.nodes)))
    forwarder = layout.forwarder[gpu, node]
    away = gpu != forwarder
    traffic = Traffic(network)
    sides = (gpu[away], forwarder[away])
    if direction == "combine":
        sides = sides[::-1]
    copies = matrix.node_copies.ravel()[away] * token_bytes
    traffic.message(*sides, copies, forward="receiver" if direction == "dispatch" else "sender")
    first, last = np.nonzero(layout.node[:, None] == layout.node)
    by_way = layout.forwarder[:, layout.node] * gpus + np.arange(gpus)
    forwarded = np.bincount(by_way.ravel(), matrix.gpu_copies.ravel(), gpus**2)
    ends = (first, last)
    if direction == "combine":
        ends = ends[::-1]
    traffic.nvlink(*ends, forwarded[first * gpus + last] * token_bytes)
    return traffic.flows()


def play_normal(
    direction: Direction,
    matrix: RoutingMatrix,
    token_bytes: float,
    cluster: ClusterSpec,
    library: LibrarySpec | None = None,
    sms: int = 20,
    routing: str = "static",
    seed: int = 0,
) -> PlayedExchange:
    """Return an exchange in normal mode played as flows; see `normal_exchange`."""
    check_exchange(matrix, token_bytes, cluster)
    rates = normal_rates(direction, matrix, token_bytes, cluster, library, sms)

    def flows_on(network: Network) -> Flows:
        return exchange_flows(direction, matrix, token_bytes, network)

    return played_exchange(flows_on, matrix.nodes, rates, cluster, routing, seed)
