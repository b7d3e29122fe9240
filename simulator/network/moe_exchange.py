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
    normal_exchange,
    play_normal,
)
from simulator.network.low_latency import low_latency_exchange, play_low_latency
from simulator.network.played_exchange import PlayedExchange
from simulator.network.slowest_port import SAME
from workloads.blocks.moe import MoESpec
from workloads.placement import members_by_node
from workloads.routing import expected_copies
from workloads.routing_matrix import RoutingMatrix, expected_matrix, straight_matrix

Mode = Literal["normal", "low-latency"]

SIZES_MAX = {"ranks": 8192, "tokens": 10**9, "hidden": 2**20}
"""What can be held: a matrix has a number for each two ranks."""

BENCHMARK_EXPERTS = MoESpec(routed_experts=256, top_k=8, expert_width=2048, group_score="max")
"""The layer of DeepEP's own tests: experts as in DeepSeek-V3, a node as good as its best one."""


@dataclass(frozen=True, slots=True)
class ExpertTraffic:
    """What an expert layer's tokens ask of the network.

    Attributes:
        ranks: GPUs of the expert group, the first of the cluster; of its last node maybe a part.
        tokens, hidden: of one GPU; elements of one token.
        moe: the layer; its groups limit where a token may go unless `routed_nodes_max` is given.
        routed_nodes_max: as of `workloads.routing.expected_copies`. Of normal mode.
        load: tokens that each rank receives, relative to the mean; balanced without it.
    """

    ranks: int
    tokens: int = 4096
    hidden: int = 7168
    moe: MoESpec = BENCHMARK_EXPERTS
    routed_nodes_max: int | None = None
    load: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, most in SIZES_MAX.items():
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name}: must be from 1 to {most:,}, got {getattr(self, name)}")
        if self.load is not None and not all(0 <= rank_load < np.inf for rank_load in self.load):
            raise InputError("load: must be 0 or more and finite for every rank")

    def matrix(self, mode: Mode, gpus_per_node: int) -> RoutingMatrix:
        """Return the expected routing on nodes of `gpus_per_node` GPUs.

        Raises:
            InfeasibleError: experts, ranks and nodes do not divide.
            InputError: the load has another length.
        """
        load = None if self.load is None else _shares(self.load)
        if mode == "normal":
            experts = self.moe.routed_experts
            if experts % self.ranks:
                raise InfeasibleError(f"ranks: must divide the {experts} experts, got {self.ranks}")
            copies = expected_copies(self.moe, self.ranks, gpus_per_node, self.routed_nodes_max)
            return expected_matrix(copies, self.tokens, self.moe.top_k, load)
        self._check_straight(gpus_per_node)
        members = members_by_node(0, self.ranks, gpus_per_node)
        return straight_matrix(self.tokens, self.moe.top_k, members, load)

    def _check_straight(self, gpus_per_node: int) -> None:
        """Refuse groups that low-latency mode cannot hold the experts on.

        Experts need not divide on nodes shared evenly: DeepEP times 288 of them on 256 GPUs.
        """
        experts = self.moe.routed_experts
        if experts < self.ranks:
            raise InfeasibleError(f"ranks: must be at most the {experts} experts, got {self.ranks}")
        fills = self.ranks % gpus_per_node == 0 or gpus_per_node % self.ranks == 0
        if experts % self.ranks and not fills:
            raise InfeasibleError(
                f"ranks: must divide the {experts} experts, fill nodes of {gpus_per_node} "
                f"GPUs or divide one, got {self.ranks}"
            )


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
            their time and bytes where they are more than the slowest port's: `static`, `ecmp`,
            `adaptive`.
        seed: of ECMP's hash.

    Raises:
        InputError, InfeasibleError: bad input, a group that does not fit, a library without it.
    """
    _check_words(direction, mode)
    if routing is not None and not over_nvlink:
        raise InputError("over_nvlink: must be true where flows are played, got false")
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
            experts=traffic.moe.routed_experts,
            over_nvlink=over_nvlink,
        )
    if routing is None:
        return run
    if mode == "normal":
        played = play_normal(direction, matrix, token_bytes, cluster, library, sms, routing, seed)
    else:
        played = play_low_latency(
            direction,
            matrix,
            token_bytes,
            cluster,
            library,
            experts=traffic.moe.routed_experts,
            routing=routing,
            seed=seed,
        )
    return _as_played(run, played)


def _check_words(direction: str, mode: str) -> None:
    words = {"mode": (mode, get_args(Mode)), "direction": (direction, get_args(Direction))}
    for name, (word, known) in words.items():
        if word not in known:
            raise InputError(f"{name}: must be one of {', '.join(known)}, got {word!r}")


def _as_played(run: ExchangeRun, played: PlayedExchange) -> ExchangeRun:
    """Return the exchange as slow as its flows, and with their bytes, where those are more.

    They may be less in low-latency mode on planes, which the slowest port takes for joined.
    """
    if played.bound_s >= run.bound_s * (1 - SAME):
        run = replace(
            run,
            bound_s=played.bound_s,
            nic_bytes=played.nic_bytes,
            nvlink_bytes=played.nvlink_bytes,
        )
    if played.time_s <= run.time_s * (1 + SAME):
        return run
    logical = run.logical_bytes_per_s * run.time_s / played.time_s
    return replace(run, time_s=played.time_s, logical_bytes_per_s=logical, slowest=played.slowest)


def _shares(load: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the load as multiples of its mean."""
    weights = np.asarray(load, np.float64)
    mean = weights.mean()
    if mean <= 0:
        raise InputError("load: some rank must have a load above 0, got none")
    return np.asarray(weights / mean)
