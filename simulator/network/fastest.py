"""Groups that do the same collective at once, and the fastest way in which they can.

What no rate of a link changes is worked out once: the plan of each algorithm, what its flows take
at rates of 1, the bytes on its busiest links. Seconds on links of any speed are divisions.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.cluster import ClusterSpec
from hwmodels.errors import InfeasibleError
from hwmodels.library import LibrarySpec
from simulator.network.collectives import plan_of
from simulator.network.collectives.plan import Plan
from simulator.network.collectives.rows import ROWS_MAX, ROWS_TRIED, rows_at_most
from simulator.network.links import Network, Speeds
from simulator.network.placement import Group
from simulator.network.timing import (
    StageSeconds,
    WireSeconds,
    crossing_bytes,
    stage_seconds,
)
from simulator.network.ways import Way, fixed_s, ways


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What groups took, by the way that was fastest.

    Attributes:
        plans: of each group.
        fixed_s: (groups,) seconds of launch and steps.
        wire: (groups,) seconds of all bytes.
    """

    way: Way
    plans: tuple[Plan, ...]
    fixed_s: Floats
    wire: WireSeconds

    @property
    def time_s(self) -> Floats:
        """(groups,) all seconds."""
        return self.fixed_s + self.wire.moving_s


@dataclass(frozen=True, eq=False)
class Routes:
    """One algorithm of several groups at once, before any rate of a link."""

    wires: Network
    plans: tuple[Plan, ...]

    @cached_property
    def stages(self) -> StageSeconds:
        """What its flows take at rates of 1."""
        return stage_seconds(self.wires, self.plans)

    @cached_property
    def busiest(self) -> tuple[list[Floats], Floats]:
        """Seconds for one byte of the busiest links by tier, at rates of 1.

        Returns:
            Of each group alone, (stages, tiers); and (tiers,) of all groups and stages together.
        """
        left, starts = self.wires.bytes_per_s, _tier_starts(self.wires)
        every, alone = np.zeros(len(left)), []
        for plan in self.plans:
            by_stage = np.zeros((len(plan.stages), len(Speeds._fields)))
            for tiers_s, flows in zip(by_stage, plan.stages, strict=True):
                links, moved = crossing_bytes(flows)
                busy_s = moved * plan.factor / left[links]
                np.maximum.at(tiers_s, np.searchsorted(starts, links, "right"), busy_s)
                every[links] += busy_s
            alone.append(by_stage)
        together = [part.max(initial=0.0) for part in np.split(every, starts)]
        return alone, np.array(together)

    def least_s(self, steps_s: Floats, size_bytes: float, speeds: Speeds) -> float:
        """Return what all groups need at least: each alone, its busiest links one after another.

        Args:
            steps_s: (groups,) seconds of launch and steps.
        """
        alone, together = self.busiest
        alone_s = [
            float((by_stage / speeds).max(axis=1, initial=0.0).sum()) * size_bytes
            for by_stage in alone
        ]
        together_s = float((together / speeds).max()) * size_bytes
        return max(float((steps_s + np.array(alone_s)).max()), together_s)


class Concurrent:
    """Groups that do a collective at once on a network, at any rates of its links."""

    def __init__(self, kind: str, groups: tuple[Group, ...], wires: Network) -> None:
        """Take groups on `wires`, a network at rates of 1."""
        self.kind, self.groups, self.wires = kind, groups, wires
        self._routes: dict[str, Routes] = {}

    def fastest(
        self,
        size_bytes: float,
        cluster: ClusterSpec,
        speeds: Speeds,
        library: LibrarySpec | None,
        algorithm: str = "auto",
    ) -> Taken:
        """Return the way with which the last group ends first.

        The busiest links tell how fast each way could be at best; the most promising is played
        first, and those that could not be faster are not played.

        Args:
            cluster: whose latencies messages have.
            speeds: of its links.

        Raises:
            InfeasibleError: the plans of all ways are too large, or a rank is not reached.
            OutOfRangeError: the library says nothing about such a collective.
        """
        tried: list[tuple[float, int, Way, Routes, Floats, Speeds]] = []
        for way in self._small_enough(list(ways(self.kind, self.groups, library, algorithm))):
            reached = speeds.reached(way.nvlink_efficiency, way.nic_efficiency)
            routes = self.routes(way.algorithm)
            pairs = zip(self.groups, routes.plans, strict=True)
            steps_s = np.array(
                [fixed_s(way, self.kind, size_bytes, *pair, cluster) for pair in pairs]
            )
            least_s = routes.least_s(steps_s, size_bytes, reached)
            tried.append((least_s, len(tried), way, routes, steps_s, reached))
        best: Taken | None = None
        best_s = np.inf
        for least_s, _, way, routes, steps_s, reached in sorted(tried, key=lambda each: each[:2]):
            if best is not None and least_s >= best_s:
                break
            per_byte = routes.stages.at(reached)
            wire = WireSeconds(*(seconds * size_bytes for seconds in per_byte))
            taken = Taken(way, routes.plans, steps_s, wire)
            if best is None or float(taken.time_s.max()) < best_s:
                best, best_s = taken, float(taken.time_s.max())
        assert best is not None, "ways raises where there is none"
        return best

    def routes(self, algorithm: str) -> Routes:
        """Return the routes of an algorithm, worked out at the first call."""
        if algorithm not in self._routes:
            plans = [plan_of(self.wires, group, self.kind, algorithm) for group in self.groups]
            self._routes[algorithm] = Routes(self.wires, tuple(plans))
        return self._routes[algorithm]

    def _small_enough(self, possible: list[Way]) -> list[Way]:
        """Return the ways that are tried: large plans only where there are no others.

        Raises:
            InfeasibleError: the plans of all ways are too large.
        """
        rows = {way.algorithm: self._rows_at_most[way.algorithm] for way in possible}
        name = min(rows, key=rows.__getitem__)
        if rows[name] > ROWS_MAX:
            ranks = sum(map(len, self.groups))
            raise InfeasibleError(
                f"ranks: {self.kind} by {name} may have at most {ROWS_MAX} flows, "
                f"got {rows[name]} for {ranks} ranks"
            )
        limit = max(ROWS_TRIED, rows[name])
        return [way for way in possible if rows[way.algorithm] <= limit]

    @cached_property
    def _rows_at_most(self) -> "_Rows":
        return _Rows(self)


class _Rows(dict[str, int]):
    """Rows of the plans of each algorithm at most, summed over groups at the first look."""

    def __init__(self, concurrent: Concurrent) -> None:
        super().__init__()
        self.concurrent = concurrent

    def __missing__(self, algorithm: str) -> int:
        kind, wires = self.concurrent.kind, self.concurrent.wires
        groups = self.concurrent.groups
        self[algorithm] = sum(rows_at_most(wires, group, kind, algorithm) for group in groups)
        return self[algorithm]


def _tier_starts(wires: Network) -> list[int]:
    """Return the number of the first link to a port, and between switches."""
    return [2 * wires.gpus, 2 * (wires.gpus + wires.topology.endpoints)]
