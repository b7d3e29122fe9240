"""Play each distinct chunk once on one expert group, with every draw of its loads."""

import numpy as np

from simulator.experiment import Experiment
from simulator.lower.blueprint import Blueprint
from simulator.lower.folded import FoldedPlay, folded_seconds
from simulator.lower.parts import ChunkPlay
from simulator.play.engine import Engine
from simulator.play.settle import settle
from simulator.price.segments import SegmentPricer


def play_folded(
    experiment: Experiment,
    blueprint: Blueprint,
    pricer: SegmentPricer,
    engine: Engine,
    rng: np.random.Generator,
) -> FoldedPlay:
    """Play each distinct chunk on one expert group, once for every draw of its loads."""
    folded = folded_seconds(experiment, blueprint, pricer, rng)
    chunks = {}
    for key, (alone_s, factor) in folded.chunks.items():
        graph = blueprint.chunks[key].graph
        settled = settle(engine, graph.graph, graph.pairs, alone_s, factor, folded.ranks)
        chunks[key] = ChunkPlay.of(graph, folded.ranks, alone_s, settled)
    draw_of_step = rng.integers(len(folded.loads), size=len(blueprint.steps))
    return FoldedPlay(blueprint, folded.prices, chunks, draw_of_step, folded.loads)
