"""Play each distinct part once on one expert group, and one pipeline of them, on several points."""

from collections.abc import Iterator, Sequence

import numpy as np

from simulator.driver.point import Point
from simulator.lower.folded import FoldedColumns, Keep, folded_prices, folded_seconds
from simulator.lower.folded_pipeline import FoldedPipeline, pipeline_seconds
from simulator.play.engine import Engine
from simulator.play.settle import settle

PRICED_AT_ONCE = 32
"""Points: more would be no faster, and hold more."""

REPLICAS_AT_ONCE = 2048
"""Of a part, so that what rounds of play read and write stays in cache."""


def play_folded(points: Sequence[Point], keep: Keep) -> FoldedPipeline:
    """Play points of one program, whose expert loads have one shape, as columns.

    Each distinct part runs on one expert group, once for every draw of its loads.

    Args:
        keep: what happened inside parts is kept of a single point only.
    """
    engine = points[0].engine
    columns = FoldedColumns.joined([of for some in _some(points, PRICED_AT_ONCE)
                                    for of in _play_parts(some, engine, keep)])  # fmt: skip
    taken_s = pipeline_seconds(
        columns,
        np.stack([point.slowest_message_s for point in points], axis=1),
        np.stack([point.optimizer.seconds() for point in points], axis=1),
    )
    played = engine.play_replicas(columns.lowered.pipeline.graph, taken_s)
    return FoldedPipeline(columns, played.end_s, taken_s)


def _play_parts(points: Sequence[Point], engine: Engine, keep: Keep) -> Iterator[FoldedColumns]:
    """Price points together and play their parts, a few points at a time."""
    lowered, draw = points[0].lowered, points[0].draw
    pricers, draws = [point.pricer for point in points], [point.draw for point in points]
    prices = folded_prices(lowered, pricers, draws)
    width = max(1, REPLICAS_AT_ONCE // (len(draw.loads) * draw.ranks))
    for first in range(0, len(points), width):
        some = slice(first, first + width)
        seconds = folded_seconds(lowered, prices.of(some), pricers[some], draws[some])
        settled = {}
        for key, (alone_s, factor) in seconds.parts.items():
            graph = lowered.parts[key].graph
            settled[key] = settle(engine, graph.graph, graph.pairs, alone_s, factor, seconds.ranks)
        yield FoldedColumns.of(seconds, settled, keep)


def _some(points: Sequence[Point], width: int) -> Iterator[Sequence[Point]]:
    return (points[first : first + width] for first in range(0, len(points), width))
