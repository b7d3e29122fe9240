"""Seconds of every task on every rank of whole expert groups of pipelines, before they are played.

How much a segment is slowed beside the other stream is taken from folded play of its part, the
mean over ranks: the one thing that is not played rank by rank.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.lower.durations import (
    Slowness,
    Work,
    exchange_seconds,
    fill_durations,
    load_columns,
)
from simulator.lower.expansion import Expansion, expand
from simulator.lower.folded import FoldedPlay
from simulator.lower.lowered import Lowered
from simulator.lower.spread import GroupDraw, Spread, draw_group
from simulator.price.fabric_slowdowns import FabricSlowdowns
from simulator.price.messages import MessageTimes
from simulator.price.segments import (
    ExchangePart,
    LoadGrid,
    SegmentPricer,
    SegmentPrices,
    table_rows,
)


@dataclass(frozen=True, slots=True, eq=False)
class RankSeconds:
    """What the ranks of any expert groups take for their tasks.

    Attributes:
        spread: how ranks differ.
        message_s: (pp, pp, dp) that a message from pipeline rank to pipeline rank holds the sending
            port, in each pipeline; message_on_nics_s: that its bytes need of NICs.
        work: of a whole pipeline; prices: of its kernels.
        fabric: what the network slows exchanges down, beside what is in the prices.
    """

    spread: Spread
    lowered: Lowered
    expansion: Expansion
    message_s: Floats
    message_on_nics_s: Floats
    work: Work
    prices: SegmentPrices
    pricer: SegmentPricer
    fabric: FabricSlowdowns | None = None

    @classmethod
    def of(
        cls,
        spread: Spread,
        folded: FoldedPlay,
        pricer: SegmentPricer,
        messages: MessageTimes,
        fabric: FabricSlowdowns | None = None,
    ) -> "RankSeconds":
        """Return those of a program that was played folded."""
        expansion, lowered = expand(folded.lowered), folded.lowered
        return cls(
            spread,
            lowered,
            expansion,
            messages.between(messages.times.seconds),
            messages.between(messages.times.nic_s),
            _work(folded, expansion),
            folded.prices,
            pricer,
            fabric,
        )

    def draws(self, groups: range) -> list[GroupDraw]:
        """Return what the ranks of some groups meet."""
        layers = self.expansion.slot_layer
        return [draw_group(self.spread, self.lowered, layers, group) for group in groups]

    def seconds(self, draws: list[GroupDraw]) -> Floats:
        """Return (tasks, replicas) seconds of every task of some groups."""
        expansion, prices = self.expansion, self.prices
        load = loads_of(draws)
        if not prices.grid.holds(load):  # one of millions of draws: price up to it
            grid = LoadGrid.over(float(load.min()), float(load.max()))
            prices = self.pricer.prices(self.lowered.segments, grid)
        replicas = load.shape[1] * load.shape[2]
        column = load_columns(prices.grid, load.reshape(len(load), replicas))
        slowness = Slowness(
            expansion.rank,
            expansion.step,
            np.concatenate([draw.slowness for draw in draws], axis=1),
            np.concatenate([draw.jitter for draw in draws], axis=1),
        )
        exchange_s = self.exchange_s(draws, load)
        seconds = fill_durations(self.work, prices.seconds, column, exchange_s, slowness)
        seconds[expansion.message] = self._of_messages(self.message_s, draws)
        return seconds

    def exchange_s(
        self, draws: list[GroupDraw], load: Floats, part: ExchangePart = "seconds"
    ) -> Floats:
        """Return (exchanges, slots, groups) seconds of every distinct exchange, or a part of them,
        before any other slowdown than that of links.

        Args:
            load: `loads_of` the draws.
        """
        nic_slowdown, nvlink_slowdown = (
            link[self.expansion.slot_rank] if (link != 1).any() else 1.0
            for link in self._on_fabric(draws, *_links(draws))
        )
        return exchange_seconds(
            self.lowered,
            self.pricer.of_exchanges(part),
            load,
            nic_slowdown,
            nvlink_slowdown,
            self._layout(draws),
        )

    def message_nic_s(self, draws: list[GroupDraw]) -> Floats:
        """Return (messages, replicas) seconds that messages need of NICs."""
        return self._of_messages(self.message_on_nics_s, draws)

    def link_blame_s(self, draw: GroupDraw) -> Floats:
        """Return (pp, ep) seconds that the slowest links add to the exchanges of the others."""
        links, work, expansion = draw.links, self.work, self.expansion
        blame_s = np.zeros_like(links)
        if (links == 1).all():
            return blame_s
        load, rank = draw.load[:, None], expansion.slot_rank
        layout = self._layout([draw])
        nic, nvlink = draw.nic[rank, None], draw.nvlink[rank, None]
        slow_s = exchange_seconds(self.lowered, self.pricer, load, nic, nvlink, layout)
        whole_s = exchange_seconds(self.lowered, self.pricer, load, layout=layout)
        excess_s = (slow_s - whole_s)[..., 0]
        tasks = np.flatnonzero(work.exchange >= 0)
        task_s = excess_s[work.exchange[tasks], work.slot[tasks]] * work.factor[tasks]
        by_rank = np.bincount(expansion.rank[tasks], task_s, len(links))
        blame_s[np.arange(len(links)), links.argmax(axis=1)] = by_rank * (links.shape[1] - 1)
        return blame_s

    def _layout(self, draws: list[GroupDraw]) -> Ints:
        """Return (slots, groups) how each group that meets a load lies over nodes."""
        layout = self.lowered.program.placement.layout_of_group
        return np.asarray(layout[self.expansion.slot_rank][:, [draw.group for draw in draws]])

    def _of_messages(self, between_s: Floats, draws: list[GroupDraw]) -> Floats:
        """Return (messages, replicas) seconds, as slow as the slower of the two ports.

        Args:
            between_s: (pp, pp, dp) from pipeline rank to pipeline rank, on links as priced.
        """
        nic, nvlink = _links(draws)
        expansion, placement = self.expansion, self.lowered.program.placement
        sender = expansion.rank[expansion.message]
        receiver = self.lowered.pipeline.links.receiver
        pipelines = placement.pipelines_of_group[[draw.group for draw in draws]].ravel()
        crosses = placement.crosses[:, :, pipelines][sender, receiver]
        over_nic, over_nvlink = (
            np.maximum(ports[sender], ports[receiver])
            for ports in (link.reshape(len(link), -1) for link in (nic, nvlink))
        )
        seconds = between_s[:, :, pipelines][sender, receiver]
        return np.asarray(seconds * np.where(crosses, over_nic, over_nvlink))

    def _on_fabric(
        self, draws: list[GroupDraw], nic: Floats, nvlink: Floats
    ) -> tuple[Floats, Floats]:
        """Return (pp, groups, ep) slowdowns of links in exchanges, the network's among them."""
        if self.fabric is None:
            return nic, nvlink
        groups = [draw.group for draw in draws]
        pipelines = self.lowered.program.placement.pipelines_of_group[groups]
        return (
            nic * self.fabric.exchange[:, groups, None],
            nvlink * self.fabric.nvlink[:, pipelines],
        )


