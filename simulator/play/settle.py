"""Durations that depend on what runs beside them, played until both agree.

A task slows down while one of another stream runs beside it, so durations and overlap are played in
turn. Many replicas of a graph are played at once; each group of them settles by itself.
"""

from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import MoesimError
from simulator.play.engine import Engine
from simulator.play.graph import TaskGraph
from simulator.play.loops import loops_for
from simulator.play.timeline import ReplicaTimeline

SETTLED = 1e-5  # relative change of the makespan at which overlap and durations agree
UNDAMPED_ROUNDS, ROUNDS_MAX = 6, 40  # then every round goes half the way only


class Pairs(NamedTuple):
    """(pairs,) tasks on different streams that may run at the same time."""

    one: Ints
    other: Ints


class Settled(NamedTuple):
    """What happened at last.

    Attributes:
        seconds: (tasks, replicas) duration of every task.
        rounds: played until the last group had settled.
    """

    seconds: Floats
    played: ReplicaTimeline
    rounds: int


def settle(
    engine: Engine, graph: TaskGraph, pairs: Pairs, alone_s: Floats, factor: Floats, group: int
) -> Settled:
    """Play a graph until overlap and durations agree.

    Args:
        alone_s: (tasks, replicas) seconds of each task with nothing beside it.
        factor: (tasks,) slowdown of a task that runs wholly beside others.
        group: replicas that collectives join.

    Raises:
        MoesimError: they never agree.
    """
    played = engine.play_replicas(graph, alone_s, group)
    slowed_s = alone_s
    weight = np.ones(alone_s.shape[1])  # of what a round finds; 0 once a group has settled
    for rounds in range(1, ROUNDS_MAX):
        if rounds == UNDAMPED_ROUNDS + 1:
            weight /= 2
        before = played.makespan_s
        slowed_s = _slowed(pairs, played, alone_s, factor, slowed_s, weight)
        played = engine.play_replicas(graph, slowed_s, group)
        moved = np.abs(played.makespan_s - before) > SETTLED * before
        weight[~np.repeat(moved.reshape(-1, group).any(axis=1), group)] = 0.0
        if not weight.any():
            return Settled(slowed_s, played, rounds + 1)
    raise MoesimError(
        f"graph of {len(graph)} tasks: overlap and durations do not agree in {ROUNDS_MAX} rounds"
    )


def _slowed(
    pairs: Pairs,
    played: ReplicaTimeline,
    alone_s: Floats,
    factor: Floats,
    seconds: Floats,
    weight: Floats,
) -> Floats:
    """Return (tasks, replicas) durations that go with what ran beside what in `played`."""
    slowed_s = np.empty_like(seconds)
    loops_for(len(pairs.one) * seconds.shape[1]).slow_beside(
        *pairs, alone_s, factor, played.end_s, seconds, weight, slowed_s
    )
    return slowed_s
