"""One dispatch or combine of an expert layer on a cluster, in either of DeepEP's modes."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from hwmodels.cluster import ClusterSpec
from hwmodels.costs.exchange import Direction
from hwmodels.errors import InfeasibleError, InputError
from hwmodels.library import LibrarySpec
from simulator.network.expert_exchange import (
    FORMAT_ON_THE_WIRE,
    ExchangeRun,
    exchange_flow_s,
    normal_exchange,
)
from simulator.network.low_latency import low_latency_exchange, low_latency_flow_s
from workloads.model import MoESpec
from workloads.routing import expected_copies
from workloads.routing_matrix import RoutingMatrix, expected_matrix, straight_matrix

Mode = Literal["normal", "low-latency"]


@dataclass(frozen=True, slots=True)
class ExpertTraffic:
    """What an expert layer's tokens ask of the network.

    Attributes:
        ranks: GPUs of the expert group: whole nodes, or a part of one.
        tokens, hidden: of one GPU; elements of one token.
        experts, top_k: of the layer.
        routed_nodes_max: nodes that one token's experts may sit on, the best by their best expert;
            any without it. Of normal mode.
        load: tokens that each rank receives, relative to the mean; balanced without it.
    """

    ranks: int
    tokens: int = 4096
    hidden: int = 7168
    experts: int = 256
    top_k: int = 8
    routed_nodes_max: int | None = None
    load: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("ranks", "tokens", "hidden", "experts", "top_k"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: must be 1 or more, got {getattr(self, name)}")
        if self.top_k > self.experts:
            raise InputError(f"top_k: at most the {self.experts} experts, got {self.top_k}")
        if self.load is not None and not all(0 <= each < np.inf for each in self.load):
            raise InputError("load: must be 0 or more and finite for every rank")

    def matrix(self, mode: Mode, gpus_per_node: int) -> RoutingMatrix:
        """Return the expected routing on nodes of `gpus_per_node` GPUs.

        Raises:
            InfeasibleError: experts, ranks and nodes do not divide.
            InputError: the load has another length.
        """
        nodes, in_node = max(1, self.ranks // gpus_per_node), min(self.ranks, gpus_per_node)
        if nodes * in_node != self.ranks:
            raise InfeasibleError(
                f"ranks: beyond one node must fill whole nodes of {gpus_per_node} GPUs, "
                f"got {self.ranks}"
            )
        load = None if self.load is None else _shares(self.load)
        if mode == "normal":
            moe = MoESpec(
                routed_experts=self.experts,
                top_k=self.top_k,
                expert_width=1,
                group_score="max",
            )
            if self.experts % self.ranks:
                raise InfeasibleError(
                    f"ranks: must divide the {self.experts} experts, got {self.ranks}"
                )
            copies = expected_copies(moe, self.ranks, in_node, self.routed_nodes_max)
            return expected_matrix(copies, self.tokens, self.top_k, load)
        return straight_matrix(self.tokens, self.top_k, nodes, in_node, load)


def moe_exchange(
    direction: Direction,
    mode: Mode,
    traffic: ExpertTraffic,
    cluster: ClusterSpec,
    library: LibrarySpec | None = None,
    *,
    sms: int = 20,
    over_nvlink: bool = True,
    routing: str | None = None,
    seed: int = 0,
) -> ExchangeRun:
    """Return one exchange among the first GPUs of `cluster`: FP8 and scales out, BF16 home.

    Args:
        library: what links achieve; datasheet rates without it.
        sms: given to communication in normal mode; low-latency mode keeps none busy.
        over_nvlink: of low-latency mode, as of `low_latency_exchange`.
        routing: play the exchange as flows over the cluster's links, faults included, and take
            that time where it is longer than the slowest port's: `static`, `ecmp`, `adaptive`.
        seed: of ECMP's hash.

    Raises:
        InputError, InfeasibleError: bad input, a group that does not fit, a library without it.
    """
    _check_words(direction, mode)
    matrix = traffic.matrix(mode, cluster.node.gpus)
    token_bytes = FORMAT_ON_THE_WIRE[direction].bytes_of(traffic.hidden)
    if mode == "normal":
        run = normal_exchange(direction, matrix, token_bytes, cluster, library, sms)
    else:
        run = low_latency_exchange(
            direction,
            matrix,
            token_bytes,
            cluster,
            library,
            experts=traffic.experts,
            over_nvlink=over_nvlink,
        )
    if routing is None or not run.time_s:
        return run
    if mode == "normal":
        flow_s = exchange_flow_s(
            direction, matrix, token_bytes, cluster, library, sms, routing, seed
        )
    else:
        flow_s = low_latency_flow_s(
            direction,
            matrix,
            token_bytes,
            cluster,
            library,
            experts=traffic.experts,
            routing=routing,
            seed=seed,
        )
    return _slowed(run, flow_s)


def _check_words(direction: str, mode: str) -> None:
    for word, known in ((mode, get_args(Mode)), (direction, get_args(Direction))):
        if word not in known:
            raise InputError(f"exchange: must be one of {', '.join(known)}, got {word!r}")


def _slowed(run: ExchangeRun, flow_s: float) -> ExchangeRun:
    """Return the exchange as slow as its flows are, where that is slower."""
    if flow_s <= run.time_s:
        return run
    logical = run.logical_bytes_per_s * run.time_s / flow_s
    return replace(run, time_s=flow_s, logical_bytes_per_s=logical, slowest="flows that meet")


def _shares(load: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the load as multiples of its mean."""
    weights = np.asarray(load, np.float64)
    mean = weights.mean()
    if mean <= 0:
        raise InputError("load: some rank must have a load above 0, got none")
    return np.asarray(weights / mean)
