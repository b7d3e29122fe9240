"""Which GPU sends how many tokens where: the routing of one expert layer, seen from the network.

A token costs one copy for each distinct node and each distinct GPU it goes to, or, where nothing
is deduplicated, one for each expert; a matrix holds all three counts. Combine is its transpose.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError
from workloads.blocks.moe import MoESpec
from workloads.placement import GroupLayout, group_layout, members_by_node
from workloads.routing import RoutingStatistics, draw_experts, routing_groups


@dataclass(frozen=True, slots=True, eq=False)
class RoutingMatrix:
    """Copies of tokens from each GPU of an expert group.

    GPUs are numbered node by node, of which each holds some, not always equally many. Copies for
    the GPU or node a token is on are counted: they cross nothing, but what libraries report counts
    them.

    Attributes:
        tokens: of one GPU.
        node_copies: (gpus, nodes) tokens of a GPU with an expert on a node.
        gpu_copies: (gpus, gpus) tokens of the first GPU with an expert on the second.
        expert_copies: (gpus, gpus) pairs of a token of the first and an expert on the second.
        members: GPUs on each node; left out where they are equally many.

    Raises:
        InputError: shapes do not agree, or a count is negative.
    """

    tokens: float
    node_copies: Floats
    gpu_copies: Floats
    expert_copies: Floats
    members: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        gpus, nodes = self.node_copies.shape
        square = {self.gpu_copies.shape, self.expert_copies.shape}
        if not self.members and nodes >= 1:
            object.__setattr__(self, "members", (gpus // nodes,) * nodes)
        fits = len(self.members) == nodes and sum(self.members) == gpus
        if square != {(gpus, gpus)} or nodes < 1 or not fits:
            raise InputError(
                "routing matrix: must be (gpus, nodes) and (gpus, gpus), nodes alike or as members "
                f"say, got {self.node_copies.shape} and {sorted(square)}"
            )
        least = min(self.node_copies.min(), self.gpu_copies.min(), self.expert_copies.min())
        if not least >= 0:
            raise InputError(f"routing matrix: copies must be 0 or more, got {least}")

    @property
    def gpus(self) -> int:
        """GPUs of the expert group."""
        return len(self.node_copies)

    @property
    def nodes(self) -> int:
        """Nodes they are on."""
        return int(self.node_copies.shape[1])

    @property
    def gpus_per_node(self) -> int:
        """GPUs of the group on the emptiest of its nodes, where few forward for many."""
        return min(self.members)

    @property
    def layout(self) -> GroupLayout:
        """Where its GPUs are, and who forwards for whom."""
        return group_layout(self.members)


def expected_matrix(
    statistics: RoutingStatistics, tokens: float, top_k: int, load: Floats | None = None
) -> RoutingMatrix:
    """Return the expected copies, every GPU sending alike.

    Args:
        statistics: expected copies of one token.
        tokens: of one GPU.
        load: (gpus,) tokens each GPU receives relative to the mean; balanced without it. What would
            be more than one copy of every token is cut off.

    Raises:
        InputError: the load has another length.
    """
    gpus = statistics.gpus
    weight = np.ones(gpus) if load is None else np.asarray(load, np.float64)
    if weight.shape != (gpus,):
        raise InputError(f"load: must have one number for each of {gpus} GPUs, got {weight.shape}")
    node_copies = np.minimum(
        tokens, tokens * np.array(statistics.node_hits) * _node_means(weight, statistics.members)
    )
    gpu_copies = np.minimum(tokens, tokens * statistics.gpus_per_token / gpus * weight)
    expert_copies = tokens * top_k / gpus * weight
    return RoutingMatrix(
        tokens,
        np.tile(node_copies, (gpus, 1)),
        np.tile(gpu_copies, (gpus, 1)),
        np.tile(expert_copies, (gpus, 1)),
        statistics.members,
    )


def straight_matrix(
    tokens: float, top_k: int, members: tuple[int, ...], load: Floats | None = None
) -> RoutingMatrix:
    """Return the expected copies where nothing is deduplicated: one for each expert.

    Args:
        tokens, load: as of `expected_matrix`.
        members: GPUs on each node.

    Raises:
        InputError: the load has another length.
    """
    gpus = sum(members)
    weight = np.ones(gpus) if load is None else np.asarray(load, np.float64)
    if weight.shape != (gpus,):
        raise InputError(f"load: must have one number for each of {gpus} GPUs, got {weight.shape}")
    copies = np.tile(tokens * top_k / gpus * weight, (gpus, 1))
    by_node = np.add.reduceat(copies, _firsts(members), axis=1)
    return RoutingMatrix(tokens, by_node, copies, copies, members)


def drawn_matrix(
    moe: MoESpec,
    tokens: int,
    gpus: int,
    gpus_per_node: int,
    rng: np.random.Generator,
    *,
    routed_nodes_max: int | None = None,
    popularity: Floats | None = None,
) -> RoutingMatrix:
    """Return the copies of tokens drawn one by one by the rule of `moe`.

    Args:
        tokens: of one GPU.
        routed_nodes_max: as of `workloads.routing.expected_copies`.
        popularity: (experts,) weights by which experts win tokens; alike without it.

    Raises:
        InfeasibleError: experts, GPUs and nodes do not divide.
    """
    members = members_by_node(0, gpus, gpus_per_node)
    nodes, (groups, limit) = len(members), routing_groups(moe, members, routed_nodes_max)
    node = group_layout(members).node
    node_copies, gpu_copies = np.zeros((gpus, nodes)), np.zeros((gpus, gpus))
    expert_copies = np.zeros((gpus, gpus))
    for source in range(gpus):
        chosen = draw_experts(moe, groups, limit, tokens, rng, popularity)
        gpu = chosen // (moe.routed_experts // gpus)
        expert_copies[source] = np.bincount(gpu.ravel(), minlength=gpus)
        gpu_copies[source] = _rows_hit(gpu, gpus)
        node_copies[source] = _rows_hit(node[gpu], nodes)
    return RoutingMatrix(tokens, node_copies, gpu_copies, expert_copies, members)


def _firsts(members: tuple[int, ...]) -> Ints:
    """Return (nodes,) the number of the first GPU of each node."""
    return np.asarray(np.cumsum(members) - np.array(members))


def _node_means(weight: Floats, members: tuple[int, ...]) -> Floats:
    """Return (nodes,) the mean over the GPUs of each node."""
    return np.asarray(np.add.reduceat(weight, _firsts(members)) / np.array(members))


def _rows_hit(values: NDArray[np.intp], bins: int) -> Floats:
    """Return (bins,) rows in which each value stands."""
    hit = np.zeros((len(values), bins), dtype=bool)
    np.put_along_axis(hit, values, True, axis=1)
    return np.asarray(hit.sum(axis=0), np.float64)
