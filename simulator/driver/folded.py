"""Play each distinct part once on one expert group, and one pipeline of them, on several points."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from simulator.driver.point import Point
from simulator.engines.engine import Engine
from simulator.engines.settle import settle
from simulator.lower.folded import FoldedColumns, Keep, folded_prices, folded_seconds
from simulator.lower.folded_pipeline import FoldedPipeline, pipeline_seconds
from simulator.price.finite import check_finite
from simulator.price.optimizer import OptimizerSeconds, end_kernels_s

PRICED_AT_ONCE = 32
"""Points: more would be no faster, and hold more."""

REPLICAS_AT_ONCE = 8192
"""Of a part: some megabytes of what rounds of play read and write, which stay in cache."""


class Folded(NamedTuple):
    """What was played of several points, and what the end of their steps takes."""

    pipeline: FoldedPipeline
    optimizers: tuple[OptimizerSeconds, ...]


def play_folded(points: Sequence[Point], keep: Keep) -> Folded:
    """Play points of one program, whose expert loads have one shape, as columns.

    Each distinct part runs on one expert group, once for every draw of its loads.

    Args:
        keep: what happened inside parts is kept of a single point only.
    """
    engine, optimizers = points[0].engine, _optimizers(points)
    columns = FoldedColumns.joined(
        [
            played
            for first in range(0, len(points), PRICED_AT_ONCE)
            for played in _play_parts(points[first : first + PRICED_AT_ONCE], engine, keep)
        ]
    )
    end_s = np.stack([optimizer.seconds() for optimizer in optimizers], axis=1)
    check_finite(end_s, lambda rank: f"optimizer seconds of pipeline rank {rank}")
    message_s = np.stack([point.slowest_message_s for point in points], axis=1)
    taken_s = pipeline_seconds(columns, message_s, end_s)
    played = engine.play_replicas(columns.lowered.pipeline.graph, taken_s)
    return Folded(FoldedPipeline(columns, played.end_s, taken_s), optimizers)


def _optimizers(points: Sequence[Point]) -> tuple[OptimizerSeconds, ...]:
    lowered, whole_chips = points[0].lowered, [point.whole_chip for point in points]
    kernels_s = end_kernels_s(lowered.program.end, lowered.end_ops, whole_chips)
    return tuple(
        point.end.around(of_point) for point, of_point in zip(points, kernels_s, strict=True)
    )


def _play_parts(points: Sequence[Point], engine: Engine, keep: Keep) -> Iterator[FoldedColumns]:
    """Price points together and play their parts, a few points at a time."""
    lowered, draw = points[0].lowered, points[0].draw
    pricers, draws = [point.pricer for point in points], [point.draw for point in points]
    prices = folded_prices(lowered, pricers, draws)
    width = max(1, REPLICAS_AT_ONCE // (draw.draws * draw.ranks))
    for first in range(0, len(points), width):
        some = slice(first, first + width)
        seconds = folded_seconds(lowered, prices.of(some), pricers[some], draws[some])
        settled = {}
        for key, (alone_s, factor) in seconds.parts.items():
            graph = lowered.parts[key].graph
            settled[key] = settle(engine, graph.graph, graph.pairs, alone_s, factor, seconds.ranks)
        yield FoldedColumns.of(seconds, settled, keep)
