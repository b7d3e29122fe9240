"""Play each distinct part once on one expert group, with every draw of its loads."""

import numpy as np

from simulator.lower.folded import FoldedPlay, folded_seconds
from simulator.lower.lowered import Lowered
from simulator.lower.parts import PartPlay
from simulator.play.engine import Engine
from simulator.play.settle import settle
from simulator.price.segments import SegmentPricer
from simulator.ranks import RanksSpec


def play_folded(
    ranks: RanksSpec,
    lowered: Lowered,
    pricer: SegmentPricer,
    engine: Engine,
    rng: np.random.Generator,
) -> FoldedPlay:
    """Play each distinct part on one expert group, once for every draw of its loads."""
    folded = folded_seconds(ranks, lowered, pricer, rng)
    parts = {}
    for key, (alone_s, factor) in folded.parts.items():
        graph = lowered.parts[key].graph
        settled = settle(engine, graph.graph, graph.pairs, alone_s, factor, folded.ranks)
        parts[key] = PartPlay.of(graph, folded.ranks, alone_s, settled)
    draw_of_step = rng.integers(len(folded.loads), size=len(lowered.steps))
    return FoldedPlay(lowered, folded.prices, parts, draw_of_step, folded.loads)
