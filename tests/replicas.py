"""Graphs built by hand, and replicas and tasks of a graph drawn at random, for tests of engines."""

import numpy as np

from simulator.engines.graph import GraphBuilder

REPLICA_COLUMNS = ("kept", "end_s", "busy_s", "wait_s", "blame_s", "makespan_s")
NONE = np.zeros(0, dtype=np.int64)


def built(*tasks):
    """A graph of (stream, label, seconds, [labels waited for], collective or -1)."""
    builder = GraphBuilder()
    index = {
        label: builder.add(stream, label, seconds, collective=collective)
        for stream, label, seconds, _, collective in tasks
    }
    for _, label, _, after, _ in tasks:
        for other in after:
            builder.depend(index[label], index[other])
    return builder.build()


def random_replicas(rng, graph, dtype):
    """Group size and (tasks, replicas) durations."""
    group = rng.choice([1, 2, 3])
    replicas = group * rng.randint(1, 3)
    numbers = np.random.default_rng(rng.getrandbits(32))
    duration_s = numbers.exponential(size=(len(graph), replicas))
    duration_s[numbers.random(duration_s.shape) < 0.2] = 0
    return group, duration_s.astype(dtype)


def some_tasks(rng, graph):
    """A few tasks of a graph, in any order."""
    return np.array(rng.sample(range(len(graph)), rng.randint(1, len(graph))), dtype=np.int64)
