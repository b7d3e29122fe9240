"""Folded play: each distinct chunk once on one expert group, then one pipeline of chunks.

Hierarchical: a chunk ends when its slowest rank does. That is exact as long as all ranks of a group
start a chunk together; where some run ahead it is slightly long.
"""

from dataclasses import dataclass

import numpy as np

from simulator.blueprint import Blueprint, ChunkKey
from simulator.experiment import Experiment
from simulator.play.chunk import ChunkPlay, Engine, play_chunk
from simulator.play.durations import Work, fill_durations
from simulator.play.graph import Floats, Ints
from simulator.price.finite import check_finite
from simulator.price.segments import SegmentPricer, SegmentPrices, load_index
from simulator.ranks import chunk_loads, highest_load


@dataclass(frozen=True, eq=False)
class FoldedPlay:
    """Every distinct chunk played with each draw of the expert load.

    Attributes:
        draw_of_step: (steps,) the draw that each step of the program takes.
        loads: (draws, slots, ranks) expert loads of all distinct chunks, one after another.
    """

    blueprint: Blueprint
    prices: SegmentPrices
    chunks: dict[ChunkKey, ChunkPlay]
    draw_of_step: Ints
    loads: Floats

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
    loads = chunk_loads(experiment, blueprint, draws, rng)
    highest = float(loads.max(initial=highest_load(experiment)))
    prices = pricer.prices(blueprint.segments, highest)
    group_loads = loads.swapaxes(0, 1)  # (slots, draws, ranks)
    exchange_s = exchange_seconds(blueprint, pricer, group_loads)
    # Where all ranks are alike one of them stands for the group.
    played = loads.shape[2] if (loads != loads[..., :1]).any() else 1
    column = load_index(group_loads[..., :played]).reshape(len(group_loads), draws * played)
    chunks, first = {}, 0
    for key, slots in zip(blueprint.keys, blueprint.slots, strict=True):
        chunk, own = blueprint.chunks[key], slice(first, first + slots)
        first += slots
        exposed = experiment.communication.exchange_slowdown(key[0])
        factor = prices.factors_of(chunk.graph.program, chunk.row)
        alone = fill_durations(
            Work(
                chunk.row,
                blueprint.exchange_of[key],
                np.where(chunk.slot < 0, slots, chunk.slot),
                np.where(chunk.is_exchange, exposed, 1.0),
            ),
            prices.seconds,
            column[own],
            exchange_s[:, own],
        )
        chunks[key] = play_chunk(chunk.graph, alone, factor, played, engine)
    draw_of_step = rng.integers(draws, size=len(blueprint.steps))
    return FoldedPlay(blueprint, prices, chunks, draw_of_step, loads)


def exchange_seconds(
    blueprint: Blueprint,
    pricer: SegmentPricer,
    loads: Floats,
    nic_slowdown: Floats | float = 1.0,
    nvlink_slowdown: Floats | float = 1.0,
) -> Floats:
    """Return (exchanges, slots, groups) seconds of every distinct exchange at every load.

    Args:
        loads: (slots, groups, ranks); slowdowns of links broadcast with it.
    """
    seconds = np.zeros((len(blueprint.exchanges), *loads.shape[:-1]))
    for number, (kind, carrier) in enumerate(blueprint.exchanges):
        exchange = blueprint.layers[kind].exchange
        assert exchange is not None, "only layers with one exchange tokens"
        seconds[number] = pricer.exchanges.exchange_s(
            exchange, carrier, loads, nic_slowdown, nvlink_slowdown
        )
    check_finite(seconds, lambda number: f"seconds of {blueprint.exchanges[number][1]}")
    return seconds
