"""The task graph: all an engine understands, as flat arrays.

A task occupies one stream for its duration. It starts after the task before it in that stream
and after its dependencies; members of one collective start together, when the last is ready.
Streams are FIFO like those of a GPU, so the order of tasks in a stream is the program.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


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
        derived: what engines worked out from everything but the durations, to play again fast.
    """

    stream: Ints
    duration_s: Floats
    dependency_start: Ints
    dependency: Ints
    collective: Ints
    label: Ints
    streams: tuple[str, ...]
    labels: tuple[str, ...]
    derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.stream)

    def dependencies(self, task: int) -> Ints:
        """Return the tasks that `task` waits for, the one before it in its stream excluded."""
        return self.dependency[self.dependency_start[task] : self.dependency_start[task + 1]]

    def name(self, task: int) -> str:
        """Return `label on stream`, for messages."""
        return f"{self.labels[self.label[task]]!r} on {self.streams[self.stream[task]]}"

    def with_durations(self, duration_s: Floats) -> "TaskGraph":
        """Return the same graph with other durations."""
        other = replace(self, duration_s=duration_s)
        # Frozen for others: only here is it known that nothing but the durations differs.
        object.__setattr__(other, "derived", self.derived)
        return other


@dataclass(slots=True)
class GraphBuilder:
    """Collects the tasks of one rank, or of one small graph, by name."""

    _streams: dict[str, int] = field(default_factory=dict)
    _labels: dict[str, int] = field(default_factory=dict)
    _rows: list[tuple[int, float, int, int]] = field(default_factory=list)
    _after: list[tuple[int, ...]] = field(default_factory=list)

    def add(
        self,
        stream: str,
        label: str,
        duration_s: float = 0.0,
        after: Sequence[int | None] = (),
        collective: int = -1,
    ) -> int:
        """Append a task to `stream` and return its index; None in `after` is skipped."""
        stream_index = self._streams.setdefault(stream, len(self._streams))
        label_index = self._labels.setdefault(label, len(self._labels))
        self._rows.append((stream_index, duration_s, collective, label_index))
        self._after.append(tuple([task for task in after if task is not None]) if after else ())
        return len(self._rows) - 1

    def depend(self, task: int, after: int) -> None:
        """Make `task` wait for `after`, which may be added later than `task`."""
        self._after[task] += (after,)

    def build(self) -> TaskGraph:
        """Return the graph collected so far."""
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
    """
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
