"""Played draws, and the numbers read off them."""

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError
from simulator.driver.draws import played_draws, samples
from simulator.driver.step import play
from simulator.lower.pipeline import RankTimes
from simulator.tell.facts.parts import Parts
from simulator.tell.outcome import outcome


def test_numbers_are_headlines_phases_and_total_memory_by_path(short_simulated):
    result, played = short_simulated()
    found = outcome(played).numbers
    assert found == result.numbers
    assert found["step_time_s"] == result.metrics.step_time_s
    assert found["breakdown_s.bubble"] == result.breakdown_s["bubble"]
    assert found["memory_bytes.total"] == result.memory_bytes["total"]
    named = {each.name for each in result.metrics.headline}
    named |= {f"breakdown_s.{phase}" for phase in result.phases} | {"memory_bytes.total"}
    assert set(found) == named
    assert [each.name for each in result.headlines] == list(found)


def test_samples_are_the_numbers_draw_by_draw(drawn_run):
    draws = played_draws(drawn_run().resolved().with_overrides({"uncertainty.draws": 3}))
    found = samples(draw.outcome for draw in draws)
    assert found.keys() == drawn_run().samples.keys()
    for name, values in found.items():
        assert values == tuple(draw.outcome.numbers[name] for draw in draws)


def test_a_phase_of_a_draw_is_its_mean_or_that_of_one_rank(short_simulated, drawn_run):
    (draw,) = played_draws(drawn_run().resolved().with_overrides({"uncertainty.draws": 1}))
    seconds = play(draw.resolved()).times.phases["bubble"]
    assert draw.phase_s("bubble") == np.mean(seconds)
    assert [draw.phase_s("bubble", rank) for rank in (0, 15)] == seconds[[0, 15]].tolist()
    result, played = short_simulated()
    assert result.phase_s("bubble") == played.times.phases["bubble"].mean()
    assert result.phase_s("bubble", 3) == played.times.phases["bubble"][3]


def test_facts_of_a_draw_are_those_of_its_step_played_again(drawn_run):
    (draw,) = played_draws(drawn_run().resolved().with_overrides({"uncertainty.draws": 1}))
    assert draw.fact(Parts) == Parts.of(play(draw.resolved()))


def test_an_experiment_that_asks_for_no_draws_has_none(short_run):
    assert played_draws(short_run().resolved()) == ()


def test_a_draw_can_be_played_again(drawn_run):
    (draw,) = played_draws(drawn_run().resolved().with_overrides({"uncertainty.draws": 1}))
    assert play(draw.resolved()).times.step_s == draw.metrics.step_time_s


def test_a_number_that_is_not_finite_is_refused_by_name(short_played):
    times = short_played().times
    endless = {name: seconds + np.inf for name, seconds in times.phases.items()}
    for phases, step_s, message in (
        (endless, times.step_s, "seconds of phase forward: must be finite, got inf"),
        (times.phases, np.inf, "step_time_s: must be finite, got inf"),
    ):
        played = replace(short_played())
        vars(played)["times"] = RankTimes(phases, step_s)
        with pytest.raises(InfeasibleError, match=message):
            outcome(played)
