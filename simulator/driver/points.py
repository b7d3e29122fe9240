"""Play many experiments: those that share a program are columns of one play."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from hwmodels.errors import InputError
from simulator.driver.explicit import play_explicit
from simulator.driver.folded import Folded, play_folded
from simulator.driver.point import Point, point_of
from simulator.experiment import Experiment
from simulator.lower.played import Played
from simulator.lower.rank_seconds import RankSeconds
from simulator.lower.shared_nics import on_shared_nics

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
        names = [named(number, experiment) for number, experiment in enumerate(some, first)]
        folded = _fold(points, names)
        for place, point in enumerate(points):
            with _naming(names[place]):
                played = _played(point, *folded.pop(place), critical=critical)
            yield played
        first += len(some)


def _fold(points: Sequence[Point], names: Sequence[str]) -> dict[int, tuple[Folded, int]]:
    """Play points folded, and return by place what was played and which of it is this point's."""
    played: dict[int, tuple[Folded, int]] = {}
    for places in _side_by_side(points):
        keep = points[places[0]].scope.keep
        try:
            folded = play_folded([points[place] for place in places], keep)
        except InputError:
            for place in places:  # to see which it is
                with _naming(names[place]):
                    play_folded([points[place]], keep)
            raise
        played |= {place: (folded, number) for number, place in enumerate(places)}
    return played


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say of which experiment an error is."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error}") from None


def _side_by_side(points: Sequence[Point]) -> Iterable[list[int]]:
    """Return the places of points that one play takes: of one program, engine and shape of loads.
    One that has to be looked into is by itself.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, point in enumerate(points):
        shape = point.draw.draws, point.draw.ranks
        key = id(point.lowered), point.experiment.ranks.engine, shape, point.scope
        groups.setdefault(place if point.scope.keep == "insides" else key, []).append(place)
    return groups.values()


def play_point(point: Point, *, pipelines: Collection[int] = (), critical: bool = False) -> Played:
    """Play one point and keep what happened inside its parts.

    Args:
        pipelines, critical: as of `simulator.driver.step.play`.
    """
    return _played(point, play_folded([point], "insides"), 0, pipelines, critical)


def _played(
    point: Point,
    folded: Folded,
    number: int,
    pipelines: Collection[int] = (),
    critical: bool = False,
) -> Played:
    """Return what was played of one point, its ranks and its shared NICs played now."""
    experiment, scope, engine = point.experiment, point.scope, point.engine
    optimizer = folded.optimizers[number]
    parts = folded.pipeline.folded.of_point(number)
    explicit, shared = None, None
    if scope.is_explicit:
        ranks = RankSeconds.of(experiment.ranks, parts, point.pricer, point.messages, point.unlike)
        explicit = play_explicit(
            ranks, engine, optimizer, scope, pipelines=pipelines, critical=critical
        )
    elif scope.nics == "shared":
        nics = on_shared_nics(parts, point.pricer, point.messages, optimizer)
        shared = nics.played(parts, engine.play(nics.graph))
    return Played(experiment, folded.pipeline, parts, explicit, shared, point.pricer, point.fabric)
