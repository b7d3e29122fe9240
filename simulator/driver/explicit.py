"""Play every rank of every pipeline, segment by segment.

Groups of pipelines are played one by one, so memory does not grow with their number.
"""

import os
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError
from simulator.engines.engine import Engine
from simulator.engines.moving import Moved, play_moving
from simulator.engines.order import order_of
from simulator.engines.timeline import ReplicaTimeline
from simulator.lower.expansion import STREAMS
from simulator.lower.explicit import (
    ExplicitPlay,
    GroupTimeline,
    Meetings,
    largest_among,
    last_rank,
    optimizer_start_s,
)
from simulator.lower.rank_seconds import RankSeconds
from simulator.lower.scope import EVERY_RANK, Scope
from simulator.lower.shared_ranks import RankMoves, met_on_nics, rank_moves, ring_busy_s
from simulator.lower.spread import GroupDraw
from simulator.price.optimizer import OptimizerSeconds
from workloads.ops import COMM, COMPUTE
from workloads.phases import END, IDLE
from workloads.placement import Placement

TILES_BYTES = 1.5e9  # of durations that are in memory at once
SEPARATE = Scope(EVERY_RANK)
MOVING_TASK_BYTES = 600  # of a task that is played with what moves on its NIC
TILE_RANKS = 64  # pipelines played side by side, if their expert groups are no larger


class _Summary(NamedTuple):
    """What is kept of one tile: arrays as in `ExplicitPlay`, for its pipelines.

    Attributes:
        streams: compute, communication, wait and blame.
        sent_s: (pp, pipelines) end of the last message that each rank sends.
        slowest: (3, pp) largest slowdown of a GPU's kernels, of its NIC, and of its NVLink.
        met_s: (2, kinds, pp, pipelines) seconds that traffic needs of NICs, and its delays there;
            none where NICs are not shared.
    """

    phase_s: Floats
    streams: tuple[Floats, Floats, Floats, Floats]
    finish_s: Floats
    sent_s: Floats
    slowest: Floats
    met_s: Floats | None


def play_explicit(
    ranks: RankSeconds,
    engine: Engine,
    optimizer: OptimizerSeconds,
    scope: Scope = SEPARATE,
    *,
    pipelines: Collection[int] = (),
    critical: bool = False,
) -> ExplicitPlay:
    """Play every rank.

    Args:
        optimizer: of the end of the step; as slow as the slowest of the ranks that hold a stage.
        scope: whether all traffic of a GPU meets on its NIC. Rings of gradients then begin when all
            that their ranks have sent is through.
        pipelines: whose groups' timelines are kept, to look closer.
        critical: keep that of the group that ends the step, too.

    Raises:
        InputError: there is no such pipeline.
    """
    lowered, shared = ranks.lowered, scope.nics == "shared"
    _check_pipelines(pipelines, len(lowered.program.placement.pipelines))
    as_given = optimizer
    homes, joined = lowered.pipeline.homes, lowered.pipeline.joined
    player = _Player(ranks, engine, shared)
    tiles = player.tiles()
    order_of(ranks.expansion.graph)  # before threads work it out side by side
    with ThreadPoolExecutor(player.threads(len(tiles))) as threads:
        played = list(threads.map(player.summary, tiles))
    by_pipeline = partial(_by_pipeline, lowered.program.placement)
    finish_s = by_pipeline(tile.finish_s for tile in played)
    kernels, *links = np.max([tile.slowest for tile in played], axis=0)
    seconds = optimizer.seconds(
        largest_among(homes, kernels), *(largest_among(joined, link) for link in links)
    )
    free_s = by_pipeline(tile.sent_s for tile in played) if shared else 0.0
    start_s = optimizer_start_s(lowered, np.maximum(finish_s, free_s))
    step_s = float((start_s + seconds).max())
    phases = lowered.program.table.phases
    phase_s = by_pipeline(tile.phase_s for tile in played)
    phase_s[phases.index(END)] = seconds[:, None]
    phase_s[phases.index(IDLE)] = step_s - phase_s.sum(axis=0)
    compute_s, communication_s, wait_s, blame_s = map(
        by_pipeline, zip(*(tile.streams for tile in played), strict=True)
    )
    streams = compute_s, communication_s, wait_s, blame_s
    tasks = len(ranks.expansion.graph) * finish_s.shape[1]
    ends = finish_s, start_s, seconds, step_s
    whole = ExplicitPlay(phases, phase_s, *streams, *ends, tasks, groups={})
    if shared:
        separate = play_explicit(ranks, engine, as_given)
        meetings = _meetings(played, optimizer, separate.step_s)
        whole = replace(whole, tasks=whole.tasks + separate.tasks, meetings=meetings)
    looked_at = {*pipelines, *([last_rank(lowered, whole)[1]] if critical else [])}
    kept = {lowered.program.placement.group_of_pipeline(pipeline)[0] for pipeline in looked_at}
    return replace(whole, groups={group: player.timeline(group) for group in sorted(kept)})


