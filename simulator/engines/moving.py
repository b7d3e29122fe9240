"""Replicas of a graph whose tasks move bytes over links that each replica has for itself.

Collectives hold the replicas of a group together, so that what is late on the links of one makes
all wait. With bytes under way there is no playing them side by side as columns: a group is played
as one graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.engines.engine import Engine
from simulator.engines.graph import TaskGraph, tile
from simulator.engines.timeline import ReplicaTimeline
from simulator.engines.transfers import Transfers


class Crossings(NamedTuple):
    """Which links the tasks of one replica cross.

    Attributes:
        link_start, link: CSR, as in `Transfers`.
        links: names, for people.
    """

    link_start: Ints
    link: Ints
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplicaNames(Sequence[str]):
    """Names of the links of many replicas, made when they are asked for: there may be millions."""

    names: tuple[str, ...]
    replicas: int

    def __len__(self) -> int:
        return len(self.names) * self.replicas

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        replica, number = divmod(range(len(self))[place], len(self.names))
        return f"replica {replica}/{self.names[number]}"


def tile_transfers(
    crossings: Crossings, moved_bytes: Floats, bytes_per_s: Floats, share: Floats | None = None
) -> Transfers:
    """Return what the tasks of a tiled graph move.

    Args:
        moved_bytes: (tasks, replicas) by each task of each replica.
        bytes_per_s: (links, replicas) of each link of each replica.
        share: (crossings, replicas) as of `Transfers`.
    """
    replicas = moved_bytes.shape[1]
    copy = np.arange(replicas, dtype=np.int64)[:, None]
    starts = crossings.link_start[:-1] + copy * len(crossings.link)
    return Transfers(
        moved_bytes=np.ascontiguousarray(moved_bytes.T).ravel(),
        link_start=np.append(starts.ravel(), replicas * len(crossings.link)),
        link=(crossings.link + copy * len(crossings.links)).ravel(),
        link_bytes_per_s=np.ascontiguousarray(bytes_per_s.T).ravel(),
        links=ReplicaNames(crossings.links, replicas),
        share=None if share is None else np.ascontiguousarray(share.T).ravel(),
    )


class Moved(NamedTuple):
    """What happened in the replicas of one group.

    Attributes:
        taken_s: (tasks, replicas) seconds of each task, those in which its bytes moved included.
        played: ends of all tasks.
    """

    taken_s: Floats
    played: ReplicaTimeline


def play_moving(
    engine: Engine,
    graph: TaskGraph,
    duration_s: Floats,
    crossings: Crossings,
    moved_bytes: Floats,
    bytes_per_s: Floats,
    share: Floats | None = None,
) -> Moved:
    """Play the replicas of one group.

    Args:
        duration_s: (tasks, replicas) seconds before the bytes of a task move, or all of its.
        moved_bytes, bytes_per_s, share: as of `tile_transfers`.

    Raises:
        DeadlockError: some tasks can never start.
    """
    replicas, streams = duration_s.shape[1], len(graph.streams)
    whole = tile(graph, np.ascontiguousarray(duration_s.T))
    transfers = tile_transfers(crossings, moved_bytes, bytes_per_s, share)
    timeline = engine.play(whole.with_durations(whole.duration_s, transfers))
    ready_s, start_s, end_s = (
        np.ascontiguousarray(column.reshape(replicas, -1).T)
        for column in (timeline.ready_s, timeline.start_s, timeline.end_s)
    )

    def by_stream(seconds: Floats) -> Floats:
        cell = graph.stream[:, None] * replicas + np.arange(replicas)
        sums = np.bincount(cell.ravel(), seconds.ravel(), streams * replicas)
        return np.asarray(sums.reshape(streams, replicas), np.float64)

    played = ReplicaTimeline(
        graph,
        np.arange(len(graph)),
        end_s,
        busy_s=by_stream(end_s - start_s),
        wait_s=by_stream(start_s - ready_s),
        blame_s=by_stream(_blame_s(graph, ready_s)),
        makespan_s=end_s.max(axis=0, initial=0.0),
    )
    return Moved(end_s - start_s, played)


def _blame_s(graph: TaskGraph, ready_s: Floats) -> Floats:
    """Return (tasks, replicas) seconds that others waited for each member of a collective, the last
    to be ready; those who come last together share them.
    """
    joined = np.flatnonzero(graph.collective >= 0)
    numbers, event = np.unique(graph.collective[joined], return_inverse=True)
    latest, waited, blamed = (np.zeros(len(numbers)) for _ in range(3))
    np.maximum.at(latest, event, ready_s[joined].max(axis=1, initial=0.0))
    behind_s = latest[event][:, None] - ready_s[joined]
    is_last = behind_s == 0
    np.add.at(waited, event, behind_s.sum(axis=1))
    np.add.at(blamed, event, is_last.sum(axis=1))
    blame_s = np.zeros_like(ready_s)
    blame_s[joined] = np.where(is_last, (waited / np.maximum(blamed, 1))[event][:, None], 0.0)
    return blame_s
