"""Play every rank of every pipeline, segment by segment.

Groups of pipelines are played one by one, so memory does not grow with their number.
"""

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError
from simulator.engines.engine import Engine
from simulator.engines.order import order_of
from simulator.engines.timeline import ReplicaTimeline
from simulator.lower.expansion import STREAMS
from simulator.lower.explicit import (
    ExplicitPlay,
    GroupTimeline,
    largest_among,
    last_rank,
    optimizer_start_s,
)
from simulator.lower.rank_seconds import RankSeconds
from simulator.lower.spread import GroupDraw
from simulator.price.optimizer import OptimizerSeconds
from workloads.ops import COMM, COMPUTE
from workloads.phases import END, IDLE

TILES_BYTES = 1.5e9  # of durations that are in memory at once
TILE_RANKS = 64  # pipelines played side by side, if their expert groups are no larger


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


def play_explicit(
    ranks: RankSeconds,
    engine: Engine,
    optimizer: OptimizerSeconds,
    *,
    pipelines: Collection[int] = (),
    critical: bool = False,
) -> ExplicitPlay:
    """Play every rank.

    Args:
        optimizer: of the end of the step; as slow as the slowest of the ranks that hold a stage.
        pipelines: whose groups' timelines are kept, to look closer.
        critical: keep that of the group that ends the step, too.

    Raises:
        InputError: there is no such pipeline.
    """
    lowered, fabric = ranks.lowered, ranks.fabric
    _check_pipelines(pipelines, len(lowered.program.placement.pipelines))
    homes, joined = lowered.pipeline.homes, lowered.pipeline.joined
    if fabric is not None:
        nvlink = largest_among(joined, fabric.nvlink.max(axis=1))
        optimizer = optimizer.slowed(fabric.ring, nvlink)
    player = _Player(ranks, engine)
    tiles = player.tiles()
    order_of(ranks.expansion.graph)  # before threads work it out side by side
    with ThreadPoolExecutor(player.threads(len(tiles))) as threads:
        played = list(threads.map(player.summary, tiles))
    finish_s = np.concatenate([tile.finish_s for tile in played], axis=1)
    kernels, *links = np.max([tile.slowest for tile in played], axis=0)
    seconds = optimizer.seconds(
        largest_among(homes, kernels), *(largest_among(joined, link) for link in links)
    )
    start_s = optimizer_start_s(lowered, finish_s)
    step_s = float((start_s + seconds).max())
    phases = lowered.program.table.phases
    phase_s = np.concatenate([tile.phase_s for tile in played], axis=2)
    phase_s[phases.index(END)] = seconds[:, None]
    phase_s[phases.index(IDLE)] = step_s - phase_s.sum(axis=0)
    by_stream = zip(*(tile.streams for tile in played), strict=True)
    compute_s, communication_s, wait_s, blame_s = (np.concatenate(c, axis=1) for c in by_stream)
    tasks = len(ranks.expansion.graph) * finish_s.shape[1]
    streams = compute_s, communication_s, wait_s, blame_s
    ends = finish_s, start_s, seconds, step_s
    whole = ExplicitPlay(phases, phase_s, *streams, *ends, tasks, groups={})
    looked_at = {*pipelines, *([last_rank(lowered, whole)[1]] if critical else [])}
    kept = {lowered.program.placement.group_of_pipeline(pipeline)[0] for pipeline in looked_at}
    return replace(whole, groups={group: player.timeline(group) for group in sorted(kept)})


def _check_pipelines(pipelines: Collection[int], count: int) -> None:
    for pipeline in pipelines:
        if not 0 <= pipeline < count:
            raise InputError(f"pipelines: must be from 0 to {count - 1}, got {pipeline}")


@dataclass(frozen=True, slots=True, eq=False)
class _Player:
    """Plays tiles of whole expert groups of pipelines."""

    ranks: RankSeconds
    engine: Engine

    def tiles(self) -> list[range]:
        """Return the numbers of all groups, in tiles."""
        mesh = self.ranks.lowered.program.placement.mesh
        groups, width = mesh.size("edp"), max(1, TILE_RANKS // mesh.size("ep"))
        return [range(first, min(first + width, groups)) for first in range(0, groups, width)]

    def threads(self, tiles: int) -> int:
        """Return how many tiles may be played side by side, for memory's sake."""
        width = max(TILE_RANKS, self.ranks.lowered.program.placement.mesh.size("ep"))
        tile_bytes = 8 * len(self.ranks.expansion.graph) * width
        return max(1, min(tiles, os.cpu_count() or 1, int(TILES_BYTES / tile_bytes)))

    def timeline(self, group: int) -> GroupTimeline:
        """Play one group and keep all of it."""
        return GroupTimeline(group, *self._play(self.ranks.draws(range(group, group + 1)), None))

    def summary(self, groups: range) -> _Summary:
        """Play some groups and reduce what happened to each of their ranks."""
        expansion, draws = self.ranks.expansion, self.ranks.draws(groups)
        played, _ = self._play(draws, keep=np.concatenate([expansion.begin, expansion.end]))
        begin_s, end_s = np.split(played.end_s, 2)
        last = np.array(self.ranks.lowered.pipeline.links.first[1:]) - 1
        busy_s, wait_s, blame_s = (
            seconds.reshape(len(last), len(STREAMS), -1)
            for seconds in (played.busy_s, played.wait_s, played.blame_s)
        )
        compute, comm = STREAMS.index(COMPUTE), STREAMS.index(COMM)
        slowest = [
            [slowness.max(axis=1) for slowness in (draw.slowness, draw.nic, draw.nvlink)]
            for draw in draws
        ]
        by_links_s = np.concatenate([self.ranks.link_blame_s(draw) for draw in draws], axis=1)
        return _Summary(
            self._phase_s(end_s - begin_s),
            (busy_s[:, compute], busy_s[:, comm], wait_s[:, comm], blame_s[:, comm] + by_links_s),
            end_s[last],
            np.max(slowest, axis=0),
        )

    def _play(self, draws: list[GroupDraw], keep: Ints | None) -> tuple[ReplicaTimeline, Floats]:
        """Return the timeline of some groups and their (tasks, replicas) durations."""
        duration_s = self.ranks.seconds(draws)
        graph, ep = (
            self.ranks.expansion.graph,
            self.ranks.lowered.program.placement.mesh.size("ep"),
        )
        return self.engine.play_replicas(graph, duration_s, ep, keep), duration_s

    def _phase_s(self, taken_s: Floats) -> Floats:
        """Return (phases, pp, replicas) sums of (steps, replicas) seconds."""
        pipeline, steps = self.ranks.lowered.pipeline, len(taken_s)
        phases, pp = len(pipeline.table.phases), len(pipeline.program)
        place = pipeline.phase[:steps] * pp + pipeline.rank[:steps]
        order = np.argsort(place, kind="stable")
        present, first = np.unique(place[order], return_index=True)
        phase_s = np.zeros((phases * pp, taken_s.shape[1]))
        phase_s[present] = np.add.reduceat(taken_s[order], first, axis=0)
        return phase_s.reshape(phases, pp, -1)