def loads_of(draws: list[GroupDraw]) -> Floats:
    """Return (slots, groups, ep) expert loads, read only: all exchanges then ask for their slowest
    ports once.
    """
    load = np.stack([draw.load for draw in draws], axis=1)
    load.flags.writeable = False
    return load


def _links(draws: list[GroupDraw]) -> tuple[Floats, Floats]:
    """Return (pp, groups, ep) slowdowns of NICs and of NVLink."""
    nic, nvlink = (
        np.stack([getattr(draw, name) for draw in draws], axis=1) for name in ("nic", "nvlink")
    )
    return nic, nvlink


def _work(folded: FoldedPlay, expansion: Expansion) -> Work:
    """Return what the tasks of a whole pipeline are, slowed by what runs beside them."""
    prices, factors = folded.prices, []
    for part, slowdown in zip(folded.lowered.parts.values(), folded.slowdown, strict=True):
        exposed = prices.exchange_slowdown(overlapped=part.graph.part.overlapped)
        factors.append(slowdown * np.where(part.is_comm, exposed, 1.0))
    row, exchange = _rows(folded.lowered)
    # Begin and end take no time, messages theirs from rank to rank.
    factor = np.append(np.concatenate(factors), 0.0)[expansion.part]
    return Work(row, exchange, expansion.slot, factor)


@lru_cache(maxsize=4)
def _rows(lowered: Lowered) -> tuple[Ints, Ints]:
    """Return (tasks,) row of the price table and number of the exchange of a whole pipeline's
    tasks, -1 for none.
    """
    parts, expansion = lowered.parts.values(), expand(lowered)
    rows = [
        table_rows(part.row, len(lowered.segments.first), overlapped=part.graph.part.overlapped)
        for part in parts
    ]
    exchanges = list(lowered.comm_of.values())
    row, exchange = (np.append(np.concatenate(columns), -1) for columns in (rows, exchanges))
    return row[expansion.part], exchange[expansion.part]
