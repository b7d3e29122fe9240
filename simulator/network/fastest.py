"""Groups that do the same collective at once, and the fastest way in which they can.

What no rate of a link changes is worked out once: the plan of each algorithm, what its flows take
at rates of 1, the bytes on its busiest links. Seconds on links of any speed are divisions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

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
from simulator.network.ways import Way, fixed_s, plain_efficiencies, ways

TierSeconds = list[float]
"""Of the busiest link of each tier, as in `Speeds`."""


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

    @property
    def parts(self) -> Floats:
        """(4, groups) latency, NICs, NVLink by themselves, and what stages take in turn."""
        moving_s, nic_s, nvlink_s = self.wire
        return np.stack([self.fixed_s, nic_s, nvlink_s, moving_s - np.maximum(nic_s, nvlink_s)])


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
    def busiest(self) -> tuple[list[list[TierSeconds]], TierSeconds]:
        """Seconds for one byte of the busiest links by tier, at rates of 1.

        Returns:
            Of each group alone, of each of its stages; and of all groups and stages together.
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
            alone.append(by_stage.tolist())
        return alone, [float(tier.max(initial=0.0)) for tier in np.split(every, starts)]

    def least_s(self, steps_s: list[float], size_bytes: float, speeds: Speeds) -> float:
        """Return what all groups need at least: each alone, its busiest links one after another.

        Args:
            steps_s: of launch and steps, by group.
        """
        alone, together = self.busiest
        alone_s = (
            start_s + size_bytes * sum(_over(tiers_s, speeds) for tiers_s in stages)
            for start_s, stages in zip(steps_s, alone, strict=True)
        )
        return max(*alone_s, size_bytes * _over(together, speeds))


def _over(tiers_s: TierSeconds, speeds: Speeds) -> float:
    """Return seconds of the busiest links at rates of 1, on links as fast as these."""
    nvlink_s, port_s, switch_s = tiers_s
    return max(nvlink_s / speeds.nvlink, port_s / speeds.port, switch_s / speeds.switch)


class Concurrent:
    """Groups that do a collective at once on a network, at any rates of its links."""

    def __init__(
        self,
        kind: str,
        parts: Sequence[tuple[Group, ...]],
        wires: Network,
        counts: Sequence[int] = (1,),
    ) -> None:
        """Take groups in parts that meet on no link, of which each stands for many alike.

        Args:
            wires: a network at rates of 1.
            counts: how many parts lie as each of `parts` does.
        """
        self.kind, self.parts, self.wires = kind, tuple(parts), wires
        self.groups = tuple(group for part in parts for group in part)
        self._counts = tuple(counts)
        self._routes: dict[str, tuple[Routes, ...]] = {}
        self._rows: dict[str, int] = {}
        self._tables: dict[str, WayTable | None] = {}

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
        tried: list[tuple[float, int, _Tried]] = []
        for way in self._small_enough(list(ways(self.kind, self.groups, library, algorithm))):
            candidate = self._tried(way, size_bytes, cluster, speeds)
            tried.append((candidate.least_s(size_bytes), len(tried), candidate))
        best, best_s = None, np.inf
        for least_s, _, candidate in sorted(tried):
            if best is not None and least_s >= best_s:
                break
            taken = candidate.taken(size_bytes)
            if best is None or float(taken.time_s.max()) < best_s:
                best, best_s = taken, float(taken.time_s.max())
        assert best is not None, "ways raises where there is none"
        return best

    def seconds(
        self,
        sizes: Floats,
        cluster: ClusterSpec,
        speeds: Speeds,
        library: LibrarySpec | None,
        algorithm: str = "auto",
    ) -> Floats:
        """Return (4, sizes, groups) seconds at each of several sizes, the fastest way for each.

        They are latency, of NICs and of NVLink by themselves, and what stages take in turn, as of
        `simulator.network.comm_times.CommTimes`; arguments as `fastest`. If speeds are (machines,)
        columns, machines are the second axis.
        """
        table = None
        if library is None or self.kind not in library.protocols:
            table = self._table(library, algorithm)
        if table is not None:
            reached = speeds.reached(*plain_efficiencies(library, self.kind, self.groups))
            return table.seconds(sizes, cluster, reached)
        if np.ndim(speeds.nvlink):
            rows = zip(*np.broadcast_arrays(*speeds), strict=True)
            machines = [Speeds(*map(float, row)) for row in rows]
            each_s = [self.seconds(sizes, cluster, of, library, algorithm) for of in machines]
            return np.stack(each_s, axis=1)
        return np.stack(
            [
                self.fastest(size_bytes, cluster, speeds, library, algorithm).parts
                for size_bytes in sizes.tolist()
            ],
            axis=1,
        )

    def _table(self, library: LibrarySpec | None, algorithm: str) -> "WayTable | None":
        """Return all ways without protocols as columns, kept; None where one has several stages."""
        if algorithm not in self._tables:
            tried = self._small_enough(list(ways(self.kind, self.groups, library, algorithm)))
            self._tables[algorithm] = WayTable.of([self.routes(way.algorithm) for way in tried])
        return self._tables[algorithm]

    def routes(self, algorithm: str) -> tuple[Routes, ...]:
        """Return the routes of an algorithm in each part, worked out at the first call."""
        if algorithm not in self._routes:
            self._routes[algorithm] = tuple(
                Routes(
                    self.wires,
                    tuple(plan_of(self.wires, group, self.kind, algorithm) for group in part),
                )
                for part in self.parts
            )
        return self._routes[algorithm]

    def _tried(self, way: Way, size_bytes: float, cluster: ClusterSpec, speeds: Speeds) -> "_Tried":
        routes = self.routes(way.algorithm)
        steps_s = tuple(
            [
                fixed_s(way, self.kind, size_bytes, group, plan, cluster)
                for group, plan in zip(part, route.plans, strict=True)
            ]
            for part, route in zip(self.parts, routes, strict=True)
        )
        reached = speeds.reached(way.nvlink_efficiency, way.nic_efficiency)
        return _Tried(way, routes, steps_s, reached)

    def _small_enough(self, possible: list[Way]) -> list[Way]:
        """Return the ways that are tried: large plans only where there are no others.

        Raises:
            InfeasibleError: the plans of all ways are too large.
        """
        rows = {way.algorithm: self._rows_at_most(way.algorithm) for way in possible}
        name = min(rows, key=rows.__getitem__)
        if rows[name] > ROWS_MAX:
            ranks = sum(map(len, self.groups))
            raise InfeasibleError(
                f"ranks: {self.kind} by {name} may have at most {ROWS_MAX} flows, "
                f"got {rows[name]} for {ranks} ranks"
            )
        limit = max(ROWS_TRIED, rows[name])
        return [way for way in possible if rows[way.algorithm] <= limit]

    def _rows_at_most(self, algorithm: str) -> int:
        if algorithm not in self._rows:
            self._rows[algorithm] = sum(
                count * rows_at_most(self.wires, group, self.kind, algorithm)
                for part, count in zip(self.parts, self._counts, strict=True)
                for group in part
            )
        return self._rows[algorithm]


