"""Simulate an experiment: play its step, and every draw of it, and tell of them."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from simulator.driver.draws import Track, play_draws, samples
from simulator.driver.points import play_in_turn
from simulator.driver.step import play
from simulator.experiment import Experiment
from simulator.lower.played import Played
from simulator.tell.facts import facts_of
from simulator.tell.intervals import intervals
from simulator.tell.outcome import Outcome, outcome
from simulator.tell.provenance import provenance
from simulator.tell.result import SCHEMA_VERSION, PlayFacts, Result, Timing, Uncertainty
from simulator.uncertainty import Draws, sample


class Simulated(NamedTuple):
    """A result, and the played step that it tells of."""

    result: Result
    played: Played


def run(experiment: Experiment, track: Track = iter, check_folding: bool = False) -> Result:
    """Simulate an experiment, and every draw of it if it asks for draws.

    Args:
        check_folding: play every rank as well, to tell how far folding is from that.
        track: passes on the numbers of the draws, and may show progress.

    Raises:
        InputError: the experiment cannot run; the message says why.
    """
    return simulate(experiment, track, check_folding, pipelines=()).result


def simulate(
    experiment: Experiment,
    track: Track = iter,
    check_folding: bool = False,
    *,
    pipelines: tuple[int, ...] = (0,),
) -> Simulated:
    """Simulate as `run` does, and return the played step too, for traces and figures.

    Args:
        pipelines: where all ranks are played, those whose timelines are kept.
    """
    draws = _draws(experiment)  # refused before anything is played
    started = time.perf_counter()
    played = play(experiment, pipelines=pipelines, critical=True)
    step = outcome(played)
    play_s = time.perf_counter() - started
    result = _result(played, step, play_s, check_folding, _spread(draws, track))
    return Simulated(result, played)


def run_many(experiments: Iterable[Experiment], track: Track = iter) -> Iterator[Result]:
    """Simulate many experiments and yield the result of each in its turn: that of `run`, but for
    the clock. Those of one program are played side by side.

    Raises:
        InputError: an experiment cannot run; the message says which, and why.
    """
    started = time.perf_counter()
    for played in play_in_turn(experiments, critical=True):
        step, play_s = outcome(played), time.perf_counter() - started
        spread = _spread(_draws(played.experiment), track)
        yield _result(played, step, play_s, check_folding=False, spread=spread)
        started = time.perf_counter()


def _result(
    played: Played, step: Outcome, play_s: float, check_folding: bool, spread: dict[str, Any]
) -> Result:
    """Return the result of what was played.

    Args:
        spread: fields that tell of draws.
    """
    experiment = played.experiment
    return Result(
        schema_version=SCHEMA_VERSION,
        experiment=experiment.model_dump(mode="json"),
        metrics=step.metrics,
        phases=dict(played.program.phases),
        breakdown_s=step.breakdown_s,
        memory_bytes=step.memory_bytes,
        facts=facts_of(played),
        play=PlayFacts(
            mode="explicit" if played.explicit else "folded",
            folding_error=_folding_error(played) if check_folding else None,
            engine=experiment.ranks.engine,
            ranks=experiment.gpus,
            tasks=played.tasks,
        ),
        provenance=provenance(played),
        timing=Timing(play_s=play_s),
        **spread,
    )


def _folding_error(played: Played) -> float | None:
    """Return how far folded play of a step is from playing every rank of it; None where all ranks
    were played anyway: `Ranks.folded_step_s` is beside it then.
    """
    if played.explicit is not None:
        return None
    unfolded = played.experiment.with_overrides({"ranks.play": "explicit"}, "check of folding")
    return played.times.step_s / play(unfolded, pipelines=()).times.step_s - 1


def _draws(experiment: Experiment) -> Draws | None:
    return sample(experiment) if experiment.uncertainty.draws else None


def _spread(draws: Draws | None, track: Track) -> dict[str, Any]:
    """Play every draw and return the fields of a result that tell of them; none without draws."""
    if draws is None:
        return {}
    sampled = samples(draw.outcome for draw in play_draws(draws, track))
    asked = draws.experiment.uncertainty
    return {
        "uncertainty": Uncertainty(draws=len(draws), seed=asked.seed, inputs=draws.inputs),
        "intervals": intervals(sampled, draws.paths, draws.deviations),
        "samples": sampled,
    }
