"""Seconds of parts in a screen: each is played once for all plans that have it.

Plans of one study share most of what they are made of. Layers are the same objects wherever model
and site are (`workloads.stages`), so kernels are priced once for all plans that put the same layers
on one machine, and a part is woven and played once for all whose stages hold the same of them.
What is kept is bounded, and found by what it depends on: `Setting` and the layers themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.identity import Same
from simulator.communication import CommunicationSpec
from simulator.engines import array
from simulator.engines.settle import settle
from simulator.experiment import Experiment
from simulator.lower.parts import PartGraph, part_graph
from simulator.network.exchange_pricer import ExchangePricer
from simulator.network.machine import Machine
from simulator.price.collectives import CollectivePricer
from simulator.price.finite import check_finite
from simulator.price.kernels import KernelPricer
from simulator.price.segments import (
    LoadGrid,
    SegmentOps,
    SegmentPricer,
    SegmentPrices,
    collect_ops,
    table_rows,
)
from workloads.layers import Layer
from workloads.ops import Comm, Work
from workloads.placement import Placement
from workloads.routing import RoutingStatistics
from workloads.scenarios.training import Outline
from workloads.scenarios.training_parts import part_of
from workloads.schedules.step import StepKind
from workloads.weave import Weaver


class Setting(NamedTuple):
    """All that the seconds of a part depend on, beside its layers.

    Attributes:
        compute_sms, alone_sms: SMs of kernels in overlapped parts, and in others.
        loads: (ep,) of all ranks, the greatest last.
        sent: as of `ExchangePricer`.
        placement: of ranks that share a layer; None where none do, and plans need not agree in it.
    """

    cluster: Same
    profile: Same
    communication: CommunicationSpec
    compute_sms: int
    alone_sms: int
    codec_overhead: float
    routing: tuple[RoutingStatistics, ...]
    loads: bytes
    sent: float
    placement: Placement | None

    @classmethod
    def of(cls, experiment: Experiment, outline: Outline, loads: Floats, sent: float) -> "Setting":
        """Return the setting of an experiment whose ranks meet such loads."""
        plan = experiment.plan
        is_split = plan.tp * plan.cp * plan.etp > 1
        return cls(
            Same(experiment.cluster),
            Same(experiment.profile),
            experiment.communication,
            experiment.compute_sms,
            experiment.alone_sms,
            experiment.codec_overhead,
            outline.routing,
            np.sort(loads).tobytes(),
            sent,
            outline.placement if is_split else None,
        )

    @property
    def machine(self) -> Machine:
        """Links and ports, and the library on them."""
        profile = self.profile.value
        library = profile.communication if profile else None
        return Machine.of_ports(self.cluster.value, library, self.communication.sms, self.routing)


class Holding(NamedTuple):
    """What a part is made of.

    Attributes:
        forward, backward: places of layers in those of the plan, in model order.
    """

    kind: StepKind
    forward: tuple[int, ...]
    backward: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Stock:
    """Distinct layers of a plan, and their kernels.

    Attributes:
        weaver: writes parts of them, runs of kernels as the same tuples in all.
        row: of each run of kernels in `segments`.
    """

    layers: tuple[Layer, ...]
    weaver: Weaver
    segments: SegmentOps
    row: dict[tuple[Work, ...], int]

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> "Stock":
        """Return layers in the order given; the same stock for the same ones."""
        return _stock(tuple(map(Same, layers)))

    def rows(self, part: PartGraph) -> Ints:
        """Return (segments,) the row of each segment of a part; -1 of a communication."""
        known: dict[int, int] = {}  # by identity, as kernels of many segments are one tuple
        for work in (segment.work for segment in part.segments):
            if id(work) not in known:
                known[id(work)] = self.row.get(work, -1)
        return np.array([known[id(segment.work)] for segment in part.segments], np.intp)


@lru_cache(maxsize=32)
def _stock(layers: tuple[Same, ...]) -> Stock:
    every: list[Layer] = [layer.value for layer in layers]
    weaver = Weaver()
    passes = [weaver.weave(every, ()), weaver.weave((), every)]
    segments, rows = collect_ops(passes)
    row = {
        segment.work: place
        for of_pass, places in zip(passes, rows, strict=True)
        for segment, place in zip(of_pass, places.tolist(), strict=True)
        if place >= 0
    }
    return Stock(tuple(every), weaver, segments, row)


def part_seconds(setting: Setting, stock: Stock, holding: Holding) -> float:
    """Return the seconds of a part on the rank with the greatest load.

    Raises:
        InfeasibleError: a price is not finite.
        OutOfRangeError: the profile lacks a kernel family.
    """
    return _seconds(setting, Same(stock), holding)


@lru_cache(maxsize=4096)
def _seconds(setting: Setting, stock: Same, holding: Holding) -> float:
    graph, rows = _part(stock, holding)
    prices = _prices(setting, stock)
    alone_s = _alone_s(setting, graph, rows, prices)
    factor = prices.factors_of(graph.segments, rows)
    settled = settle(array, graph.graph, graph.pairs, alone_s, factor, 1)
    return float(settled.played.makespan_s[0])


@lru_cache(maxsize=256)
def _part(stock: Same, holding: Holding) -> tuple[PartGraph, Ints]:
    """Return the tasks of a part, and the row of each one's kernels."""
    layers, (kind, *of_pass) = stock.value.layers, holding
    stages = [[layers[place] for place in places] for places in of_pass]
    key = kind, 0 if holding.forward else -1, 1 if holding.backward else -1
    graph = part_graph(part_of(key, stages, stock.value.weaver))
    return graph, stock.value.rows(graph)


