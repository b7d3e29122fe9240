"""Play many experiments: those that share a program are columns of one play."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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

Named = Callable[[int, Experiment], str]
"""Returns what people call an experiment, given its number."""


def _numbered(number: int, experiment: Experiment) -> str:
    return f"experiment {number} ({experiment.name})"

def play(experiments: Iterable[Experiment]) -> list[Played]:
    """Play the step of each experiment; those of one program side by side, to the same bits as
    each alone.

    What happened inside parts is not kept; `simulator.driver.step.play` keeps it.

    Raises:
        InputError: an experiment cannot run; the message says which, and why.
    """
    return list(play_in_turn(experiments))


def play_in_turn(
    experiments: Iterable[Experiment],
    *,
    critical: bool = False,
    at_once: int = AT_ONCE,
    named: Named = _numbered,
) -> Iterator[Played]:
    """Play experiments as `play` does, a number of them at a time, and yield each in its turn.

    Args:
        critical: as of `simulator.driver.step.play`.
        at_once: experiments looked at together.
        named: returns what to call one that cannot run, given its number.
    """
    every, first = iter(experiments), 0
    while some := list(islice(every, at_once)):
        points = []
        for number, experiment in enumerate(some, first):
            with _naming(named(number, experiment)):
                points.append(point_of(experiment))
        plain = _play_plain(points, lambda place, f=first: named(f + place, some[place]))
        for place, point in enumerate(points):
            if place in plain:
                yield plain.pop(place)
            else:
                with _naming(named(first + place, point.experiment)):
                    (played,) = play_points([point], keep=True, critical=critical)
                yield played
        first += len(some)


def _play_plain(points: Sequence[Point], named: Callable[[int], str]) -> dict[int, Played]:
    """Return what was played of all points of which folded play is all, by place."""
    played: dict[int, Played] = {}
    for places in _side_by_side(points):
        try:
            alike = play_points([points[place] for place in places], keep=False)
            played |= zip(places, alike, strict=True)
        except InputError:
            for place in places:  # to see which it is
                with _naming(named(place)):
                    list(play_points([points[place]], keep=False))
            raise
    return played


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say of which experiment an error is."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error}") from None


def _side_by_side(points: Sequence[Point]) -> Iterable[list[int]]:
    """Return the places of points that one play takes: of one program, engine and shape of loads,
    of which folded play is all.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, point in enumerate(points):
        shape = len(point.draw.loads), point.draw.ranks
        key = id(point.lowered), point.experiment.ranks.engine, shape
        if point.is_plain:
            groups.setdefault(key, []).append(place)
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
