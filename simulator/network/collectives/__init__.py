"""Collectives as flows: one algorithm a file, each a function (network, group, kind) -> Plan.

Sizes are those of nccl-tests, in bytes: all_gather the whole output, reduce_scatter the whole
input, all_reduce the buffer, all_to_all what one rank sends in total (its own part included),
broadcast and send_recv the message. In send_recv each rank sends to the next and the last to the
first; broadcast starts at rank 0. Steps of one node are those of `hwmodels.costs.protocol`.
"""

from collections.abc import Callable

from hwmodels.errors import InfeasibleError, InputError, suggestion
from simulator.network.collectives import (
    hierarchical,
    in_network,
    one_shot,
    pairwise,
    ring,
    tree,
    two_shot,
)
from simulator.network.collectives.plan import KINDS, PLANS, Plan
from simulator.network.links import Network, check_alive
from simulator.network.placement import Group

__all__ = ["KINDS", "Plan", "algorithms_of", "algorithms_tried", "plan_of"]

_RING = ("all_gather", "reduce_scatter", "all_reduce", "broadcast")

ALGORITHMS: dict[str, tuple[Callable[[Network, Group, str], Plan], tuple[str, ...]]] = {
    "ring": (ring.plan, _RING),
    "tree": (tree.plan, ("all_reduce", "broadcast")),
    "hierarchical": (
        hierarchical.plan,
        ("all_gather", "reduce_scatter", "all_reduce", "all_to_all"),
    ),
    "in-network": (in_network.plan, _RING),
    "pairwise": (
        pairwise.plan,
        ("all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv"),
    ),
    "one-shot": (one_shot.plan, KINDS),
    "two-shot": (two_shot.plan, ("all_reduce",)),
}
"""Each algorithm's plan, and the kinds it makes."""


def algorithms_of(kind: str) -> tuple[str, ...]:
    """Return the algorithms that make a kind.

    Raises:
        InputError: no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"collective: unknown kind {kind!r}{suggestion(kind, KINDS)}")
    return tuple(name for name, (_, kinds) in ALGORITHMS.items() if kind in kinds)


def algorithms_tried(kind: str, group: Group) -> tuple[str, ...]:
    """Return the algorithms that may be fastest for a group where no library says what it has.

    Not every switch reduces, so `in-network` is taken only where it is asked for. Taking messages
    in turn, or joining them for a second stage, saves no bytes: it pays only where messages cost
    something by themselves, which is for a library to say.
    """
    apart = {"in-network"}
    if len(group.nodes) == 1 or kind == "all_to_all":
        apart.add("hierarchical")
    if kind != "send_recv":
        apart.add("pairwise")
    return tuple(name for name in algorithms_of(kind) if name not in apart)


def plan_of(network: Network, group: Group, kind: str, algorithm: str) -> Plan:
    """Return how a group does a collective; what depends on no size is kept.

    Raises:
        InputError: no such kind, or it has no such algorithm.
        InfeasibleError: ranks are on nodes that are down or cut off, or the algorithm cannot do
            this group.
    """
    known = algorithms_of(kind)
    if algorithm not in known:
        near = suggestion(algorithm, known)
        raise InputError(f"{kind}: unknown algorithm {algorithm!r}{near}")
    check_alive(network, group.nodes)
    if len(group) == 1:
        return Plan((), 0, 0, 0, 0, 0.0)
    if algorithm == "hierarchical" and len(group.nodes) == 1:
        raise InfeasibleError(
            f"algorithm: hierarchical needs ranks on more than one node, got {len(group)} on one"
        )
    make = ALGORITHMS[algorithm][0]
    return PLANS.get(
        (network, group, kind, algorithm),
        lambda: make(network, group, kind),
        lambda plan: plan.rows,
    )
