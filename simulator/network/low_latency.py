"""Dispatch and combine of an expert layer in low-latency mode, from a routing matrix.

Every copy goes straight to its GPU, by the NICs of the two or by NVLink; the constants are those of
`hwmodels.costs.low_latency`, the ports those of `simulator.network.slowest_port`.
"""

import numpy as np

from hwmodels.cluster import ClusterSpec
from hwmodels.costs.exchange import Direction
from hwmodels.costs.low_latency import LowLatencyShape, waits_s
from hwmodels.errors import InfeasibleError
from hwmodels.library import LibrarySpec
from simulator.network.expert_exchange import (
    ExchangeRun,
    check_exchange,
    exchange_run,
)
from simulator.network.flows import Flows
from simulator.network.links import Network
from simulator.network.played_exchange import PlayedExchange, played_exchange
from simulator.network.port_rates import (
    PortRates,
    datasheet_rates,
    link_scales,
    straight_latency_s,
)
from simulator.network.slowest_port import direct_ports, port_times
from simulator.network.traffic import Traffic
from workloads.routing_matrix import RoutingMatrix


def low_latency_exchange(
    direction: Direction,
    matrix: RoutingMatrix,
    token_bytes: float,
    cluster: ClusterSpec,
    library: LibrarySpec | None = None,
    *,
    experts: int,
    over_nvlink: bool = True,
) -> ExchangeRun:
    """Return one exchange in low-latency mode among the GPUs of whole nodes.

    Args:
        token_bytes: of one copy of one token, header not included.
        library: without it links run at their datasheet rates.
        experts: of the layer.
        over_nvlink: whether copies inside a node take NVLink, as since DeepEP @de8cfca; else NICs.

    Raises:
        InputError: no bytes.
        InfeasibleError: the matrix does not fit the nodes, or the library says nothing of it.
    """
    check_exchange(matrix, token_bytes, cluster)
    ports = direct_ports(matrix, over_nvlink).carrying(direction)
    rates, message = low_latency_rates(
        direction, matrix, token_bytes, cluster, library, experts, ports.nic > 0
    )
    time_s = float(port_times(ports.nic, ports.nvlink, message, rates).seconds)
    slowest = ports.slowest(rates.nic_bytes_per_s, rates.nvlink_bytes_per_s)
    work = library.low_latency.work(direction) if library and library.low_latency else None
    if work is not None and work.token_s is not None:
        shape = _shape(matrix, token_bytes, cluster, experts)
        issued_s = rates.latency_s + float(matrix.tokens / shape.sms_used * work.token_s)
        if issued_s > time_s:
            time_s, slowest = issued_s, "SMs that send"
    logical = matrix.expert_copies.sum() / matrix.gpus
    return exchange_run(ports, logical, message, time_s, slowest, rates, cluster)


def low_latency_rates(
    direction: Direction,
    matrix: RoutingMatrix,
    token_bytes: float,
    cluster: ClusterSpec,
    library: LibrarySpec | None,
    experts: int,
    uses_nics: bool,
) -> tuple[PortRates, float]:
    """Return what ports reach in low-latency mode, and the bytes of one copy with its header.

    Raises:
        InfeasibleError: the library has no low-latency mode, or NICs are used and it has no rate.
    """
    if library is None:
        latency_s = straight_latency_s(cluster, matrix.nodes, uses_nics)
        return datasheet_rates(cluster, latency_s), token_bytes
    parameters = library.low_latency
    if parameters is None:
        raise InfeasibleError(f"library {library.name}: has no low-latency mode")
    work = parameters.work(direction)
    if uses_nics and work.nic_bytes_per_s is None:
        raise InfeasibleError(
            f"library {library.name}: its low-latency mode was measured over NVLink only"
        )
    nic_scale, nvlink_scale = link_scales(library, cluster, uses_nics)
    # Without a rate of NICs no copy takes them.
    nic = work.nic_bytes_per_s or cluster.node.scale_out_bytes_per_s_per_gpu
    rates = PortRates(
        nic * nic_scale,
        work.nvlink_bytes_per_s * nvlink_scale,
        float(waits_s(work, _shape(matrix, token_bytes, cluster, experts))),
        f"library {library.name}",
    )
    return rates, token_bytes + (parameters.header_bytes if direction == "dispatch" else 0.0)


def low_latency_flows(
    direction: Direction,
    matrix: RoutingMatrix,
    message_bytes: float,
    network: Network,
) -> Flows:
    """Return the exchange as flows among the first GPUs of `network`; all start together.

    Copies inside a node take NVLink. Between NICs of different planes, which the formula takes for
    joined, the target's node forwards.

    Raises:
        InfeasibleError: the matrix does not fit, or two nodes have no path left between them.
    """
    check_exchange(matrix, message_bytes, network.cluster)
    traffic = Traffic(network)
    source, target = (axis.ravel() for axis in np.indices(matrix.expert_copies.shape))
    moved = matrix.expert_copies.ravel() * message_bytes
    if direction == "combine":
        source, target = target, source
    traffic.message(source, target, moved, forward="unless joined")
    return traffic.flows()


def play_low_latency(
    direction: Direction,
    matrix: RoutingMatrix,
    token_bytes: float,
    cluster: ClusterSpec,
    library: LibrarySpec | None = None,
    *,
    experts: int,
    routing: str = "static",
    seed: int = 0,
) -> PlayedExchange:
    """Return an exchange in low-latency mode played as flows; see `low_latency_exchange`."""
    check_exchange(matrix, token_bytes, cluster)
    rates, message = low_latency_rates(
        direction, matrix, token_bytes, cluster, library, experts, matrix.nodes > 1
    )

    def flows_on(network: Network) -> Flows:
        return low_latency_flows(direction, matrix, message, network)

    return played_exchange(flows_on, matrix.nodes, rates, cluster, routing, seed)


def _shape(
    matrix: RoutingMatrix, token_bytes: float, cluster: ClusterSpec, experts: int
) -> LowLatencyShape:
    copies = matrix.expert_copies.sum(axis=1).max()
    return LowLatencyShape.of(
        tokens=matrix.tokens,
        token_bytes=token_bytes,
        top_k=copies / max(matrix.tokens, 1e-300),
        experts=experts,
        nodes=matrix.nodes,
        gpus_per_node=matrix.gpus_per_node,
        sms=cluster.node.chip.sms,
    )
