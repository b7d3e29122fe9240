"""Play many experiments: those that share a program are columns of one play."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from itertools import islice

from hwmodels.errors import InputError
from simulator.driver.explicit import play_explicit
from simulator.driver.folded import play_folded
from simulator.driver.point import Point, point_of
from simulator.experiment import Experiment
from simulator.lower.folded import FoldedPlay
from simulator.lower.folded_pipeline import FoldedPipeline
from simulator.lower.played import Played
from simulator.lower.rank_seconds import RankSeconds
from simulator.lower.shared_nics import on_shared_nics
from simulator.play import array, reference
from simulator.play.engine import Engine
from simulator.ranks import EngineName

ENGINES: dict[EngineName, Engine] = {"array": array, "reference": reference}

AT_ONCE = 256
"""Experiments looked at together; more would be no faster."""

def play(experiments: Iterable[Experiment]) -> list[Played]:
    """Play the step of each experiment; those of one program side by side, to the same bits as
    each alone.

    Raises:
        InputError: one of them cannot run; the message says which, and why.
    """
    return list(play_in_turn(experiments))


def play_in_turn(experiments: Iterable[Experiment]) -> Iterator[Played]:
    """Play experiments as `play` does, a number of them at a time, and yield each in its turn."""
    every, first = iter(experiments), 0
    while some := list(islice(every, AT_ONCE)):
        yield from _play_some(some, first)
        first += len(some)


def _play_some(experiments: Sequence[Experiment], first: int) -> list[Played]:
    points = []
    for number, experiment in enumerate(experiments, first):
        try:
            points.append(point_of(experiment))
        except InputError as error:
            raise type(error)(f"experiment {number} ({experiment.name}): {error}") from None
    played: dict[int, Played] = {}
    for places in _side_by_side(points):
        alike = [points[place] for place in places]
        played |= zip(places, play_points(alike, keep=False), strict=True)
    return [played[place] for place in range(len(points))]


def _side_by_side(points: Sequence[Point]) -> Iterable[list[int]]:
    """Return the places of points that one play takes: of one program, engine and shape of loads,
    with nothing else to play; any other point is by itself.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, point in enumerate(points):
        shape = len(point.draw.loads), point.draw.ranks
        key = id(point.lowered), point.experiment.ranks.engine, shape
        groups.setdefault(key if point.is_plain else place, []).append(place)
    return groups.values()


def play_points(
    points: Sequence[Point],
    *,
    keep: bool,
    pipelines: Collection[int] = (),
    critical: bool = False,
) -> Iterator[Played]:
    """Play points that fit side by side.

    Args:
        keep: what happened inside parts, to look closer.
        pipelines, critical: as of `simulator.driver.step.play`.
    """
    engine = ENGINES[points[0].experiment.ranks.engine]
    folded = play_folded(points, engine, keep or not points[0].is_plain)
    for number, point in enumerate(points):
        yield _played(point, folded, number, engine, pipelines, critical)


def _played(
    point: Point,
    folded: FoldedPipeline,
    number: int,
    engine: Engine,
    pipelines: Collection[int],
    critical: bool,
) -> Played:
    """Return what was played of one point, its ranks and its shared NICs played now."""
    experiment, parts = point.experiment, folded.folded.of_point(number)
    explicit, shared = None, None
    if experiment.is_explicit:
        ranks = RankSeconds.of(
            experiment.ranks, parts, point.pricer, point.message_s, point.unlike
        )
        explicit = play_explicit(
            ranks, engine, point.optimizer, pipelines=pipelines, critical=critical
        )
    elif experiment.communication.nics == "shared":
        message_bytes = point.lowered.program.message.size_bytes
        nics = on_shared_nics(parts, point.pricer, message_bytes, point.optimizer)
        shared = nics.played(parts, engine.play(nics.graph))
    return Played(experiment, folded, parts, explicit, shared, point.pricer, point.fabric)
