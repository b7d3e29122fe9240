"""Every segment of every step of one pipeline as one task graph, tiled from those of its chunks.

Each step is a `begin` and an `end` on its rank's compute stream with the chunk's tasks between: a
rank starts a chunk when it has ended the one before on both streams and all it needs has arrived.
Unlike in folded play it does not wait there for the other ranks of its expert group.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hwmodels.arrays import Ints
from simulator.lower.blueprint import Blueprint
from simulator.lower.parts import ChunkGraph
from simulator.lower.pipeline import COMPUTE, SEND
from simulator.play.graph import TaskGraph, graph_of
from workloads.chunks import COMM

STREAMS = (COMPUTE, COMM, SEND)


@dataclass(frozen=True, slots=True, eq=False)
class Expansion:
    """One pipeline, segment by segment, before any second is known.

    Attributes:
        rank: (tasks,) pipeline rank.
        step: (tasks,) number of the step, rank by rank; of a message, the one that sends it.
        part: (tasks,) which task of which distinct chunk this is: index into `parts`; -1 for begin,
            end and messages.
        parts: (parts, 2) number of the chunk's key, and place in its program.
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
def expand(blueprint: Blueprint) -> Expansion:
    """Return the expansion of a blueprint."""
    chunks = [blueprint.chunks[key] for key in blueprint.keys]
    links, key = blueprint.pipeline.links, blueprint.key_of_step
    sizes = np.array([len(chunk.graph.program) + 2 for chunk in chunks])
    begin = np.concatenate(([0], np.cumsum(sizes[key])))
    tasks, messages = int(begin[-1]), len(links.sender)
    begin = begin[:-1]
    end = begin + sizes[key] - 1
    slots = _Slots.of(blueprint)
    step, part = (np.full(tasks + messages, -1) for _ in range(2))
    slot = np.full(tasks + messages, len(slots.rank))
    is_comm = np.zeros(tasks + messages, np.bool_)
    edges: list[Ints] = []
    parts: list[tuple[int, int]] = []
    for number, chunk in enumerate(chunks):
        own = np.flatnonzero(key == number)  # steps of this chunk
        places = begin[own][:, None] + 1 + np.arange(len(chunk.graph.program))
        is_comm[places] = chunk.graph.on_comm
        part[places] = len(parts) + np.arange(len(chunk.graph.program))
        parts += [(number, place) for place in range(len(chunk.graph.program))]
        slot[places] = slots.of_tasks(chunk.slot, chunk.forward_slots, own)
        edges.append(begin[own][:, None, None] + _edges(chunk.graph))
    message = tasks + np.arange(messages)
    step[:tasks] = np.repeat(np.arange(len(key)), sizes[key])
    step[message] = links.sender
    rank = links.rank[step]
    stream = len(STREAMS) * rank + is_comm
    stream[message] = len(STREAMS) * rank[message] + STREAMS.index(SEND)
    between = [
        np.stack([begin[links.local[:, 0]], end[links.local[:, 1]]], axis=1),
        np.stack([begin[links.remote[:, 0]], message[links.remote[:, 1]]], axis=1),
        np.stack([message, end[links.sender]], axis=1),
    ]
    is_exchange = np.array([chunks[k].graph.program[p].is_exchange for k, p in parts], np.bool_)
    joins = (part >= 0) & is_exchange[part]
    names = [f"{chunks[k].graph.program[p].label} of {blueprint.keys[k][0]}" for k, p in parts]
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
        slot_rank=slots.rank,
        slot_layer=slots.layer,
        begin=begin,
        end=end,
        message=message,
    )


def _edges(chunk: ChunkGraph) -> Ints:
    """Return (edges, 2) dependencies inside one step, its begin being task 0."""
    program = chunk.program
    pairs = [(1 + p, 1 + a) for p, segment in enumerate(program) for a in segment.after]
    on_comm = np.flatnonzero(chunk.on_comm).tolist()
    if on_comm:
        pairs += [(1 + on_comm[0], 0), (len(program) + 1, 1 + on_comm[-1])]
    return np.array(pairs, np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Slots:
    """Numbers of all expert loads: stage by stage, micro-batch by micro-batch, layer by layer."""

    rank: Ints
    layer: Ints
    forward_base: Ints
    backward_base: Ints

    @classmethod
    def of(cls, blueprint: Blueprint) -> "_Slots":
        steps = blueprint.steps
        ahead = np.array([step.forward or (-1, -1) for step in steps], np.int64)
        back = np.array([step.backward or (-1, -1) for step in steps], np.int64)
        microbatches = blueprint.workload.microbatches
        routed = np.array([len(own) for own in blueprint.routed])
        first_layer = np.concatenate(([0], np.cumsum(routed)))
        home = np.zeros((len(routed), microbatches), np.int64)
        forward = ahead[:, 0] >= 0
        home[ahead[forward, 0], ahead[forward, 1]] = blueprint.pipeline.links.rank[forward]
        rank = [np.repeat(home[stage], count) for stage, count in enumerate(routed.tolist())]
        layer = [
            np.tile(first_layer[stage] + np.arange(count), microbatches)
            for stage, count in enumerate(routed.tolist())
        ]
        base = np.append(first_layer[:-1] * microbatches, 0)
        routed = np.append(routed, 0)
        return cls(
            np.concatenate(rank),
            np.concatenate(layer),
            forward_base=base[ahead[:, 0]] + routed[ahead[:, 0]] * ahead[:, 1],
            backward_base=base[back[:, 0]] + routed[back[:, 0]] * back[:, 1],
        )

    def of_tasks(self, slot: Ints, forward_slots: int, steps: Ints) -> Ints:
        """Return (steps, tasks) numbers for a chunk's own slots, one past the last for none."""
        ahead = self.forward_base[steps][:, None] + slot
        back = self.backward_base[steps][:, None] + slot - forward_slots
        return np.where(slot < 0, len(self.rank), np.where(slot < forward_slots, ahead, back))
