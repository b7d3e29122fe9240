"""Tokens of each expert of the timed rank, rebuilt from what a MoE table says of its load.

The collector of the AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5, collector/helper.py)
routes by construction, not by a router:

    balanced     token t takes the experts (t + i E / k) mod E, i = 0 .. k - 1; with fewer tokens
                 than E / k they are spread over the experts
    uniform      every expert gets the same, rounded down; where that is none, the first of a rank
                 get one
    packed       the same, but laid out without room between experts: DeepGEMM computes a tile of
                 128 rows with the weights of the expert of its first row
    power_law_a  every expert draws a weight from the density x^-a on [1, 0.8 tokens], or on
                 [0.01, 2] when there are no more pairs than experts; weights are scaled to
                 tokens * k pairs and rounded, to at most one pair of each token; what is over or
                 missing goes rank after rank, one to its smallest or from its largest; the rank
                 with most pairs is timed
    ..._eplb     after that, a load balancer copies the largest and deals experts out to ranks

A power-law time is the mean over five draws nobody recorded. Here a fixed seed draws more of them,
so that what stands in their place is their expectation.
"""

import heapq
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats
from hwmodels.costs import expert_load

ROUTINGS = 16
"""Draws that stand for the five of a power-law row."""

_SEED = 0
_PACKED_ROWS = 128


def expert_columns(
    columns: Mapping[str, npt.NDArray[Any]], tokens: npt.NDArray[Any]
) -> dict[str, Floats]:
    """Return the columns of `fused_moe_time_s` of a table's rows.

    Args:
        tokens: (rows,) that enter the module.
    """
    names = ("distribution", "num_tokens", "num_experts", "topk", "moe_ep_size")
    slots = columns.get("num_slots", columns["num_experts"])
    keys = zip(*(columns[name].tolist() for name in names), slots.tolist(), strict=True)
    loads = [rank_load(str(how), *map(int, sizes)) for how, *sizes in keys]
    return {
        "load": np.array(loads),
        "hidden": columns["hidden_size"].astype(np.float64),
        "intermediate": columns["inter_size"] / columns["moe_tp_size"].astype(np.float64),
        "tokens": np.asarray(tokens, np.float64),
        "experts": slots / columns["moe_ep_size"].astype(np.float64),
    }


@cache
def rank_load(
    distribution: str, tokens: int, experts: int, topk: int, ranks: int, slots: int
) -> Floats:
    """Return (5,) the load of the timed rank of `ranks`, by `hwmodels.costs.expert_load`.

    Args:
        distribution: `balanced`, `uniform`, `packed`, `power_law_ALPHA` or `power_law_ALPHA_eplb`.
        tokens: entering all ranks together.
        experts, topk: of the layer; `experts` is a multiple of `ranks`.
        slots: places for experts in all ranks together; more than `experts` where an expert
            load balancer keeps copies of the largest.
    """
    if distribution == "balanced":
        counts = [_balanced(tokens, experts, topk)]
    elif distribution == "uniform":
        counts = [_uniform(tokens, experts, topk, ranks)]
    elif distribution == "packed":
        counts = [_packed(tokens, experts, topk)]
    else:
        alpha, _, balancer = distribution.removeprefix("power_law_").partition("_")
        rng = np.random.default_rng(
            [_SEED, tokens, experts, topk, ranks, round(100 * float(alpha))]
        )
        owners = 1 if balancer else ranks
        counts = [
            _power_law(rng, float(alpha), tokens, experts, topk, owners) for _ in range(ROUTINGS)
        ]
        if balancer:
            counts = [_rebalanced(count, ranks, slots) for count in counts]
    timed = [_most_loaded(count, ranks) for count in counts]
    return np.asarray(expert_load(timed).mean(axis=0))


