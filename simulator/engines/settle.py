"""Durations that depend on what runs beside them, played until both agree.

A task slows down while one of another stream runs beside it, so durations and overlap are played in
turn. Many replicas of a graph are played at once; each group of them settles by itself.
"""

from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import MoesimError
from simulator.engines.engine import Engine
from simulator.engines.graph import TaskGraph
from simulator.engines.loops import loops_for
from simulator.engines.timeline import ReplicaTimeline

SETTLED = 1e-5  # relative change of the makespan at which overlap and durations agree
UNDAMPED_ROUNDS, ROUNDS_MAX = 6, 40  # then every round goes half the way only
FEW = 0.25  # of the groups: fewer are not worth playing all of them again


class Pairs(NamedTuple):
    """(pairs,) tasks on different streams that may run at the same time."""

    one: Ints
    other: Ints


class Settled(NamedTuple):
    """What happened at last.

    Attributes:
        seconds: (tasks, replicas) duration of every task.
        rounds: (groups,) played until each had settled.
    """

    seconds: Floats
    played: ReplicaTimeline
    rounds: Ints

    def take(self, groups: slice) -> "Settled":
        """Return what happened in some groups, side by side."""
        group = self.seconds.shape[1] // len(self.rounds)
        replicas = slice(groups.start * group, groups.stop * group)
        return Settled(self.seconds[:, replicas], self.played.take(replicas), self.rounds[groups])

    def with_groups(self, groups: Ints, group: int, other: "Settled") -> "Settled":
        """Overwrite what happened in some groups, of `group` replicas, with all of another's."""
        columns = _replicas(groups, group)
        self.seconds[:, columns] = other.seconds
        self.played.put(columns, other.played)
        return self


def settle(
    engine: Engine, graph: TaskGraph, pairs: Pairs, alone_s: Floats, factor: Floats, group: int
) -> Settled:
    """Play a graph until overlap and durations agree.

    Args:
        alone_s: (tasks, replicas) seconds of each task with nothing beside it.
        factor: (tasks, groups), or (tasks,) of all, slowdown of a task that runs wholly beside
            others.
        group: replicas that collectives join.

    Raises:
        MoesimError: they never agree.
    """
    groups = alone_s.shape[1] // group
    factor = np.broadcast_to(factor.reshape(len(factor), -1), (len(factor), groups))
    played, slowed_s = engine.play_replicas(graph, alone_s, group), alone_s
    weight = np.ones(groups)  # of what a round finds; 0 once a group has settled
    took, numbers = np.zeros(groups, np.int64), np.arange(groups)
    whole: Settled | None = None  # once few are left, only they are played
    for rounds in range(1, ROUNDS_MAX):
        if rounds == UNDAMPED_ROUNDS + 1:
            weight = weight / 2
        before = played.makespan_s
        slowed_s = _slowed(pairs, played, alone_s, factor, slowed_s, weight)
        played = engine.play_replicas(graph, slowed_s, group)
        moved = np.abs(played.makespan_s - before) > SETTLED * before
        took[numbers[weight > 0]] = rounds + 1
        weight[~moved.reshape(-1, group).any(axis=1)] = 0.0
        live = np.flatnonzero(weight)
        if len(live) > FEW * len(weight):
            continue
        done = Settled(slowed_s, played, took)
        whole = done if whole is None else whole.with_groups(numbers, group, done)
        if not len(live):
            return whole
        columns = _replicas(live, group)
        numbers, weight, factor = numbers[live], weight[live], factor[:, live]
        alone_s, slowed_s = alone_s[:, columns], slowed_s[:, columns]
        played = played.take(columns)
    raise MoesimError(
        f"graph of {len(graph)} tasks: overlap and durations do not agree in {ROUNDS_MAX} rounds"
    )


def _replicas(groups: Ints, group: int) -> Ints:
    """Return the replicas of some groups."""
    return np.asarray((groups[:, None] * group + np.arange(group)).ravel())


def _slowed(
    pairs: Pairs,
    played: ReplicaTimeline,
    alone_s: Floats,
    factor: Floats,
    seconds: Floats,
    weight: Floats,
) -> Floats:
    """Return (tasks, replicas) durations that go with what ran beside what in `played`."""
    slowed_s = np.empty(seconds.shape)
    columns = (  # all of one type, so that the loop is compiled once
        np.require(column, np.float64, ["C", "W"])
        for column in (alone_s, factor, played.end_s, seconds, weight)
    )
    loops_for(len(pairs.one) * seconds.shape[1]).slow_beside(*pairs, *columns, slowed_s)
    return slowed_s
