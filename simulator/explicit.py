"""Explicit play: every rank of every pipeline, segment by segment.

Collectives hold a group until its slowest member comes, so persistently loaded experts, slow GPUs,
jitter and stragglers show what no mean rank shows. How much a segment is slowed beside the other
stream is taken from folded play of its chunk, the mean over ranks: the one thing that is not played
rank by rank. Groups of pipelines are played one by one, so memory does not grow with their number.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simulator.blueprint import Blueprint
from simulator.expansion import STREAMS, Expansion, expand
from simulator.experiment import Experiment
from simulator.fabric_slowdowns import FabricSlowdowns
from simulator.folded import FoldedPlay, exchange_seconds
from simulator.play.chunk import Engine
from simulator.play.durations import Slowness, Work, fill_durations
from simulator.play.graph import Floats, Ints
from simulator.play.order import order_of, ready_s
from simulator.play.pipeline import COMPUTE, PHASES, RankTimes
from simulator.play.timeline import ReplicaTimeline, Timeline
from simulator.price.optimizer import OptimizerSeconds
from simulator.price.segments import SegmentPricer, SegmentPrices, load_index
from simulator.ranks import GroupDraw, draw_group
from simulator.record import PipelineRecord
from workloads.chunks import COMM

TILES_BYTES = 1.5e9  # of durations that are in memory at once
TILE_RANKS = 64  # pipelines played side by side, if their expert groups are no larger


@dataclass(frozen=True, slots=True, eq=False)
class ExplicitPlay:
    """What every rank did in one step; a rank is (pipeline rank, pipeline).

    Attributes:
        phase_s: (phases, pp, dp) seconds, in the order of `pipeline.PHASES`; they sum to the step.
        compute_s, communication_s: (pp, dp) seconds of work by stream.
        wait_s: (pp, dp) seconds a rank waited for others in exchanges.
        blame_s: (pp, dp) seconds that it cost others there: waiting for it, the last to come, and
            what its slow links add to their exchanges.
        finish_s: (pp, dp) end of its last chunk.
        optimizer_s: (pp,) seconds of the end of the step.
        step_s: until the last rank has updated its weights.
        tasks: played.
        player: plays single groups again, to look closer.
    """

    phase_s: Floats
    compute_s: Floats
    communication_s: Floats
    wait_s: Floats
    blame_s: Floats
    finish_s: Floats
    optimizer_s: Floats
    step_s: float
    tasks: int
    player: "GroupPlayer"

    @property
    def times(self) -> RankTimes:
        """Where the time of each pipeline rank went, mean over pipelines."""
        return RankTimes(dict(zip(PHASES, self.phase_s.mean(axis=2), strict=True)), self.step_s)

    @property
    def optimizer_start_s(self) -> Floats:
        """(pp,) when all ranks whose gradients meet have ended their last chunk."""
        return _optimizer_start_s(self.player.blueprint, self.finish_s)

    def record(self, pipeline: int) -> PipelineRecord:
        """Return all that happened in one pipeline; its group is played again."""
        player = self.player
        expansion, whole = player.expansion, player.blueprint.pipeline
        group, replica = divmod(pipeline, player.experiment.plan.ep)
        played, duration_s = player.play(range(group, group + 1), keep=None)
        end_s, seconds = played.end_s[:, replica], duration_s[:, replica]
        segments = Timeline(
            expansion.graph.with_durations(seconds),
            ready_s(expansion.graph, end_s),
            end_s - seconds,
            end_s,
        )
        start_s = self.optimizer_start_s
        return PipelineRecord.of(whole, expansion, segments, start_s, start_s + self.optimizer_s)


def play_explicit(
    experiment: Experiment,
    folded: FoldedPlay,
    pricer: SegmentPricer,
    engine: Engine,
    message_s: Floats,
    optimizer: OptimizerSeconds,
    fabric: FabricSlowdowns | None = None,
) -> ExplicitPlay:
    """Play every rank.

    Args:
        folded: the same experiment played folded; its prices and slowdowns are used.
        message_s: (pp, pp, dp) that a message from pipeline rank to pipeline rank holds the sending
            port, in each pipeline.
        optimizer: of the end of the step; as slow as the slowest of the ranks that hold a stage.
        fabric: what the network slows down, beside what is in the prices.
    """
    player = GroupPlayer.of(experiment, folded, pricer, engine, message_s, fabric)
    blueprint = folded.blueprint
    homes, joined = blueprint.pipeline.homes, blueprint.pipeline.joined
    if fabric is not None:
        nvlink = largest_among(joined, fabric.nvlink.max(axis=1))
        optimizer = optimizer.slowed(fabric.ring, nvlink)
    tiles = player.tiles()
    order_of(player.expansion.graph)  # before threads work it out side by side
    with ThreadPoolExecutor(player.threads(len(tiles))) as threads:
        played = list(threads.map(player.summary, tiles))
    finish_s = np.concatenate([each.finish_s for each in played], axis=1)
    kernels, *links = np.max([each.slowest for each in played], axis=0)
    seconds = optimizer.seconds(
        largest_among(homes, kernels), *(largest_among(joined, link) for link in links)
    )
    step_s = float((_optimizer_start_s(blueprint, finish_s) + seconds).max())
    phase_s = np.concatenate([each.phase_s for each in played], axis=2)
    phase_s[PHASES.index("optimizer")] = seconds[:, None]
    phase_s[PHASES.index("bubble")] = step_s - phase_s.sum(axis=0)
    compute_s, communication_s, wait_s, blame_s = (
        np.concatenate(columns, axis=1)
        for columns in zip(*(each.streams for each in played), strict=True)
    )
    return ExplicitPlay(
        phase_s,
        compute_s,
        communication_s,
        wait_s,
        blame_s,
        finish_s,
        seconds,
        step_s,
        len(player.expansion.graph) * finish_s.shape[1],
        player,
    )


def _optimizer_start_s(blueprint: Blueprint, finish_s: Floats) -> Floats:
    """Return (pp,) when all ranks, of all pipelines, whose gradients meet have ended."""
    return largest_among(blueprint.pipeline.joined, finish_s.max(axis=1))


def largest_among(groups: Ints, values: Floats) -> Floats:
    """Return (pp,) the largest of (pp,) values among the pipeline ranks of one group."""
    latest = np.full(groups.max() + 1, -np.inf)
    np.maximum.at(latest, groups, values)
    return np.asarray(latest[groups])


class _Summary(NamedTuple):
    """What is kept of one tile: arrays as in `ExplicitPlay`, for its pipelines.

    Attributes:
        streams: compute, communication, wait and blame.
        slowest: (3, pp) largest slowdown of a GPU's kernels, of its NIC, and of its NVLink.
    """

    phase_s: Floats
    streams: tuple[Floats, Floats, Floats, Floats]
    finish_s: Floats
    slowest: Floats


@dataclass(frozen=True, slots=True, eq=False)
class GroupPlayer:
    """Plays tiles of whole expert groups of pipelines."""

    experiment: Experiment
    blueprint: Blueprint
    expansion: Expansion
    message_s: Floats
    work: Work
    prices: SegmentPrices
    pricer: SegmentPricer
    engine: Engine
    fabric: FabricSlowdowns | None = None

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        folded: FoldedPlay,
        pricer: SegmentPricer,
        engine: Engine,
        message_s: Floats,
        fabric: FabricSlowdowns | None = None,
    ) -> "GroupPlayer":
        """Return the player of an experiment; arguments as of `play_explicit`."""
        expansion, plan = expand(folded.blueprint), folded.blueprint
        work = _work(experiment, folded, expansion)
        return cls(
            experiment, plan, expansion, message_s, work, folded.prices, pricer, engine, fabric
        )

    def tiles(self) -> list[range]:
        """Return the numbers of all groups, in tiles."""
        groups = self.experiment.plan.mesh(self.experiment.cluster.gpus).edp
        width = max(1, TILE_RANKS // self.experiment.plan.ep)
        return [range(first, min(first + width, groups)) for first in range(0, groups, width)]

    def threads(self, tiles: int) -> int:
        """Return how many tiles may be played side by side, for memory's sake."""
        width = max(TILE_RANKS, self.experiment.plan.ep)
        tile_bytes = 8 * len(self.expansion.graph) * width
        return max(1, min(tiles, os.cpu_count() or 1, int(TILES_BYTES / tile_bytes)))

    def play(self, groups: range, keep: Ints | None) -> tuple[ReplicaTimeline, Floats]:
        """Play some groups; return their timeline and (tasks, replicas) durations."""
        return self._play(self._draws(groups), keep)

    def _draws(self, groups: range) -> list[GroupDraw]:
        layers = self.expansion.slot_layer
        return [draw_group(self.experiment, self.blueprint, layers, group) for group in groups]

    def _play(self, draws: list[GroupDraw], keep: Ints | None) -> tuple[ReplicaTimeline, Floats]:
        duration_s = self._durations(draws)
        graph, ep = self.expansion.graph, self.experiment.plan.ep
        return self.engine.play_replicas(graph, duration_s, ep, keep), duration_s

    def summary(self, groups: range) -> _Summary:
        """Play some groups and reduce what happened to each of their ranks."""
        expansion = self.expansion
        draws = self._draws(groups)
        played, _ = self._play(draws, keep=np.concatenate([expansion.begin, expansion.end]))
        begin_s, end_s = np.split(played.end_s, 2)
        last = np.array(self.blueprint.pipeline.links.first[1:]) - 1
        busy_s, wait_s, blame_s = (
            each.reshape(len(last), len(STREAMS), -1)
            for each in (played.busy_s, played.wait_s, played.blame_s)
        )
        compute, comm = STREAMS.index(COMPUTE), STREAMS.index(COMM)
        slowest = [
            [each.max(axis=1) for each in (draw.slowness, draw.nic, draw.nvlink)] for draw in draws
        ]
        by_links_s = np.concatenate([self._link_blame_s(draw) for draw in draws], axis=1)
        return _Summary(
            self._phase_s(end_s - begin_s),
            (busy_s[:, compute], busy_s[:, comm], wait_s[:, comm], blame_s[:, comm] + by_links_s),
            end_s[last],
            np.max(slowest, axis=0),
        )

    def _phase_s(self, chunk_s: Floats) -> Floats:
        """Return (phases, pp, replicas) sums of (steps, replicas) seconds of chunks."""
        pipeline, steps = self.blueprint.pipeline, len(chunk_s)
        pp = len(pipeline.program)
        place = pipeline.phase[:steps] * pp + pipeline.rank[:steps]
        order = np.argsort(place, kind="stable")
        present, first = np.unique(place[order], return_index=True)
        phase_s = np.zeros((len(PHASES) * pp, chunk_s.shape[1]))
        phase_s[present] = np.add.reduceat(chunk_s[order], first, axis=0)
        return phase_s.reshape(len(PHASES), pp, -1)

    def _link_blame_s(self, draw: GroupDraw) -> Floats:
        """Return (pp, ep) seconds that the slowest links add to the exchanges of the others."""
        links, work, expansion = draw.links, self.work, self.expansion
        blame_s = np.zeros_like(links)
        if (links == 1).all():
            return blame_s
        load, rank = draw.load[:, None], expansion.slot_rank
        layout = self._layout([draw])
        nic, nvlink = draw.nic[rank, None], draw.nvlink[rank, None]
        slow_s = exchange_seconds(self.blueprint, self.pricer, load, nic, nvlink, layout)
        whole_s = exchange_seconds(self.blueprint, self.pricer, load, layout=layout)
        excess_s = (slow_s - whole_s)[..., 0]
        tasks = np.flatnonzero(work.exchange >= 0)
        own_s = excess_s[work.exchange[tasks], work.slot[tasks]] * work.factor[tasks]
        by_rank = np.bincount(expansion.rank[tasks], own_s, len(links))
        blame_s[np.arange(len(links)), links.argmax(axis=1)] = by_rank * (links.shape[1] - 1)
        return blame_s

    def _durations(self, draws: list[GroupDraw]) -> Floats:
        """Return (tasks, replicas) seconds of every task of some groups."""
        expansion, blueprint = self.expansion, self.blueprint
        load = np.stack([draw.load for draw in draws], axis=1)  # (slots, groups, ep)
        nic, nvlink = (
            np.stack([getattr(draw, name) for draw in draws], axis=1) for name in ("nic", "nvlink")
        )
        column = load_index(load).reshape(len(load), nic[0].size)
        table = self.prices.seconds
        if column.max(initial=0) >= table.shape[1]:  # one of millions of draws: price up to it
            table = self.pricer.prices(blueprint.segments, float(load.max())).seconds
        slot_rank = expansion.slot_rank
        slowness = Slowness(
            expansion.rank,
            expansion.step,
            np.concatenate([draw.slowness for draw in draws], axis=1),
            np.concatenate([draw.jitter for draw in draws], axis=1),
        )
        nic_exchange, nvlink = self._on_fabric(draws, nic, nvlink)
        exchange_s = exchange_seconds(
            blueprint,
            self.pricer,
            load,
            nic_exchange[slot_rank],
            nvlink[slot_rank],
            self._layout(draws),
        )
        seconds = fill_durations(self.work, table, column, exchange_s, slowness)
        seconds[expansion.message] = self._message_s(draws, nic, nvlink)
        return seconds

    def _layout(self, draws: list[GroupDraw]) -> Ints:
        """Return (slots, groups) how each group that meets a load lies over nodes."""
        layout = self.blueprint.workload.placement.layout_of_group
        return np.asarray(layout[self.expansion.slot_rank][:, [draw.group for draw in draws]])

    def _message_s(self, draws: list[GroupDraw], nic: Floats, nvlink: Floats) -> Floats:
        """Return (messages, replicas) seconds, as slow as the slower of the two ports.

        Args:
            nic, nvlink: (pp, groups, ep) slowdowns of links.
        """
        expansion, ep = self.expansion, nic.shape[2]
        sender = expansion.rank[expansion.message]
        receiver = self.blueprint.pipeline.links.receiver
        own = (np.array([draw.group for draw in draws])[:, None] * ep + np.arange(ep)).ravel()
        crosses = self.blueprint.workload.placement.crosses[:, :, own][sender, receiver]
        over_nic, over_nvlink = (
            np.maximum(ports[sender], ports[receiver])
            for ports in (each.reshape(len(each), -1) for each in (nic, nvlink))
        )
        seconds = self.message_s[:, :, own][sender, receiver]
        if self.fabric is not None:
            over_nic = over_nic * self.fabric.message[:, :, own][sender, receiver]
        return np.asarray(seconds * np.where(crosses, over_nic, over_nvlink))

    def _on_fabric(
        self, draws: list[GroupDraw], nic: Floats, nvlink: Floats
    ) -> tuple[Floats, Floats]:
        """Return (pp, groups, ep) slowdowns of links in exchanges, the network's among them."""
        if self.fabric is None:
            return nic, nvlink
        groups = [draw.group for draw in draws]
        own = self.fabric.nvlink.reshape(len(nic), -1, nic.shape[2])[:, groups]
        return nic * self.fabric.exchange[:, groups, None], nvlink * own


def _work(experiment: Experiment, folded: FoldedPlay, expansion: Expansion) -> Work:
    """Return what the tasks of a whole pipeline are, slowed by what runs beside them."""
    blueprint, is_part = folded.blueprint, expansion.part >= 0
    factors = [
        folded.chunks[key].slowdown
        * np.where(
            blueprint.chunks[key].is_exchange,
            experiment.communication.exchange_slowdown(key[0]),
            1.0,
        )
        for key in blueprint.keys
    ]
    # Begin and end take no time, messages theirs from rank to rank.
    seconds = np.where(is_part, np.concatenate(factors)[expansion.part], 0.0)
    rows = np.concatenate(
        [folded.prices.table_rows(key[0], blueprint.chunks[key].row) for key in blueprint.keys]
    )
    exchanges = np.concatenate([blueprint.exchange_of[key] for key in blueprint.keys])
    return Work(
        np.where(is_part, rows[expansion.part], -1),
        np.where(is_part, exchanges[expansion.part], -1),
        expansion.slot,
        seconds,
    )
