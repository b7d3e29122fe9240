"""How long the flows of plans take, of several groups at once, at any rates of links.

Every flow crosses either NVLink or the fabric, so that the two are played apart, each at rates of
1, and what they take is divided by the rate. On the fabric ports and links between switches have a
rate each. Flows are played once as if no link between switches ever bound. Where none is asked for
more than it has (at constant rates what flows ask for, else what the ports before and behind it
carry) that is what happens there too; so it is from some ratio of the two rates on. Below it they
are played once for each ratio. What is played is kept: other rates and sizes are divisions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints, Mask
from simulator.network.collectives.plan import Plan
from simulator.network.fair import finish
from simulator.network.fair_loops import SAME, loops_for
from simulator.network.flows import Flows, link_bytes
from simulator.network.kept import Kept
from simulator.network.links import Network, Speeds
from simulator.network.routing import Routes

PLAYED = Kept()
"""Seconds of the flows of plans, and the bytes they bring to links."""

ROWS_OF_A_RATIO = 100
"""What seconds at one more ratio of rates count for, though they are few numbers: so that a hundred
thousand ratios are kept, not millions."""


class WireSeconds(NamedTuple):
    """(groups,) seconds of flows for one byte of the size.

    Attributes:
        moving_s: until all are over.
        nic_s, nvlink_s: of all stages on the fabric, and on NVLink, each by itself.
    """

    moving_s: Floats
    nic_s: Floats
    nvlink_s: Floats


@dataclass(frozen=True, slots=True, eq=False)
class StageSeconds:
    """What the stages of some groups take at rates of 1.

    Attributes:
        wires: the network at rates of 1.
        stages: of each group; factors: (groups,) by which its bytes are multiplied.
        nvlink_s: (stages, groups) on NVLink.
        ports_s: (stages, groups) on the fabric if no link between switches ever binds.
        least_ratio: of the rate of links between switches and that of ports from which on this
            is so; infinite where it is not known.
        meeting: (groups,) a number for each group, the same for those that links connect.
    """

    wires: Network
    stages: tuple[tuple[Flows, ...], ...]
    factors: tuple[float, ...]
    nvlink_s: Floats
    ports_s: Floats
    least_ratio: float
    meeting: Ints

    def at(self, speeds: Speeds) -> WireSeconds:
        """Return the seconds for one byte on links as fast as these."""
        nvlink_s, nic_s = self.nvlink_s / speeds.nvlink, self.fabric_s(speeds) / speeds.port
        took_s = np.maximum(nvlink_s, nic_s)
        moving_s = took_s[0] if len(took_s) == 1 else self._in_step(took_s)
        return WireSeconds(moving_s, nic_s.sum(axis=0), nvlink_s.sum(axis=0))

    def fabric_s(self, speeds: Speeds) -> Floats:
        """Return (stages, groups) seconds on the fabric for one byte at a port rate of 1."""
        ratio = speeds.switch / speeds.port
        if ratio >= self.least_ratio * (1 - SAME):
            return self.ports_s
        return PLAYED.get((self, ratio), lambda: self._played_s(ratio), lambda _: ROWS_OF_A_RATIO)

    def _played_s(self, ratio: float) -> Floats:
        """Return (stages, groups) seconds on the fabric with links between switches that bind."""
        rates = self.wires.at(Speeds(1.0, 1.0, ratio)).bytes_per_s
        stages, groups = stage_flows(self.stages, self.factors), len(self.factors)
        fabric = (_on_fabric(self.wires, each) for each in stages)
        return np.array([_took_s(flows, rates, groups)[0] for flows in fabric])

    def _in_step(self, took_s: Floats) -> Floats:
        """Return (groups,) when all stages are over.

        Groups that have a link in common are in step: each starts a stage when all are through with
        the one before, so that no link carries two stages at once.
        """
        end_s, start_s = np.zeros(took_s.shape[1]), np.zeros(took_s.shape[1])
        for stage_s in took_s:
            end_s = np.where(stage_s > 0, start_s + stage_s, end_s)
            last_s = np.zeros(len(end_s))
            np.maximum.at(last_s, self.meeting, end_s)
            start_s = last_s[self.meeting]
        return end_s


class StageFlows(NamedTuple):
    """One stage of all groups: flows of whole groups one after another, and the group of each."""

    flows: Flows
    group: Ints


def stage_seconds(wires: Network, plans: tuple[Plan, ...]) -> StageSeconds:
    """Return what the flows of plans take for one byte of the size, all groups at once; kept.

    Times grow in proportion to bytes, since all flows start together.

    Args:
        wires: the network at rates of 1.
    """
    stages = tuple(plan.stages for plan in plans)
    factors = tuple(plan.factor for plan in plans)
    return PLAYED.get(
        (wires, stages, factors),
        lambda: _stage_seconds(wires, stages, factors),
        lambda _: sum(plan.rows for plan in plans),
    )


def _stage_seconds(
    wires: Network, stages: tuple[tuple[Flows, ...], ...], factors: tuple[float, ...]
) -> StageSeconds:
    nvlink_s, ports_s, ratios = [], [], [0.0]
    for flows in stage_flows(stages, factors):
        inside, across = _on_nvlink(wires, flows), _on_fabric(wires, flows)
        nvlink_s.append(_took_s(inside, wires.bytes_per_s, len(stages))[0])
        took_s, ratio = _on_ports(wires, across, len(stages))
        ports_s.append(took_s)
        ratios.append(ratio)
    none = np.zeros((1, len(stages)))
    return StageSeconds(
        wires,
        stages,
        factors,
        np.array(nvlink_s) if nvlink_s else none,
        np.array(ports_s) if ports_s else none,
        max(ratios),
        _meeting(stages) if len(nvlink_s) > 1 else np.arange(len(stages)),
    )


def _on_ports(wires: Network, across: StageFlows, groups: int) -> tuple[Floats, float]:
    """Return (groups,) seconds on ports alone, and the ratio from which on no other link binds."""
    flows, first = across.flows, _first_switch_link(wires)
    between = flows.route >= first
    ports = StageFlows(
        Flows(np.where(between, np.int32(-1), flows.route), flows.moved_bytes, flows.weight),
        across.group,
    )
    took_s, end_s = _took_s(ports, wires.bytes_per_s, groups)
    if not between.any():
        return took_s, 0.0
    if (ports.flows.route < 0).all(axis=1).any():  # switches that reduce: not even ports bind
        return took_s, np.inf
    if end_s is None:
        asked = _fed(wires, flows.route, between)
    else:
        steady = Flows(
            np.where(between, flows.route, np.int32(-1)), flows.moved_bytes / end_s, flows.weight
        )
        asked = link_bytes(steady, len(wires.bytes_per_s))
    with np.errstate(divide="ignore", invalid="ignore"):  # dead links carry nothing
        ratio = asked[first:] / wires.bytes_per_s[first:]
    return took_s, float(ratio.max(where=asked[first:] > 0, initial=0.0))


def _fed(wires: Network, route: Routes, between: Mask) -> Floats:
    """Return (links,) the most that links between switches can be asked for, at any moment.

    No more than the ports that flows over them leave by carry, nor than those they arrive at.
    """
    fed = []
    arrives = wires.topology.endpoints + 2 * wires.gpus
    is_port = (route >= 0) & ~between
    for is_end in (is_port & (route < arrives), is_port & (route >= arrives)):
        port = route.max(axis=1, where=is_end, initial=-1)
        row, hop = np.nonzero(between)
        pair = np.unique(route[row, hop].astype(np.int64) * len(wires.bytes_per_s) + port[row])
        link, end = np.divmod(pair, len(wires.bytes_per_s))
        fed.append(np.bincount(link, wires.bytes_per_s[end], len(wires.bytes_per_s)))
    return np.minimum(*fed).astype(np.float64)


def _took_s(stage: StageFlows, rates: Floats, groups: int) -> tuple[Floats, Floats | None]:
    """Return (groups,) seconds of a stage, and (flows,) ends if rates are constant up to them."""
    took_s = np.zeros(groups)
    times = finish(stage.flows, rates)
    np.maximum.at(took_s, stage.group, times.end_s)
    return took_s, times.end_s if times.closed_form else None


def _first_switch_link(wires: Network) -> int:
    return 2 * (wires.gpus + wires.topology.endpoints)


def _on_nvlink(wires: Network, stage: StageFlows) -> StageFlows:
    return _chosen(stage, stage.flows.route[:, 0] < 2 * wires.gpus)


def _on_fabric(wires: Network, stage: StageFlows) -> StageFlows:
    return _chosen(stage, stage.flows.route[:, 0] >= 2 * wires.gpus)


def _meeting(stages: tuple[tuple[Flows, ...], ...]) -> Ints:
    """Return (groups,) a number for each group, the same for those that links connect."""
    crossed = [
        np.concatenate([crossing_bytes(flows)[0] for flows in of_group] or [np.zeros(0, np.int64)])
        for of_group in stages
    ]
    start = np.cumsum([0, *map(len, crossed)])
    link = np.concatenate(crossed)
    label = loops_for(link.size).label_components(start, link, int(link.max(initial=-1)) + 1)
    alone = -1 - np.arange(len(stages))  # groups that cross no link
    of_link = [
        label[links[0]] if links.size else number
        for links, number in zip(crossed, alone, strict=True)
    ]
    return np.unique(of_link, return_inverse=True)[1].astype(np.int64)


def crossing_bytes(flows: Flows) -> tuple[Ints, Floats]:
    """Return the links that flows cross, and the bytes of each for one byte of the size; kept."""
    return PLAYED.get(flows, lambda: _crossing_bytes(flows), lambda crossing: len(crossing[0]))


def _crossing_bytes(flows: Flows) -> tuple[Ints, Floats]:
    """Return only links that are crossed: a small group on a large network crosses few."""
    if flows.route.size > flows.route.max(initial=-1):
        crossing = link_bytes(flows, int(flows.route.max(initial=-1)) + 1)
        links = np.flatnonzero(crossing)
        return links, crossing[links]
    links, place = np.unique(flows.route, return_inverse=True)
    moved = np.broadcast_to((flows.moved_bytes * flows.weight)[:, None], flows.route.shape)
    summed = np.bincount(place.ravel(), weights=moved.ravel(), minlength=links.size)
    some = links >= 0
    return links[some].astype(np.int64), summed[some].astype(np.float64)


def stage_flows(
    stages: Sequence[tuple[Flows, ...]], factors: Sequence[float]
) -> Iterator[StageFlows]:
    """Yield stage after stage of all groups that still have one."""
    for stage in range(max(map(len, stages), default=0)):
        taking = [number for number, of_group in enumerate(stages) if stage < len(of_group)]
        yield _joined(
            [stages[number][stage] for number in taking],
            [factors[number] for number in taking],
            np.array(taking),
        )


def _joined(flows: list[Flows], factors: list[float], groups: Ints) -> StageFlows:
    """Return flows of several groups as one."""
    group = np.repeat(groups, [len(part) for part in flows])
    if len(flows) == 1 and factors[0] == 1.0:
        return StageFlows(flows[0], group)
    hops = max(part.route.shape[1] for part in flows)
    route = [
        np.pad(part.route, ((0, 0), (0, hops - part.route.shape[1])), constant_values=-1)
        for part in flows
    ]
    moved = [part.moved_bytes * factor for part, factor in zip(flows, factors, strict=True)]
    weight = np.concatenate([part.weight for part in flows])
    return StageFlows(Flows.of(np.concatenate(route), np.concatenate(moved), weight), group)


def _chosen(stage: StageFlows, rows: Mask) -> StageFlows:
    flows = stage.flows
    chosen = Flows(flows.route[rows], flows.moved_bytes[rows], flows.weight[rows])
    return StageFlows(chosen, stage.group[rows])
