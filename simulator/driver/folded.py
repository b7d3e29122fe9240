"""Play each distinct part once on one expert group, and one pipeline of them, on several points."""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats
from simulator.driver.point import Point
from simulator.engines.engine import Engine
from simulator.engines.settle import settle
from simulator.lower.folded import FoldedColumns, Keep, folded_prices, folded_seconds
from simulator.lower.folded_pipeline import FoldedPipeline, pipeline_seconds
from simulator.network.machine import Machine
from simulator.price.finite import check_finite
from simulator.price.messages import message_times
from simulator.price.optimizer import end_comms, end_kernels_s

PRICED_AT_ONCE = 32
"""Points: more would be no faster, and hold more."""

REPLICAS_AT_ONCE = 8192
"""Of a part: some megabytes of what rounds of play read and write, which stay in cache."""


class Folded(NamedTuple):
    """What was played of several points.

    Attributes:
        kernels_s: (points, ranks) seconds of kernels at the end of their steps.
    """

    pipeline: FoldedPipeline
    kernels_s: Floats


def play_folded(points: Sequence[Point], keep: Keep) -> Folded:
    """Play points of one program, whose expert loads have one shape, as columns.

    Each distinct part runs on one expert group, once for every draw of its loads.

    Args:
        keep: what happened inside parts is kept of a single point only.
    """
    engine, lowered = points[0].engine, points[0].lowered
    columns = FoldedColumns.joined(
        [
            played
            for first in range(0, len(points), PRICED_AT_ONCE)
            for played in _play_parts(points[first : first + PRICED_AT_ONCE], engine, keep)
        ]
    )
    whole_chips = [point.whole_chip for point in points]
    kernels_s = end_kernels_s(lowered.program.end, lowered.end_ops, whole_chips)
    message_s, end_s = _comm_seconds(points, kernels_s)
    check_finite(end_s.T, lambda rank: f"optimizer seconds of pipeline rank {rank}")
    taken_s = pipeline_seconds(columns, message_s.T, end_s.T)
    played = engine.play_replicas(lowered.pipeline.graph, taken_s)
    return Folded(FoldedPipeline(columns, played.end_s, taken_s), kernels_s)


def _comm_seconds(points: Sequence[Point], kernels_s: Floats) -> tuple[Floats, Floats]:
    """Return (points, messages) seconds of each message in the slowest pipeline, and (points,
    ranks) of the ends of steps, whose kernels take `kernels_s`.
    """
    lowered = points[0].lowered
    message_s = np.empty((len(points), len(lowered.pipeline.links.sender)))
    end_s = np.empty_like(kernels_s)
    alike: dict[Hashable, list[int]] = {}
    for place, point in enumerate(points):
        alike.setdefault(point.machine.likeness, []).append(place)
    for places in alike.values():
        machine = Machine.side_by_side([points[place].machine for place in places])
        messages = message_times(lowered.program, lowered.message_pairs, machine)
        check_finite(messages.times.seconds.ravel(), lambda _: "seconds of a pipeline message")
        slowest_s = messages.slowest(messages.times.seconds)
        message_s[places] = lowered.pipeline.links.of_messages(slowest_s)
        end = end_comms(lowered.program.end, machine).around(kernels_s[places])
        end_s[places] = end.seconds()
    return message_s, end_s


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
