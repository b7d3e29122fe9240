"""Task graphs drawn at random, from a `random.Random`, for tests that play one graph twice."""

from dataclasses import replace

import numpy as np

from simulator.engines.graph import TaskGraph
from simulator.engines.transfers import Transfers


def graph_of(stream, seconds, after, collective, streams):
    """A graph from lists; `after` lists the dependencies of each task."""
    counts = [len(tasks) for tasks in after]
    return TaskGraph(
        stream=np.array(stream, dtype=np.int64),
        duration_s=np.array(seconds, dtype=np.float64),
        dependency_start=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))),
        dependency=np.array([a for tasks in after for a in tasks], dtype=np.int64),
        collective=np.array(collective, dtype=np.int64),
        label=np.arange(len(stream)),
        streams=tuple(f"s{i}" for i in range(streams)),
        labels=tuple(f"t{i}" for i in range(len(stream))),
    )


def random_graph(rng, most_streams=5, most_events=14, most_after=3):
    """A graph that can finish: each task waits for tasks of earlier events, and an event is a task
    or a collective. Tasks are numbered by event or by stream; some streams have none, some tasks
    take no time.
    """
    streams = rng.randint(1, most_streams)
    used = rng.sample(range(streams), rng.randint(1, streams))
    rows = []
    for event in range(rng.randint(1, most_events)):
        joined = rng.random() < 0.4
        members = rng.sample(used, rng.randint(1, len(used)) if joined else 1)
        rows += [(stream, event, 7 * event if joined else -1) for stream in members]
    rows.sort(key=rng.choice([lambda row: row[0], lambda row: row[1]]))
    after = []
    for _, event, _ in rows:
        earlier = [task for task, row in enumerate(rows) if row[1] < event]
        after.append(rng.sample(earlier, min(len(earlier), rng.randint(0, most_after))))
    seconds = [rng.choice([0.0, rng.random(), rng.expovariate(1.0)]) for _ in rows]
    stream, _, collective = zip(*rows, strict=True)
    return graph_of(stream, seconds, after, collective, streams)


def wild_graph(rng):
    """A graph with any dependencies and collectives at all; most cannot finish."""
    tasks, streams = rng.randint(1, 9), rng.randint(1, 6)
    after = [[rng.randrange(tasks) for _ in range(rng.choice([0, 0, 0, 1]))] for _ in range(tasks)]
    return graph_of(
        [rng.randrange(streams) for _ in range(tasks)],
        [rng.random() for _ in range(tasks)],
        after,
        [rng.choice([-1, -1, 0, 1, 5]) for _ in range(tasks)],
        streams,
    )


def with_shares(rng, graph):
    """The same graph, whose tasks move only a share of their bytes over some of their links."""
    share = np.array([rng.choice([1.0, 1.0, 0.5, rng.random()]) for _ in graph.transfers.link])
    return replace(graph, transfers=replace(graph.transfers, share=np.maximum(share, 1e-3)))


def with_transfers(rng, graph):
    """The same graph, most tasks of which move bytes over one to four links.

    Half of the graphs have few sizes, capacities and durations, so that many transfers start or end
    together; some links are never crossed, some tasks move nothing or cross nothing.
    """
    few = rng.random() < 0.5
    links = rng.randint(1, 4)
    crossed, moved_bytes = [], []
    for _ in range(len(graph)):
        crossed.append(rng.sample(range(links), rng.choice([0, 1, 1, rng.randint(1, links)])))
        moved_bytes.append(rng.choice([0, 1, 1, 2] if few else [0, 10 * rng.expovariate(1)]))
    transfers = Transfers(
        moved_bytes=np.array(moved_bytes, dtype=np.float64),
        link_start=np.concatenate(([0], np.cumsum([len(own) for own in crossed]))),
        link=np.array([link for own in crossed for link in own], dtype=np.int64),
        link_bytes_per_s=np.array(
            [rng.randint(1, 3) if few else 9 * rng.random() + 1 for _ in range(links)],
            dtype=np.float64,
        ),
        links=tuple(f"l{link}" for link in range(links)),
    )
    duration_s = np.round(2 * graph.duration_s) / 2 if few else graph.duration_s
    return replace(graph, transfers=transfers, duration_s=duration_s)