def _meetings(
    tiles: list[_Summary], optimizer: OptimizerSeconds, separate_step_s: float
) -> Meetings:
    met_s = [tile.met_s for tile in tiles if tile.met_s is not None]
    busy_s, delay_s = np.concatenate(met_s, axis=3).mean(axis=3)
    return Meetings(separate_step_s, busy_s + ring_busy_s(optimizer), delay_s)


def _by_pipeline(placement: Placement, of_tiles: Iterable[Floats]) -> Floats:
    """Return (..., pipelines) what tiles have of the pipelines of their groups, in order."""
    place = np.argsort(placement.pipelines_of_group.ravel())
    return np.concatenate(list(of_tiles), axis=-1)[..., place]


def _check_pipelines(pipelines: Collection[int], count: int) -> None:
    for pipeline in pipelines:
        if not 0 <= pipeline < count:
            raise InputError(f"pipelines: must be from 0 to {count - 1}, got {pipeline}")


@dataclass(frozen=True, slots=True, eq=False)
class _Player:
    """Plays tiles of whole expert groups of pipelines."""

    ranks: RankSeconds
    engine: Engine
    shared: bool

    def tiles(self) -> list[range]:
        """Return the numbers of all groups, in tiles; one by one where NICs are shared."""
        groups, members = self.ranks.lowered.program.placement.pipelines_of_group.shape
        width = max(1, TILE_RANKS // members)
        width = 1 if self.shared else width
        return [range(first, min(first + width, groups)) for first in range(0, groups, width)]

    def threads(self, tiles: int) -> int:
        """Return how many tiles may be played side by side, for memory's sake."""
        width = max(TILE_RANKS, self.ranks.lowered.program.placement.mesh.size("ep"))
        task_bytes = MOVING_TASK_BYTES if self.shared else 8
        tile_bytes = task_bytes * len(self.ranks.expansion.graph) * width
        return max(1, min(tiles, os.cpu_count() or 1, int(TILES_BYTES / tile_bytes)))

    def timeline(self, group: int) -> GroupTimeline:
        """Play one group and keep all of it."""
        draws = self.ranks.draws(range(group, group + 1))
        if not self.shared:
            return GroupTimeline(group, *self._play(draws, None))
        moved, _ = self._play_moving(draws[0])
        return GroupTimeline(group, moved.played, moved.taken_s)

    def summary(self, groups: range) -> _Summary:
        """Play some groups and reduce what happened to each of their ranks."""
        expansion, draws = self.ranks.expansion, self.ranks.draws(groups)
        met_s = None
        if self.shared:
            moved, moves = self._play_moving(draws[0])
            played, met_s = moved.played, met_on_nics(moves, moved.taken_s, self.ranks)
            ends_s = played.end_s
            begin_s, end_s = ends_s[expansion.begin], ends_s[expansion.end]
            sent_s = self._sent_s(ends_s[expansion.message])
        else:
            played, _ = self._play(draws, keep=np.concatenate([expansion.begin, expansion.end]))
            begin_s, end_s = np.split(played.end_s, 2)
            sent_s = np.zeros((0, end_s.shape[1]))  # messages do not hold NICs that rings take
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
            sent_s,
            np.max(slowest, axis=0),
            met_s,
        )

    def _sent_s(self, message_end_s: Floats) -> Floats:
        """Return (pp, replicas) end of the last message of each rank, of (messages, replicas)."""
        expansion = self.ranks.expansion
        pp = len(self.ranks.lowered.pipeline.program)
        sent_s = np.zeros((pp, message_end_s.shape[1]))
        np.maximum.at(sent_s, expansion.rank[expansion.message], message_end_s)
        return sent_s

    def _play_moving(self, draw: GroupDraw) -> tuple[Moved, RankMoves]:
        """Play one group whose traffic meets on NICs."""
        moves = rank_moves(self.ranks, draw)
        moved = play_moving(
            self.engine,
            self.ranks.expansion.graph,
            moves.first_s,
            moves.crossings.links,
            moves.moved_bytes,
            moves.bytes_per_s,
            moves.share,
        )
        return moved, moves

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
