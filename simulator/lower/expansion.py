"""Every segment of every step of one pipeline as one task graph, tiled from those of its parts.

Each step is a `begin` and an `end` on its rank's compute stream with its part's tasks between: a
rank starts a step when it has ended the one before on both streams and all it needs has arrived.
Unlike in folded play it does not wait there for the other ranks of its expert group.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hwmodels.arrays import Ints
from simulator.engines.graph import TaskGraph, graph_of
from simulator.lower.lowered import Lowered
from simulator.lower.parts import PartGraph
from workloads.ops import COMM, COMPUTE, SEND

STREAMS = (COMPUTE, COMM, SEND)


@dataclass(frozen=True, slots=True, eq=False)
class Expansion:
    """One pipeline, segment by segment, before any second is known.

    Attributes:
        rank: (tasks,) pipeline rank.
        step: (tasks,) number of the step, rank by rank; of a message, the one that sends it.
        part: (tasks,) which task of which distinct part this is: index into `parts`; -1 for begin,
            end and messages.
        parts: (parts, 2) number of the part, and place in its segments.
        slot: (tasks,) which expert load it meets; `slots` for none.
        slot_rank, slot_layer: (slots,) pipeline rank that meets each load, and number of the routed
            layer in the model.
        begin, end: (steps,) tasks.
        message: (messages,) tasks.
    """

    graph: TaskGraph
    rank: Ints
    step: Ints
    part: Ints
    parts: Ints
    slot: Ints
    slot_rank: Ints
    slot_layer: Ints
    begin: Ints
    end: Ints
    message: Ints

    @property
    def slots(self) -> int:
        """Expert loads that a pipeline meets: micro-batches times routed layers."""
        return len(self.slot_rank)


@lru_cache(maxsize=4)
def expand(lowered: Lowered) -> Expansion:
    """Return the expansion of a lowered program."""
    distinct, loads = list(lowered.parts.values()), lowered.program.loads
    links, part_of_step = lowered.pipeline.links, lowered.part_of_step
    sizes = np.array([len(lowered_part.graph.segments) + 2 for lowered_part in distinct])
    begin = np.concatenate(([0], np.cumsum(sizes[part_of_step])))
    tasks, messages = int(begin[-1]), len(links.sender)
    begin = begin[:-1]
    end = begin + sizes[part_of_step] - 1
    step, part = (np.full(tasks + messages, -1) for _ in range(2))
    slot = np.full(tasks + messages, len(loads.rank))
    is_comm = np.zeros(tasks + messages, np.bool_)
    edges: list[Ints] = []
    parts: list[tuple[int, int]] = []
    for number, lowered_part in enumerate(distinct):
        running = np.flatnonzero(part_of_step == number)  # steps of this part
        tasks_of = np.arange(len(lowered_part.graph.segments))
        places = begin[running][:, None] + 1 + tasks_of
        is_comm[places] = lowered_part.graph.on_comm
        part[places] = len(parts) + tasks_of
        parts += [(number, place) for place in tasks_of.tolist()]
        none = np.full((len(running), 1), len(loads.rank))
        slot[places] = np.hstack([loads.of_part[number], none])[:, lowered_part.load]
        edges.append(begin[running][:, None, None] + _edges(lowered_part.graph))
    message = tasks + np.arange(messages)
    step[:tasks] = np.repeat(np.arange(len(part_of_step)), sizes[part_of_step])
    step[message] = links.sender
    rank = links.rank[step]
    stream = len(STREAMS) * rank + is_comm
    stream[message] = len(STREAMS) * rank[message] + STREAMS.index(SEND)
    between = [
        np.stack([begin[links.local[:, 0]], end[links.local[:, 1]]], axis=1),
        np.stack([begin[links.remote[:, 0]], message[links.remote[:, 1]]], axis=1),
        np.stack([message, end[links.sender]], axis=1),
    ]
    joins = np.concatenate([*(lowered_part.is_comm for lowered_part in distinct), [False]])[part]
    names = [name for lowered_part in distinct for name in _names(lowered_part.graph)]
    label = np.where(part >= 0, part, len(names) + 2)
    label[begin], label[end] = len(names), len(names) + 1
    graph = graph_of(
        stream,
        np.concatenate([pair.reshape(-1, 2) for pair in (*edges, *between)]),
        collective=np.where(joins, np.arange(len(part)), -1),
        label=label,
        streams=[f"rank {r}/{s}" for r in range(len(links.first) - 1) for s in STREAMS],
        labels=[*names, "begin", "end", "message"],
    )
    return Expansion(
        graph,
        rank=rank,
        step=step,
        part=part,
        parts=np.array(parts, np.int64).reshape(-1, 2),
        slot=slot,
        slot_rank=loads.rank,
        slot_layer=loads.layer,
        begin=begin,
        end=end,
        message=message,
    )


def _names(graph: PartGraph) -> list[str]:
    return [f"{segment.label} of {graph.part.kind}" for segment in graph.segments]


def _edges(graph: PartGraph) -> Ints:
    """Return (edges, 2) dependencies inside one step, its begin being task 0."""
    segments = graph.segments
    pairs = [(1 + p, 1 + a) for p, segment in enumerate(segments) for a in segment.after]
    on_comm = np.flatnonzero(graph.on_comm).tolist()
    if on_comm:
        pairs += [(1 + on_comm[0], 0), (len(segments) + 1, 1 + on_comm[-1])]
    return np.array(pairs, np.int64).reshape(-1, 2)
