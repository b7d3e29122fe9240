"""Results with draws: there and back, the same bytes twice, intervals and what explains them."""

import json
import re

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, SpecError
from simulator import run
from simulator.tell.result import Result
from simulator.uncertainty import sample

FEW_PARTS = ("plan.schedule", "1f1b")  # forwards and backwards only: quick to play


def test_a_drawn_result_survives_a_json_round_trip_to_the_last_bit(drawn_run):
    result = drawn_run()
    again = Result.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert again.samples["step_time_s"] == result.samples["step_time_s"]
    assert again.intervals["step_time_s"].variance_shares


def test_one_seed_gives_the_same_bytes_twice(drawn_run):
    """All but what a clock showed; the sources in the result are enough to run it again."""
    first, again = drawn_run(), run(drawn_run().resolved())
    assert first.without_timing().to_json() == again.without_timing().to_json()
    assert first.timing.play_s > 0
    untimed = first.without_timing()
    assert Result.from_json(untimed.to_json()) == untimed
    assert untimed.model_copy(update={"timing": first.timing}) == first


@pytest.mark.parametrize(
    "changes", [(), (("ranks.jitter", 0.02),), (("communication.nics", "shared"),)]
)
def test_a_clock_is_told_in_timing_only(short_run, changes):
    """Folded, explicit and shared: another run of the same experiment, byte by byte."""
    result = short_run(FEW_PARTS, *changes)
    again = run(result.resolved())
    assert result.without_timing().to_json() == again.without_timing().to_json()


def test_metrics_are_those_of_the_inputs_own_values(drawn_run):
    without = drawn_run(("uncertainty.draws", 0))
    assert without.metrics == drawn_run().metrics
    assert (without.uncertainty, without.intervals, without.samples) == (None, {}, {})


def test_a_draw_is_the_step_of_its_sampled_inputs(drawn_run):
    """Sample 7, played by hand through overrides."""
    result = drawn_run()
    draws = sample(result.resolved())
    numbers = draws.numbers(7) | {"ranks.seed": draws.seeds[7], "uncertainty.draws": 0}
    again = run(result.resolved().with_overrides(numbers))
    assert result.samples["step_time_s"][7] == again.metrics.step_time_s
    assert result.samples["breakdown_s.bubble"][7] == again.breakdown_s["bubble"]


def test_intervals_are_the_quantiles_of_the_samples(drawn_run):
    result = drawn_run()
    for name, values in result.samples.items():
        told = result.intervals[name]
        assert len(values) == 24
        expected = np.quantile(values, [0.1, 0.5, 0.9])
        assert [told.p10, told.median, told.p90] == pytest.approx(expected, rel=1e-12)
    assert len(set(result.samples["step_time_s"])) == 24


def test_headlines_phases_and_total_memory_have_samples_and_intervals(drawn_run):
    result = drawn_run()
    expected = {name for name, value in result.metrics if isinstance(value, float)}
    expected |= {f"breakdown_s.{phase}" for phase in result.breakdown_s} | {"memory_bytes.total"}
    assert set(result.intervals) == set(result.samples) == expected


def test_the_inputs_that_were_sampled_are_listed_with_their_sources(drawn_run):
    told = drawn_run().uncertainty
    assert (told.draws, told.seed) == (24, 0)
    link, head = told.inputs
    assert link.path == "profile.communication.exchange.dispatch_nic_bytes_per_s"
    assert (link.value, link.p10, link.p90) == (44e9, 38e9, 47e9)
    assert (link.source, link.assumed) == ("for tests", True)
    assert head.path == "profile.gemm.bf16.sustained_fraction"


def test_a_wide_link_explains_most_of_the_step_and_nothing_of_the_memory(drawn_run):
    intervals = drawn_run().intervals
    shares = intervals["step_time_s"].variance_shares
    assert shares["profile.communication.exchange.dispatch_nic_bytes_per_s"] > 0.5
    assert intervals["memory_bytes.total"].variance_shares == {}
    assert intervals["breakdown_s.optimizer"].variance_shares == {}


def test_a_draw_that_cannot_run_says_which_and_why(drawn_run):
    """Memory of the rest fits 60 GB; a GPU of 40 GB comes up in some draw."""
    capacity = {"value": "80 GB", "p10": "60 GB", "p90": "81 GB", "assumed": "for a test"}
    path = "cluster.node.chip.hbm_capacity_bytes"
    experiment = drawn_run().resolved().with_overrides({path: capacity})
    with pytest.raises(InfeasibleError) as error:
        run(experiment)
    message = str(error.value)
    assert re.match(
        rf"uncertainty: draw \d+ with {re.escape(path)} = [45]\.\d+e\+10 and 2 more: ", message
    )
    assert "memory of pipeline rank" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["samples"]["step_time_s"].pop(), "step_time_s has 23 of 24 draws"),
        (lambda d: d["samples"].pop("step_time_s"), "too much or too little of step_time_s"),
        (
            lambda d: d["intervals"].pop("tokens_per_day"),
            "too much or too little of tokens_per_day",
        ),
        (lambda d: d["samples"].update(x=[0.0] * 24), "too much or too little of x"),
        (lambda d: d.pop("uncertainty"), "step_time_s has 24 of 0 draws"),
    ],
)
def test_a_result_whose_draws_do_not_fit_together_is_refused(drawn_run, change, message):
    document = json.loads(drawn_run().to_json())
    change(document)
    with pytest.raises(SpecError, match=message):
        Result.from_json(json.dumps(document))


def test_the_progress_sees_every_draw_in_order(drawn_run):
    seen = []

    def track(draws):
        for draw in draws:
            seen.append(draw)
            yield draw

    run(drawn_run().resolved().with_overrides({"uncertainty.draws": 3}), track)
    assert seen == [0, 1, 2]
