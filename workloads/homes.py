"""Homes of stages: pipeline ranks that hold the same ones, and the tables that homes share.

Under DualPipe ranks r and pp - 1 - r hold stages r and pp - 1 - r, so they are one home and a table
of the first and the last stage lies in one place, as it does in V-shapes, whose rank 0 holds both.
With other schedules it may lie in several: tied embeddings, or an MTP module away from the first
stage or from the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workloads.layers import Layer
from workloads.optimizer import SharedTable
from workloads.parallel import ParallelPlan
from workloads.placement import Placement


@dataclass(frozen=True, slots=True)
class Home:
    """Pipeline ranks that hold the same stages.

    Attributes:
        ranks, stages: in ascending order.
    """

    ranks: tuple[int, ...]
    stages: tuple[int, ...]


def homes_of(plan: ParallelPlan) -> tuple[Home, ...]:
    """Return the homes of a plan, in the order of their first ranks."""
    ranks_of: dict[tuple[int, ...], list[int]] = {}
    for rank in range(plan.pp):
        ranks_of.setdefault(tuple(sorted(plan.stages_of_rank(rank))), []).append(rank)
    return tuple(Home(tuple(ranks), stages) for stages, ranks in ranks_of.items())


@dataclass(frozen=True, slots=True)
class Holders:
    """A table, and the homes that hold it: more than one."""

    name: str
    parameters: float
    homes: tuple[Home, ...]

    @property
    def ranks(self) -> tuple[tuple[int, ...], ...]:
        """Pipeline ranks that reduce its gradient together: one of each home."""
        return tuple(zip(*(home.ranks for home in self.homes), strict=True))

    def seen_from(self, rank: int, placement: Placement) -> SharedTable:
        """Return the table as pipeline rank `rank` sees it."""
        if not any(rank in ranks for ranks in self.ranks):
            return SharedTable(self.name, 0.0, placement.joint_replicas([rank]))
        groups = np.concatenate([placement.joint_replicas(ranks) for ranks in self.ranks])
        return SharedTable(self.name, self.parameters, groups)


def shared_tables(homes: Sequence[Home], stages: Sequence[Sequence[Layer]]) -> tuple[Holders, ...]:
    """Return the tables that several homes hold."""
    holders: dict[tuple[str, float], dict[Home, None]] = {}
    for home in homes:
        for stage in home.stages:
            for table in (table for layer in stages[stage] for table in layer.tables):
                holders.setdefault(table, {})[home] = None
    return tuple(
        Holders(name, parameters, tuple(table_homes))
        for (name, parameters), table_homes in holders.items()
        if len(table_homes) > 1
    )
