"""Folded play: each distinct chunk once on one expert group, then one pipeline of chunks.

Hierarchical: a chunk ends when its slowest rank does. That is exact as long as all ranks of a group
start a chunk together; where some run ahead it is slightly long.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simulator.blueprint import Blueprint, ChunkBlueprint, ChunkKey
from simulator.experiment import Experiment
from simulator.play.chunk import ChunkPlay, Engine, play_chunk
from simulator.play.graph import Floats, Ints
from simulator.price.segments import BALANCED_COLUMN, SegmentPricer, SegmentPrices, load_index
from simulator.ranks import chunk_loads, highest_load
from workloads.chunks import Carrier
from workloads.layers import Layer


@dataclass(frozen=True, eq=False)
class FoldedPlay:
    """Every distinct chunk played with each draw of the expert load.

    Attributes:
        draw_of_step: (steps,) the draw that each step of the program takes.
    """

    blueprint: Blueprint
    prices: SegmentPrices
    chunks: dict[ChunkKey, ChunkPlay]
    draw_of_step: Ints

    @property
    def chunk_s(self) -> Floats:
        """(steps,) seconds of each step's chunk, rank by rank."""
        table = [self.chunks[key].duration_s for key in self.blueprint.keys]
        return np.stack(table)[self.blueprint.key_of_step, self.draw_of_step]

    @property
    def tasks(self) -> int:
        """Tasks played."""
        return sum(chunk.seconds.size for chunk in self.chunks.values())


def play_folded(
    experiment: Experiment,
    blueprint: Blueprint,
    pricer: SegmentPricer,
    engine: Engine,
    rng: np.random.Generator,
) -> FoldedPlay:
    """Play each distinct chunk on one expert group, once for every draw of its loads."""
    ranks = experiment.ranks
    draws = ranks.draws if ranks.expert_load.is_drawn else 1
    loads = {
        key: chunk_loads(experiment, blueprint, key, draws, rng) for key in sorted(blueprint.keys)
    }
    highest = max(own.max(initial=highest_load(experiment)) for own in loads.values())
    prices = pricer.prices(blueprint.segments, highest)
    chunks = {}
    for key, own in loads.items():
        chunk = blueprint.chunks[key]
        alone, factor = chunk_seconds(chunk, blueprint.layers, prices, pricer, own)
        alone[chunk.is_exchange] *= experiment.communication.exchange_slowdown(key[0])
        # Where all ranks are alike one of them stands for the group.
        played = own.shape[2] if (own != own[..., :1]).any() else 1
        if played == 1:
            alone = alone[:, :: own.shape[2]]
        chunks[key] = play_chunk(chunk.graph, alone, factor, played, engine)
    return FoldedPlay(blueprint, prices, chunks, rng.integers(draws, size=len(blueprint.steps)))


def chunk_seconds(
    chunk: ChunkBlueprint,
    layers: tuple[Layer, ...],
    prices: SegmentPrices,
    pricer: SegmentPricer,
    loads: Floats,
) -> tuple[Floats, Floats]:
    """Return what the tasks of a chunk cost alone, and how much slower they are beside others.

    Args:
        layers: distinct layers; `chunk.kind_of` are indices into them.
        loads: (groups, slots, ranks) expert load of each rank relative to balanced.

    Returns:
        (tasks, groups * ranks) seconds, and (tasks,) slowdowns.
    """
    groups, slots, ranks = loads.shape
    # One slot more, the last, for what no load matters to.
    columns = np.full((slots + 1, groups, ranks), BALANCED_COLUMN)
    columns[:slots] = load_index(loads).swapaxes(0, 1)
    seconds = prices.seconds[chunk.row[:, None], columns.reshape(slots + 1, -1)[chunk.slot]]
    for layer, carrier, tasks in exchange_tasks(chunk, layers):
        assert layer.exchange is not None, "only layers with one have a task for it"
        own = loads[:, chunk.slot[tasks]]
        exchange_s = pricer.exchanges.exchange_s(layer.exchange, carrier, own)
        seconds[tasks] = np.repeat(exchange_s.T, ranks, axis=1)
    return seconds, prices.factors_of(chunk.graph.program, chunk.row)


def exchange_tasks(
    chunk: ChunkBlueprint, layers: tuple[Layer, ...]
) -> Iterator[tuple[Layer, Carrier, list[int]]]:
    """Yield the tasks of a chunk that move tokens, by kind of layer and the kernels that do it."""
    found: dict[tuple[int, Carrier], list[int]] = {}
    for task, segment in enumerate(chunk.graph.program):
        if segment.is_exchange:
            found.setdefault((int(chunk.kind_of[task]), segment.carrier), []).append(task)
    for (kind, carrier), tasks in found.items():
        yield layers[kind], carrier, tasks
