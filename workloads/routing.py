"""Where tokens go: copies each token costs in dispatch and combine, and how uneven ranks are.

Experts lie in order over the ranks of an expert group, ranks in order over nodes. A token scores
all experts, keeps its best groups (node-limited routing, DeepSeek-V3 §2.1.2), and takes its top-k
experts there. Dispatch sends one copy per distinct node over the network and one per distinct GPU
over NVLink, so the two expected counts below size all its traffic.

Scores are drawn independent and alike, which is what balanced training tends to; real tokens
prefer experts that go together, and that is not modelled. Where groups do not limit the choice the
counts have a closed form, N (1 - C(E - E/N, k) / C(E, k)) for N bins of E experts; else a seeded
Monte-Carlo over 4,096 tokens gives them to about 0.1 %. A group need not fill its nodes: one that
holds fewer of its GPUs is hit by fewer tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InfeasibleError
from workloads.blocks.moe import MoESpec
from workloads.experts import ExpertGroup
from workloads.placement import members_by_node

_TOKENS = 4096
_SCORES_HELD = 2**23  # of tokens times experts, at once


@dataclass(frozen=True, slots=True)
class RoutingStatistics:
    """Expected copies of one token.

    Attributes:
        nodes, gpus: nodes and GPUs of the expert group.
        nodes_per_token: distinct nodes its experts are on, its own node counted if chosen.
        gpus_per_token: distinct GPUs its experts are on, its own counted if chosen.
        members: GPUs of the group on each node; left out where nodes hold equally many.
        node_hits: expected copies for each node, which sum to `nodes_per_token`; likewise.
        none_of: chance that a token goes to none of 0, 1, ... `nodes` nodes that are named; left
            out where it is not known, as where nodes hold unlike many.
    """

    nodes: int
    gpus: int
    nodes_per_token: float
    gpus_per_token: float
    members: tuple[int, ...] = ()
    node_hits: tuple[float, ...] = ()
    none_of: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.members:
            object.__setattr__(self, "members", (self.gpus // self.nodes,) * self.nodes)
        if not self.node_hits:
            hits = self.nodes_per_token / self.nodes
            object.__setattr__(self, "node_hits", (hits,) * self.nodes)

    @property
    def remote_nodes_per_token(self) -> float:
        """Distinct nodes other than its own: what crosses a NIC, `(n - 1) / n` by symmetry.

        Where nodes hold unlike many, of a token on the node that sends most.
        """
        return self.nodes_per_token - min(self.node_hits)

    def any_of(self, named: Sequence[int]) -> float:
        """Return the chance that a token goes to any of some nodes, which hold its experts alike.

        Where that is not known, the most it can be: every copy is of another token.
        """
        if self.none_of:
            return 1.0 - self.none_of[len(named)]
        return min(1.0, sum(self.node_hits[node] for node in named))


def expected_copies(
    moe: MoESpec,
    ep: int,
    gpus_per_node: int,
    routed_nodes_max: int | None = None,
    seed: int = 0,
) -> RoutingStatistics:
    """Return the expected copies of one token in a group of `ep` GPUs that begins with a node.

    Args:
        gpus_per_node: GPUs that share a node; the group may leave a part of its last one free.
        moe, routed_nodes_max, seed: as of `copies_on`.

    Raises:
        InfeasibleError: as `copies_on`.
    """
    return copies_on(moe, members_by_node(0, ep, gpus_per_node), routed_nodes_max, seed)


@lru_cache(maxsize=256)
def copies_on(
    moe: MoESpec,
    members: tuple[int, ...],
    routed_nodes_max: int | None = None,
    seed: int = 0,
) -> RoutingStatistics:
    """Return the expected copies of one token in an expert group.

    Args:
        moe: the expert layer; its own groups limit the choice unless `routed_nodes_max` is given.
        members: GPUs of the group on each of its nodes.
        routed_nodes_max: take the nodes themselves as groups and at most this many per token (the
            rule of DeepEP's benchmarks, and what V3's groups amount to on 8 nodes).
        seed: of the Monte-Carlo, where one is needed.

    Raises:
        InfeasibleError: experts and GPUs do not divide, or `routed_nodes_max` leaves too few
            experts, or limits a choice among nodes that hold unlike many.
    """
    groups, limit = routing_groups(moe, members, routed_nodes_max)
    nodes, ep = len(members), sum(members)
    node_of_gpu = np.repeat(np.arange(nodes), members)
    local = moe.routed_experts // ep
    even = len(set(members)) == 1
    if limit == groups:
        hits = np.array([_hit(moe.routed_experts, count * local, moe.top_k) for count in members])
        per_gpu = ep * _hit(moe.routed_experts, local, moe.top_k)
        held = moe.routed_experts // nodes  # of each node, where they are alike
        named = range(nodes + 1 if even else 0)
        none_of = [1.0 - _hit(moe.routed_experts, each * held, moe.top_k) for each in named]
    else:
        rng = np.random.default_rng(seed)
        gpu = draw_experts(moe, groups, limit, _TOKENS, rng) // local
        hits = _hits_per_row(node_of_gpu[gpu], nodes)
        none_of = _none_of(node_of_gpu[gpu], nodes) if even else []
        per_gpu = float(_hits_per_row(gpu, ep).sum())
    return RoutingStatistics(
        nodes,
        ep,
        nodes * float(hits[0]) if even and limit == groups else float(hits.sum()),
        per_gpu,
        members,
        () if even else tuple(hits.tolist()),
        tuple(none_of),
    )


@lru_cache(maxsize=64)
def placed_copies(
    moe: MoESpec, members: tuple[int, ...], group: ExpertGroup, seed: int = 0
) -> RoutingStatistics:
    """Return the expected copies of one token where experts lie as `group` says, mean over layers.

    Each of a token's experts is reached at one of its replicas, every one alike. A token still
    chooses by the groups of its experts; on how many nodes these lie is up to the placement. Nodes
    of one size are hit alike: how loads tell them apart is the exchange's business.

    Args:
        moe, members, seed: as of `copies_on`.
    """
    nodes, ep = len(members), sum(members)
    node_of_gpu = np.repeat(np.arange(nodes), members)
    rng = np.random.default_rng(seed)
    chosen = draw_experts(moe, moe.groups, moe.groups_per_token, _TOKENS, rng)
    which = rng.random(chosen.shape)
    per_node, per_gpu = np.zeros(nodes), 0.0
    for slots in group.distinct_slots:
        gpu = _replica_of(chosen, which, slots) // group.local_experts
        per_node += _hits_per_row(node_of_gpu[gpu], nodes) / len(group.distinct_slots)
        per_gpu += float(_hits_per_row(gpu, ep).sum()) / len(group.distinct_slots)
    hits = () if len(set(members)) == 1 else tuple(per_node.tolist())
    return RoutingStatistics(nodes, ep, float(per_node.sum()), per_gpu, members, hits)


def _replica_of(chosen: NDArray[np.intp], which: Floats, slots: Ints) -> Ints:
    """Return the slot at which each token reaches each expert.

    Args:
        chosen: (tokens, top_k) experts; which: uniform numbers that choose among replicas.
        slots: (slots,) expert in each.
    """
    order, count = np.argsort(slots, kind="stable"), np.bincount(slots)
    first = np.cumsum(count) - count
    return np.asarray(order[first[chosen] + (which * count[chosen]).astype(np.int64)])


def routing_groups(
    moe: MoESpec, members: tuple[int, ...], routed_nodes_max: int | None
) -> tuple[int, int]:
    """Return the groups of experts of an expert group, and how many a token may use.

    Args:
        members: GPUs of the group on each of its nodes.

    Raises:
        InfeasibleError: as `copies_on`.
    """
    nodes, ep = len(members), sum(members)
    if moe.routed_experts % ep:
        raise InfeasibleError(
            f"plan.ep: must divide the {moe.routed_experts} routed experts, got {ep}"
        )
    if routed_nodes_max is None:
        return moe.groups, moe.groups_per_token
    limit = min(routed_nodes_max, nodes)
    if limit == nodes:
        return nodes, nodes
    if len(set(members)) > 1:
        raise InfeasibleError(
            f"communication.routed_nodes_max: must be at least the {nodes} nodes of an expert "
            f"group that they share unevenly ({', '.join(map(str, members))} GPUs), got {limit}; "
            f"leave it out"
        )
    if limit * (moe.routed_experts // nodes) < moe.top_k:
        raise InfeasibleError(
            f"communication.routed_nodes_max: {limit} of {nodes} nodes hold fewer than "
            f"top_k = {moe.top_k} experts"
        )
    return nodes, limit


def _hit(experts: int, held: int, top_k: int) -> float:
    """Chance that one of `held` of the experts is among `top_k`, every choice of experts alike."""
    return 1.0 - math.comb(experts - held, top_k) / math.comb(experts, top_k)


def draw_experts(
    moe: MoESpec,
    groups: int,
    groups_per_token: int,
    tokens: int,
    rng: np.random.Generator,
    popularity: Floats | None = None,
) -> NDArray[np.intp]:
    """Return the experts of `tokens` tokens, shape [tokens, top_k], by the rule of `moe`.

    A group's score is its best or the sum of its two best expert scores, as `moe.group_score` says.

    Args:
        popularity: (experts,) weights w above 0: scores are u^(1/w), by which the best of a plain
            choice is drawn in proportion to its weight (Efraimidis and Spirakis, 2006).
    """
    size = moe.routed_experts // groups
    weights = None if popularity is None else np.asarray(popularity, np.float32)
    experts = np.empty((tokens, moe.top_k), np.intp)
    block = max(1, _SCORES_HELD // moe.routed_experts)
    for first in range(0, tokens, block):
        last = min(first + block, tokens)
        scores = rng.random((last - first, groups, size), dtype=np.float32)
        if weights is not None:
            scores **= (1 / weights).reshape(groups, -1)
        experts[first:last] = _chosen(moe, scores, groups_per_token)
    return experts


def _chosen(moe: MoESpec, scores: NDArray[np.float32], groups_per_token: int) -> NDArray[np.intp]:
    """Return the (tokens, top_k) experts with the best (tokens, groups, size) scores."""
    tokens, _, size = scores.shape
    best = 2 if moe.group_score == "top2" and size > 1 else 1
    group_score = np.partition(scores, -best, axis=2)[:, :, -best:].sum(axis=2)
    kept = np.argpartition(group_score, -groups_per_token, axis=1)[:, -groups_per_token:]
    kept_scores = np.take_along_axis(scores, kept[:, :, None], axis=1).reshape(tokens, -1)
    top = np.argpartition(kept_scores, -moe.top_k, axis=1)[:, -moe.top_k :]
    experts: NDArray[np.intp] = np.take_along_axis(kept, top // size, axis=1) * size + top % size
    return experts


def _hits_per_row(values: NDArray[np.intp], bins: int) -> Floats:
    """Return (bins,) the share of rows in which each value stands."""
    hit = np.zeros((len(values), bins), dtype=bool)
    np.put_along_axis(hit, values, True, axis=1)
    return np.asarray(hit.sum(axis=0) / len(values))


def _none_of(values: NDArray[np.intp], bins: int) -> list[float]:
    """Return the chance that a row has none of 0, 1, ... `bins` named bins, all of them alike.

    A row with values in h bins misses j of n with chance C(n - h, j) / C(n, j).
    """
    hit = np.zeros((len(values), bins), dtype=bool)
    np.put_along_axis(hit, values, True, axis=1)
    share = np.bincount(hit.sum(axis=1), minlength=bins + 1) / len(values)
    return [
        sum(
            float(share[held]) * math.comb(bins - held, named) / math.comb(bins, named)
            for held in np.flatnonzero(share).tolist()
        )
        for named in range(bins + 1)
    ]


def correlated(persistent: Floats, fresh: Floats, correlation: float) -> Floats:
    """Mix standard normals so that two micro-batches on one layer correlate by `correlation`.

    `z = sqrt(c) z_layer,rank + sqrt(1 - c) z_micro-batch,layer,rank`: 0 draws every micro-batch
    afresh, 1 keeps the same ranks loaded.

    Args:
        persistent, fresh: (..., ranks) each; they broadcast.
    """
    return math.sqrt(correlation) * persistent + math.sqrt(1 - correlation) * fresh


def lognormal_load(z: Floats, sigma: float) -> Floats:
    """Return how loaded ranks are, as multiples of the mean: (..., ranks).

    `load = exp(s z)` with `s^2 = ln(1 + sigma^2)`, so that sigma is the coefficient of variation;
    each row is then scaled to mean 1: tokens are moved, not made.

    Args:
        z: (..., ranks) standard normals.
        sigma: relative spread over ranks; 0.08 in the H800 trace of DeepSeek's profile data.
    """
    load = np.exp(math.sqrt(math.log1p(sigma**2)) * z)
    load /= load.mean(axis=-1, keepdims=True)
    return load


def zipf_load(z: Floats, exponent: float, ranks: int, share_max: float = 1.0) -> Floats:
    """Return how loaded ranks are when the k-th most popular expert draws tokens as k^-exponent.

    Args:
        z: (..., experts) popularity of experts: the largest is the first; experts lie in order over
            the ranks.
        exponent: 0 is balanced.
        ranks: must divide the experts.
        share_max: of one expert, 1 / top_k where a token goes to distinct experts; what is above
            goes to the others in proportion.

    Returns:
        (..., ranks) multiples of the mean.
    """
    popularity = _popularity(z, exponent, share_max)
    load = popularity.reshape(*z.shape[:-1], ranks, z.shape[-1] // ranks).sum(axis=-1)
    return np.asarray(load / load.mean(axis=-1, keepdims=True))


def zipf_expert_load(z: Floats, exponent: float, share_max: float = 1.0) -> Floats:
    """Return (..., experts) how loaded experts are, as multiples of the mean; as `zipf_load`."""
    return np.asarray(_popularity(z, exponent, share_max) * z.shape[-1])


def _popularity(z: Floats, exponent: float, share_max: float) -> Floats:
    """Return (..., experts) the share of all rows that each expert gets."""
    experts = z.shape[-1]
    share = _capped(np.arange(1, experts + 1) ** -float(exponent), max(share_max, 1 / experts))
    order = np.argsort(-z, axis=-1, kind="stable")
    popularity = np.empty(z.shape)
    np.put_along_axis(popularity, order, np.broadcast_to(share, z.shape), axis=-1)
    return popularity


def _capped(weights: Floats, share_max: float) -> Floats:
    """Return weights as shares of their sum, none above `share_max`."""
    share = weights / weights.sum()
    while (share > share_max * (1 + 1e-12)).any():
        full = share >= share_max
        left = 1 - share_max * full.sum()
        share = np.where(full, share_max, share * (left / share[~full].sum()))
    return np.asarray(share)