@dataclass(frozen=True, slots=True, eq=False)
class WayTable:
    """Ways of one stage each, as columns: (ways, groups) at rates of 1.

    Attributes:
        in_node_steps, fabric_steps, switches: of each plan.
        nvlink_s, ports_s: for one byte, as of `StageSeconds`.
        stages: of each way, part by part.
    """

    in_node_steps: Floats
    fabric_steps: Floats
    switches: Floats
    nvlink_s: Floats
    ports_s: Floats
    stages: tuple[tuple[StageSeconds, ...], ...]

    @classmethod
    def of(cls, tried: Sequence[tuple[Routes, ...]]) -> "WayTable | None":
        """Return the table of some ways; None where a plan has several stages."""
        stages = tuple(tuple(routes.stages for routes in parts) for parts in tried)
        if any(len(part.nvlink_s) > 1 for way in stages for part in way):
            return None
        steps = [
            [
                (plan.in_node_steps, plan.fabric_steps, plan.switches)
                for routes in parts
                for plan in routes.plans
            ]
            for parts in tried
        ]
        nvlink_s, ports_s = (
            np.array([np.concatenate([getattr(part, name)[0] for part in way]) for way in stages])
            for name in ("nvlink_s", "ports_s")
        )
        in_node, fabric, switches = np.array(steps, np.float64).transpose(2, 0, 1)
        return cls(in_node, fabric, switches, nvlink_s, ports_s, stages)

    def seconds(self, sizes: Floats, cluster: ClusterSpec, speeds: Speeds) -> Floats:
        """Return (4, sizes, groups) seconds by the way with which the last group ends first; of
        (machines,) columns of speeds with that axis second.
        """
        hop_s = cluster.fabric.latency_s(self.switches)
        steps_s = self.in_node_steps * cluster.node.scale_up.latency_s + self.fabric_steps * hop_s
        nvlink, port = (np.reshape(rate, (-1, 1, 1)) for rate in (speeds.nvlink, speeds.port))
        nvlink_s, nic_s = self.nvlink_s / nvlink, self._fabric_s(speeds) / port
        moving_s = sizes[:, None, None] * np.maximum(nvlink_s, nic_s)[:, None]
        way = (steps_s + moving_s).max(axis=3).argmin(axis=2)  # (machines, sizes)
        machine = np.arange(len(way))[:, None]
        found = np.zeros((4, *way.shape, steps_s.shape[1]))
        found[0] = steps_s[way]
        found[1] = sizes[:, None] * nic_s[machine, way]
        found[2] = sizes[:, None] * nvlink_s[machine, way]
        return found if np.ndim(speeds.nvlink) else found[:, 0]

    def _fabric_s(self, speeds: Speeds) -> Floats:
        """Return (ways, groups) seconds on the fabric for one byte at a port rate of 1."""
        if speeds.switch == np.inf:
            return self.ports_s
        return np.array(
            [np.concatenate([part.fabric_s(speeds)[0] for part in way]) for way in self.stages]
        )


class _Tried(NamedTuple):
    """A way on links of some speed: routes and seconds of launch and steps, part by part."""

    way: Way
    routes: tuple[Routes, ...]
    steps_s: tuple[list[float], ...]
    speeds: Speeds

    def least_s(self, size_bytes: float) -> float:
        """Return what the last group needs at least."""
        pairs = zip(self.routes, self.steps_s, strict=True)
        return max(route.least_s(steps_s, size_bytes, self.speeds) for route, steps_s in pairs)

    def taken(self, size_bytes: float) -> Taken:
        """Return what all groups take."""
        parts = [route.stages.at(self.speeds) for route in self.routes]
        wire = parts[0]
        if len(parts) > 1:
            wire = WireSeconds(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        steps_s = np.array([step_s for part in self.steps_s for step_s in part])
        plans = tuple(plan for route in self.routes for plan in route.plans)
        return Taken(self.way, plans, steps_s, WireSeconds(*(each * size_bytes for each in wire)))


def _tier_starts(wires: Network) -> list[int]:
    """Return the number of the first link to a port, and between switches."""
    return [2 * wires.gpus, 2 * (wires.gpus + wires.topology.endpoints)]