@lru_cache(maxsize=64)
def _prices(setting: Setting, stock: Same) -> SegmentPrices:
    return _pricer(setting).prices(stock.value.segments, _grid(setting))


@lru_cache(maxsize=64)
def _pricer(setting: Setting) -> SegmentPricer:
    chip, profile = setting.cluster.value.node.chip, setting.profile.value
    machine, placement = setting.machine, setting.placement
    exchanges = ExchangePricer.of(machine)
    return SegmentPricer(
        KernelPricer(chip, profile, setting.compute_sms),
        replace(exchanges, codec_overhead=setting.codec_overhead, sent=setting.sent),
        None if placement is None else CollectivePricer(machine, placement),
        KernelPricer(chip, profile, setting.alone_sms),
        exposed_factor=1 / setting.communication.exposed_rate,
    )


def _loads(setting: Setting) -> Floats:
    return np.frombuffer(setting.loads)


def _grid(setting: Setting) -> LoadGrid:
    return LoadGrid.over(1.0, float(_loads(setting)[-1]))


@lru_cache(maxsize=256)
def _comm_s(setting: Setting, comm: Comm) -> float:
    """Return the seconds of a communication with nothing beside it."""
    return float(_pricer(setting).comm_s(comm, _loads(setting)))


def _alone_s(setting: Setting, graph: PartGraph, rows: Ints, prices: SegmentPrices) -> Floats:
    """Return (tasks, 1) seconds of a part's segments with nothing beside them."""
    part = graph.part
    meets = np.array([segment.load >= 0 for segment in part.segments], np.int64)
    # Of the balanced load, and of the greatest.
    column = prices.grid.column(np.array([1.0, _loads(setting)[-1]]))
    of_table = table_rows(rows, len(prices.seconds) // 2, overlapped=part.overlapped)
    alone_s = prices.seconds[of_table, column[meets]]
    slower = float(prices.exchange_slowdown(overlapped=part.overlapped))
    for place in np.flatnonzero(rows < 0).tolist():
        comm = part.segments[place].comm
        assert comm is not None, "what is no kernel communicates"
        alone_s[place] = _comm_s(setting, comm) * slower
    check_finite(alone_s, lambda place: f"seconds of {part.segments[place].label}")
    return np.asarray(alone_s[:, None])