def _balanced(tokens: int, experts: int, topk: int) -> Floats:
    """(experts,) tokens of each expert."""
    stride = -(-experts // topk)
    first = np.arange(tokens) * (1.0 if tokens >= stride else stride / tokens)
    chosen = (first[:, None] + np.arange(topk) * stride).astype(np.int64) % experts
    return np.bincount(chosen.ravel(), minlength=experts).astype(np.float64)


def _uniform(tokens: int, experts: int, topk: int, ranks: int) -> Floats:
    """(experts,) tokens of each expert; of too few, one of the first of each rank."""
    each = tokens * topk // experts
    local = np.arange(experts) % (experts // ranks)
    return np.where(local < tokens * topk // ranks, max(1.0, each), 0.0)


def _packed(tokens: int, experts: int, topk: int) -> Floats:
    """(experts,) tokens that each expert is charged with, whole tiles of them."""
    each = tokens * topk // experts
    first = np.arange(experts) * each // _PACKED_ROWS * _PACKED_ROWS
    return np.diff(first, append=experts * each).astype(np.float64)


def _power_law(
    rng: np.random.Generator, alpha: float, tokens: int, experts: int, topk: int, ranks: int
) -> Floats:
    """(experts,) tokens of each expert, `tokens * topk` in all and at most `tokens` each."""
    low, high = (1.0, 0.8 * tokens) if tokens * topk > experts else (0.01, 2.0)
    power = 1 - alpha
    weight = (low**power + (high**power - low**power) * rng.random(experts)) ** (1 / power)
    count = np.minimum(np.round(weight * (tokens * topk / weight.sum())), tokens)
    missing = round(tokens * topk - count.sum())
    of_rank = count.reshape(ranks, -1)
    if missing > 0:
        return _filled(of_rank, missing, tokens).ravel()
    return -_filled(-of_rank, -missing, 0).ravel()


def _filled(of_rank: Floats, amount: int, most: int) -> Floats:
    """Return (ranks, local experts) with `amount` more: rank after rank, one to its smallest."""
    while amount:
        room = (most - of_rank).sum(axis=1)
        open_ranks = np.flatnonzero(room)
        share = np.zeros(len(room))
        turns, rest = divmod(amount, len(open_ranks))
        share[open_ranks] = turns
        share[open_ranks[:rest]] += 1
        share = np.minimum(share, room)
        of_rank = _levelled(of_rank, share)
        amount -= round(share.sum())
    return of_rank


def _levelled(of_rank: Floats, amount: Floats) -> Floats:
    """Return (ranks, local experts) after so many times one more for the smallest of each rank."""
    order = np.argsort(of_rank, axis=1, kind="stable")
    rising = np.take_along_axis(of_rank, order, axis=1)
    place = np.arange(of_rank.shape[1])
    below = np.cumsum(rising, axis=1)
    raised = np.count_nonzero(rising * (place + 1) - below <= amount[:, None], axis=1)
    total = amount + np.take_along_axis(below, raised[:, None] - 1, axis=1)[:, 0]
    level, rest = np.divmod(total, raised)
    lifted = level[:, None] + (place < rest[:, None])
    result = np.empty_like(of_rank)
    values = np.where(place < raised[:, None], lifted, rising)
    np.put_along_axis(result, order, values, axis=1)
    return result


def _rebalanced(count: Floats, ranks: int, slots: int) -> Floats:
    """(slots,) tokens of each slot, rank after rank, as an expert load balancer places them: the
    largest experts get the spare slots, then every slot goes to the least loaded rank with room.
    """
    copies = np.ones(len(count))
    for _ in range(slots - len(count)):
        copies[np.argmax(count / copies)] += 1
    load = np.sort(np.repeat(count / copies, copies.astype(int)))[::-1]
    placed: list[list[float]] = [[] for _ in range(ranks)]
    heap = [(0.0, rank) for rank in range(ranks)]
    for slot in load.tolist():
        held, rank = heapq.heappop(heap)
        placed[rank].append(slot)
        if len(placed[rank]) < slots // ranks:
            heapq.heappush(heap, (held + slot, rank))
    return np.array(placed).ravel()


def _most_loaded(count: Floats, ranks: int) -> Floats:
    """(local experts,) tokens of each expert of the rank with most pairs."""
    of_rank = count.reshape(ranks, -1)
    return np.asarray(of_rank[np.argmax(of_rank.sum(axis=1))])
