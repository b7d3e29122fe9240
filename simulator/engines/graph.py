"""The task graph: all an engine understands, as flat arrays.

A task occupies one stream for its duration. It starts after the task before it in that stream
and after its dependencies; members of one collective start together, when the last is ready.
Streams are FIFO like those of a GPU, so the order of tasks in a stream is the program. A task may
also move bytes over links that it shares with others: then it occupies its stream for its duration
and until its bytes are over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError
from simulator.engines.transfers import Transfers


@dataclass(frozen=True, slots=True)
class TaskGraph:
    """Tasks as columns; row `i` of each column is task `i`.

    Attributes:
        stream: stream of each task; tasks of one stream run in index order.
        duration_s: seconds each task occupies its stream.
        dependency_start, dependency: CSR; the tasks that task `i` waits for are
            `dependency[dependency_start[i]:dependency_start[i + 1]]`.
        collective: number of the collective a task joins, -1 for none.
        label: index into `labels`.
        streams, labels: names, for people.
        transfers: the bytes that tasks move over shared links; None if no task does.
        derived: what engines worked out from everything but durations and transfers, to play again
            fast.
    """

    stream: Ints
    duration_s: Floats
    dependency_start: Ints
    dependency: Ints
    collective: Ints
    label: Ints
    streams: tuple[str, ...]
    labels: tuple[str, ...]
    transfers: Transfers | None = None
    derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.transfers is None:
            return
        if len(self.transfers.moved_bytes) != len(self):
            raise InputError(
                f"task graph: {len(self)} tasks have {len(self.transfers.moved_bytes)} transfers"
            )
        if not np.isfinite(self.duration_s).all():  # a transfer would have to begin after it
            raise InputError("duration_s: must be finite beside transfers over shared links")

    def __len__(self) -> int:
        return len(self.stream)

    def dependencies(self, task: int) -> Ints:
        """Return the tasks that `task` waits for, the one before it in its stream excluded."""
        return self.dependency[self.dependency_start[task] : self.dependency_start[task + 1]]

    def name(self, task: int) -> str:
        """Return `label on stream`, for messages."""
        return f"{self.labels[self.label[task]]!r} on {self.streams[self.stream[task]]}"

    def with_durations(self, duration_s: Floats, transfers: Transfers | None = None) -> "TaskGraph":
        """Return the same graph with other durations, and other transfers where they are given."""
        transfers = self.transfers if transfers is None else transfers
        other = replace(self, duration_s=duration_s, transfers=transfers)
        # Frozen for others: only here is it known that all that is derived still holds.
        object.__setattr__(other, "derived", self.derived)
        return other


@dataclass(slots=True)
class GraphBuilder:
    """Collects the tasks of one rank, or of one small graph, by name."""

    _streams: dict[str, int] = field(default_factory=dict)
    _labels: dict[str, int] = field(default_factory=dict)
    _rows: list[tuple[int, float, int, int]] = field(default_factory=list)
    _after: list[tuple[int, ...]] = field(default_factory=list)
    _links: dict[str, int] = field(default_factory=dict)
    _link_bytes_per_s: list[float] = field(default_factory=list)
    _moves: dict[int, tuple[float, tuple[int, ...]]] = field(default_factory=dict)

    def link(self, name: str, bytes_per_s: float) -> int:
        """Return the index of the link of that name, which exists once.

        Raises:
            InputError: the link is known with another capacity.
        """
        index = self._links.setdefault(name, len(self._links))
        if index == len(self._link_bytes_per_s):
            self._link_bytes_per_s.append(bytes_per_s)
        elif self._link_bytes_per_s[index] != bytes_per_s:
            known = self._link_bytes_per_s[index]
            raise InputError(f"link {name!r}: has {known:g} bytes/s already, got {bytes_per_s:g}")
        return index

    def add(
        self,
        stream: str,
        label: str,
        duration_s: float = 0.0,
        after: Sequence[int | None] = (),
        collective: int = -1,
        moved_bytes: float = 0.0,
        links: Sequence[int] = (),
    ) -> int:
        """Append a task to `stream` and return its index; None in `after` is skipped."""
        stream_index = self._streams.setdefault(stream, len(self._streams))
        label_index = self._labels.setdefault(label, len(self._labels))
        self._rows.append((stream_index, duration_s, collective, label_index))
        self._after.append(tuple([task for task in after if task is not None]) if after else ())
        if moved_bytes or links:
            self._moves[len(self._rows) - 1] = (moved_bytes, tuple(links))
        return len(self._rows) - 1

    def depend(self, task: int, after: int) -> None:
        """Make `task` wait for `after`, which may be added later than `task`."""
        self._after[task] += (after,)

    def build(self) -> TaskGraph:
        """Return the graph collected so far.

        Raises:
            InputError: a transfer cannot be played, such as bytes over a link of 0 bytes/s.
        """
        counts = np.array([len(after) for after in self._after], dtype=np.int64)
        columns = list(zip(*self._rows, strict=True)) or [()] * 4
        stream, duration_s, collective, label = columns
        return TaskGraph(
            stream=np.array(stream, dtype=np.int64),
            duration_s=np.array(duration_s, dtype=np.float64),
            dependency_start=np.concatenate(([0], np.cumsum(counts))),
            dependency=np.array([a for after in self._after for a in after], dtype=np.int64),
            collective=np.array(collective, dtype=np.int64),
            label=np.array(label, dtype=np.int64),
            streams=tuple(self._streams),
            labels=tuple(self._labels),
            transfers=self._transfers() if self._moves else None,
        )

    def _transfers(self) -> Transfers:
        rows = [self._moves.get(task, (0.0, ())) for task in range(len(self._rows))]
        return Transfers(
            moved_bytes=np.array([moved_bytes for moved_bytes, _ in rows], dtype=np.float64),
            link_start=np.concatenate(([0], np.cumsum([len(links) for _, links in rows]))),
            link=np.array([link for _, links in rows for link in links], dtype=np.int64),
            link_bytes_per_s=np.array(self._link_bytes_per_s, dtype=np.float64),
            links=tuple(self._links),
        )


def graph_of(
    stream: Ints,
    edges: Ints,
    collective: Ints,
    label: Ints,
    streams: Sequence[str],
    labels: Sequence[str],
) -> TaskGraph:
    """Return a graph from columns, with no seconds yet.

    Args:
        edges: (edges, 2) a task, and one that it waits for; in any order.
    """
    tasks = len(stream)
    order = np.argsort(edges[:, 0], kind="stable")
    counts = np.bincount(edges[:, 0], minlength=tasks)
    return TaskGraph(
        stream=np.asarray(stream, np.int64),
        duration_s=np.zeros(tasks),
        dependency_start=np.concatenate(([0], np.cumsum(counts))),
        dependency=np.ascontiguousarray(edges[order, 1], dtype=np.int64),
        collective=np.asarray(collective, np.int64),
        label=np.asarray(label, np.int64),
        streams=tuple(streams),
        labels=tuple(labels),
    )


def tile(rank: TaskGraph, duration_s: Floats) -> TaskGraph:
    """Repeat the graph of one rank for every rank of a group that moves in lock-step.

    Args:
        rank: graph of one rank; its collectives become collectives of the whole group.
        duration_s: (ranks, tasks) seconds of each task on each rank.

    Returns:
        Graph of `ranks * tasks` tasks, rank-major; streams are named `rank N/stream`.

    Raises:
        InputError: tasks move bytes over links; a copy does not say which links are its own.
    """
    if rank.transfers is not None:
        raise InputError("tile: tasks that move bytes over shared links cannot be repeated by rank")
    ranks, tasks = duration_s.shape
    copy = np.arange(ranks, dtype=np.int64)[:, None]
    starts = rank.dependency_start[:-1] + copy * len(rank.dependency)
    return TaskGraph(
        stream=(rank.stream + copy * len(rank.streams)).ravel(),
        duration_s=np.ascontiguousarray(duration_s).ravel(),
        dependency_start=np.append(starts.ravel(), ranks * len(rank.dependency)),
        dependency=(rank.dependency + copy * tasks).ravel(),
        collective=np.tile(rank.collective, ranks),
        label=np.tile(rank.label, ranks),
        streams=tuple(f"rank {r}/{stream}" for r in range(ranks) for stream in rank.streams),
        labels=rank.labels,
    )
