"""Published figures of uncertain experiments: intervals and medians over draws, differences too."""

import numpy as np
import pytest

from hwmodels.errors import SpecError
from simulator import Experiment, run
from simulator.driver.draws import played_draws
from simulator.published import reproduce as published
from simulator.published.reproduce import PublishedFigure, reproduce
from simulator.tell.facts.parts import Parts

QUICK = """
base = "deepseek-v3-pretrain"
plan.schedule = "1f1b"
batch.sequences = 2048
ranks.draws = 1
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Write quick experiments, with `count` draws each, and reproduce one figure on them."""

    def write(name, count, more=""):
        file = tmp_path / f"{name}.toml"
        file.write_text(f"{QUICK}uncertainty.draws = {count}\n{more}", encoding="utf-8")
        return str(file)

    def row(quantity, arguments, uncertain):
        values = {"id": "a.b", "source": "a test", "published": 1, "kind": "predicted"}
        figure = PublishedFigure(
            **values, quantity=quantity, arguments=arguments, uncertain=uncertain
        )
        monkeypatch.setattr(published, "figures", lambda: (figure,))
        (only,) = reproduce()
        return only

    return write, row


@pytest.mark.parametrize(
    ("quantity", "arguments", "read"),
    [
        ("step_metric", {"metric": "mfu_causal"}, lambda s: s.metrics.mfu_causal),
        ("step_phase", {"phases": ["bubble"], "rank": 3}, lambda s: s.phase_s("bubble", 3)),
        ("gpu_hours", {"tokens": 1e12}, lambda s: 1e12 / s.metrics.tokens_per_s_per_gpu / 3600),
        ("part_metric", {"part": "F 1", "metric": "duration_s"}, lambda s: f1(s).duration_s),
    ],
)  # fmt: skip
def test_an_uncertain_figure_has_the_interval_of_its_quantity_over_the_draws(
    bench, quantity, arguments, read
):
    write, row = bench
    base, draws = write("base", 0), write("draws", 5)
    found = row(quantity, {"experiment": base, **arguments}, draws)
    values = [read(draw) for draw in played_draws(Experiment.load(draws))]
    assert [found.p10, found.median, found.p90] == pytest.approx(
        np.quantile(values, [0.1, 0.5, 0.9]), rel=1e-12
    )
    assert found.p10 < found.p90
    assert found.simulated == pytest.approx(read(run(Experiment.load(base))), rel=1e-12)


def f1(step):
    return next(part for part in step.fact(Parts).parts if part.name == "F 1")


def test_a_difference_is_taken_draw_by_draw(bench):
    """24 SMs for communication instead of 20: the spread of both sides cancels in part."""
    write, row = bench
    other = "communication.sms = 24\n"
    names = [write("a", 6), write("b", 6, other)]
    arguments = {"experiment": names[1], "base": names[0]}
    found = row("step_difference", arguments, dict(zip(names, names, strict=True)))
    steps = [
        [draw.metrics.step_time_s for draw in played_draws(Experiment.load(name))] for name in names
    ]
    expected = np.quantile(np.subtract(steps[1], steps[0]), [0.1, 0.5, 0.9])
    assert [found.p10, found.median, found.p90] == pytest.approx(expected, rel=1e-9)


def test_a_quantity_of_prices_is_read_off_every_draw_too(bench):
    write, row = bench
    more = (
        "[profile.memory_op.cast.hbm_efficiency]\n"
        "value = 0.68\np10 = 0.6\np90 = 0.7\nassumed = 'for a test'\n"
    )
    found = row("trace_glue_s", {"experiment": write("base", 0)}, write("draws", 5, more))
    assert found.p10 < found.simulated < found.p90


def test_the_point_of_a_figure_is_not_drawn_even_if_its_experiment_asks_for_draws(
    bench, monkeypatch
):
    write, row = bench
    monkeypatch.setattr("simulator.driver.run.sample", None)
    found = row("step_metric", {"experiment": write("a", 5), "metric": "step_time_s"}, {})
    assert (found.p10, found.median, found.p90) == (None, None, None)
    assert found.simulated == run(Experiment.load(write("b", 0))).metrics.step_time_s


def test_uncertain_experiments_that_do_not_fit_are_refused(bench):
    write, row = bench
    three, two, none = write("three", 3), write("two", 2), write("none", 0)
    metric = {"experiment": none, "metric": "step_time_s"}
    difference = {"experiment": three, "base": two}
    for quantity, arguments, uncertain, message in (
        ("step_metric", metric, none, "uncertainty.draws: must be 1 or more"),
        ("step_difference", difference, {three: three, two: two}, "drawn equally often"),
        ("step_difference", difference, three, "uncertain: says nothing of experiment"),
    ):
        with pytest.raises(SpecError, match=message) as error:
            row(quantity, arguments, uncertain)
        assert "\n" not in str(error.value)


def test_a_median_without_draws_is_refused():
    with pytest.raises(ValueError, match="median: must come with uncertain, got none"):
        PublishedFigure(
            id="a", source="b", published=1, kind="predicted", quantity="c", median=True
        )
