"""Collectives as flows: one algorithm a file, each a function (network, group, kind) -> Plan.

Sizes are those of nccl-tests, in bytes: all_gather the whole output, reduce_scatter the whole
input, all_reduce the buffer, all_to_all what one rank sends in total (its own part included),
broadcast and send_recv the message. In send_recv each rank sends to the next and the last to the
first; broadcast starts at rank 0. Steps of one node are those of `hwmodels.costs.protocol`.
"""

import importlib
import pkgutil
from typing import Protocol

from hwmodels.errors import InfeasibleError, InputError, suggestion
from simulator.network.collectives.plan import KINDS, PLANS, Plan
from simulator.network.links import Network, check_alive
from simulator.network.placement import Group

__all__ = ["ALGORITHMS", "KINDS", "Plan", "algorithms_of", "algorithms_tried", "plan_of"]


class Algorithm(Protocol):
    """What a module of this package provides that is an algorithm: it has a `NAME`.

    `pays(kind, group)` may be left out: whether it may be fastest for a group where no library says
    what it has.

    Attributes:
        MAKES: kinds of collectives it makes.
    """

    NAME: str
    MAKES: tuple[str, ...]

    @staticmethod
    def plan(network: Network, group: Group, kind: str) -> Plan:
        """Return how a group of more than one rank does a collective."""


def _discover() -> dict[str, Algorithm]:
    """Import every sibling and collect those that are algorithms, by name."""
    modules = (
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    )
    found = sorted((m for m in modules if hasattr(m, "NAME")), key=lambda m: m.NAME)
    for module in found:
        lacks = [part for part in ("MAKES", "plan") if not hasattr(module, part)]
        if lacks:
            raise TypeError(f"{module.__name__}: an algorithm has {' and '.join(lacks)}, got none")
    return {module.NAME: module for module in found}  # type: ignore[misc]


ALGORITHMS: dict[str, Algorithm] = _discover()


def algorithms_of(kind: str) -> tuple[str, ...]:
    """Return the algorithms that make a kind.

    Raises:
        InputError: no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"collective: unknown kind {kind!r}{suggestion(kind, KINDS)}")
    return tuple(name for name, algorithm in ALGORITHMS.items() if kind in algorithm.MAKES)


def algorithms_tried(kind: str, group: Group) -> tuple[str, ...]:
    """Return the algorithms that may be fastest for a group where no library says what it has."""
    return tuple(name for name in algorithms_of(kind) if _pays(ALGORITHMS[name], kind, group))


def _pays(algorithm: Algorithm, kind: str, group: Group) -> bool:
    return bool(getattr(algorithm, "pays", lambda *_: True)(kind, group))


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
    make = ALGORITHMS[algorithm].plan
    return PLANS.get(
        (network, group, kind, algorithm),
        lambda: make(network, group, kind),
        lambda plan: plan.rows,
    )
