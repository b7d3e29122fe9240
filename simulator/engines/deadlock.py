"""Why a task graph cannot finish: which task is stuck in each stream, and what it waits for."""

import numpy as np

from hwmodels.arrays import Mask
from hwmodels.errors import DeadlockError
from simulator.engines.graph import TaskGraph

SHOWN_BLOCKED_TASKS = 4


def check_finished(graph: TaskGraph, ready: Mask, ended: Mask) -> None:
    """Refuse a graph of which a task never ended.

    Args:
        ready: (tasks,) the stream was free and the dependencies done.
        ended: (tasks,) the task ran.

    Raises:
        DeadlockError: names the first task stuck in each stream and what it waits for.
    """
    stuck = np.flatnonzero(~ended)
    if not len(stuck):
        return
    _, first = np.unique(graph.stream[stuck], return_index=True)
    blocked = stuck[first].tolist()
    shown = [_waits_for(graph, ready, ended, task) for task in blocked[:SHOWN_BLOCKED_TASKS]]
    unnamed = len(blocked) - len(shown)
    raise DeadlockError("; ".join(shown) + (f" and {unnamed} more" if unnamed else ""))


def _waits_for(graph: TaskGraph, ready: Mask, ended: Mask, task: int) -> str:
    waiting = [d for d in graph.dependencies(task).tolist() if not ended[d]]
    if waiting:
        return f"{graph.name(task)} waits for {graph.name(waiting[0])}"
    absent = np.flatnonzero((graph.collective == graph.collective[task]) & ~ready)
    return f"{graph.name(task)} waits in its collective for {graph.name(int(absent[0]))}"
