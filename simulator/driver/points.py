"""Play many experiments: those that share a program are columns of one play."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

from hwmodels.errors import InputError
from simulator.driver.explicit import play_explicit
from simulator.driver.folded import Folded, play_folded
from simulator.driver.point import Point, point_of
from simulator.driver.program import program_inputs
from simulator.experiment import Experiment
from simulator.lower.played import Played
from simulator.lower.rank_seconds import RankSeconds
from simulator.lower.shared_nics import on_shared_nics

T = TypeVar("T")

AT_ONCE = 256
"""Experiments looked at together; more would be no faster."""

Named = Callable[[int, Experiment], str]
"""Returns what people call an experiment, given its number."""


def _numbered(number: int, experiment: Experiment) -> str:
    name = getattr(experiment, "name", None)
    return f"experiment {number} ({name})" if name else f"experiment {number}"


def play(experiments: Iterable[Experiment]) -> list[Played]:
    """Play the step of each experiment; those of one program side by side, to the same bits as
    each alone.

    What happened inside parts is not kept; `simulator.driver.step.play` keeps it.

    Raises:
        InputError: these are no experiments, or one cannot run; the message says which, and why.
            Nothing is returned then.
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
    if isinstance(experiments, Experiment):
        raise InputError("experiments: must be several, got one; give it in a list")
    every, first = iter(experiments), 0
    while some := list(islice(every, at_once)):
        for place, played in enumerate(attempts(some, critical=critical)):
            if isinstance(played, InputError):
                raise type(played)(f"{named(first + place, some[place])}: {played}") from None
            yield played
        first += len(some)


def attempts(
    experiments: Sequence[Experiment], *, critical: bool = False
) -> Iterator[Played | InputError]:
    """Play experiments side by side, and yield for each in its turn what was played, or why it
    cannot run.
    """
    points = _points(experiments)
    folded = _fold(points)
    for place, point in enumerate(points):
        if isinstance(point, InputError):
            yield point
            continue
        fold = folded.pop(place)
        if isinstance(fold, InputError):
            yield fold
        else:
            yield _tried(partial(_played, point, *fold, critical=critical))


def _tried(work: Callable[[], T]) -> T | InputError:
    """Return what comes of some work, or why there is nothing."""
    try:
        return work()
    except InputError as error:
        return error


def _points(experiments: Sequence[Experiment]) -> list[Point | InputError]:
    """Return experiments ready to be played; those of one program after another, so that each is
    built once, however many there are.
    """
    programs: dict[Hashable, list[int]] = {}
    points: list[Point | InputError | None] = [None] * len(experiments)
    for place, experiment in enumerate(experiments):
        if not isinstance(experiment, Experiment):
            given = type(experiment).__name__
            points[place] = InputError(f"must be an Experiment, got {given}")
            continue
        inputs = tuple(program_inputs(experiment).values())
        programs.setdefault(inputs, []).append(place)
    for place in (place for places in programs.values() for place in places):
        points[place] = _tried(partial(point_of, experiments[place]))
    return [point for point in points if point is not None]


def _fold(
    points: Sequence[Point | InputError],
) -> dict[int, tuple[Folded, int] | InputError]:
    """Play points folded, and return by place what was played and which of it is this point's, or
    why it cannot be played.
    """
    ready = {place: point for place, point in enumerate(points) if isinstance(point, Point)}
    played: dict[int, tuple[Folded, int] | InputError] = {}
    for places in _side_by_side(ready):
        together = [ready[place] for place in places]
        folded = _tried(partial(play_folded, together, together[0].scope.keep))
        if isinstance(folded, Folded):
            played |= {place: (folded, number) for number, place in enumerate(places)}
            continue
        for place in places:  # to see which it is
            alone = _tried(partial(play_folded, [ready[place]], ready[place].scope.keep))
            played[place] = (alone, 0) if isinstance(alone, Folded) else alone
    return played


def _side_by_side(points: Mapping[int, Point]) -> Iterable[list[int]]:
    """Return the places of points that one play takes: of one program, engine and shape of loads.
    One that has to be looked into is by itself.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, point in points.items():
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
    parts = folded.pipeline.folded.of_point(number)
    explicit, shared = None, None
    if scope.is_explicit:
        ranks = RankSeconds.of(experiment.ranks, parts, point.pricer, point.messages, point.unlike)
        optimizer = point.end.around(folded.kernels_s[number])
        explicit = play_explicit(
            ranks, engine, optimizer, scope, pipelines=pipelines, critical=critical
        )
    elif scope.nics == "shared":
        optimizer = point.end.around(folded.kernels_s[number])
        nics = on_shared_nics(parts, point.pricer, point.messages, optimizer)
        shared = nics.played(parts, engine.play(nics.graph))
    return Played(experiment, folded.pipeline, parts, explicit, shared, point.pricer, point.fabric)
