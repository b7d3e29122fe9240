"""Rows of a study: the same alone as among others, reasons, intervals, and what things cost."""

import json

import pytest

from simulator import Experiment
from simulator.driver.draws import played_draws, samples
from simulator.study.economics import economics
from simulator.study.rows import Payload, Task, work
from simulator.tell.intervals import quantiles
from simulator.tell.study_summary import summary
from simulator.tell.study_table import StudyTable
from tests.unit.study.studies import POINTS, SMALL


def test_a_row_alone_is_the_row_among_others(invoke, small_folder, tmp_path):
    """To the last bit, as `moesim study --point` prints it."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL, encoding="utf-8")
    frame = StudyTable.load(small_folder).frame
    for point in (0, 1, 2, 10, 22):
        row = json.loads(invoke("study", file, "--point", point, "--json").stdout)
        kept = frame.iloc[point].drop("pareto").dropna()
        assert {name: value for name, value in row.items() if value is not None} == kept.to_dict()


def test_rows_do_not_depend_on_what_they_are_played_with(small_study):
    study = small_study(seeds="own")
    payload = Payload.of(study.spec, study.base)
    together = work(payload, Task("play", tuple(range(POINTS)))).rows
    for points in ((5, 4), (13,), (22, 0, 7)):
        found = work(payload, Task("play", points)).rows
        assert found == [together[point] for point in points]
    assert [row["seed"] for row in together[:2]] == [0, 1]


def test_what_cannot_run_is_a_row_with_its_reason(small_folder):
    unable = StudyTable.load(small_folder).frame.query("not feasible")
    assert set(unable["sms"]) == {132.0}
    assert set(unable["reason"]) == {
        "communication.sms: must leave SMs to compute, at most 131 on h800, got 132"
    }
    assert unable["step_time_s"].isna().all()
    assert not unable["pareto"].any()


def test_what_is_not_known_is_none_in_json(small_folder):
    table = StudyTable.load(small_folder)
    document = table.document.model_copy(update={"objectives": ("step_time_s", "network_usd")})
    unknown = StudyTable(document, table.frame.assign(network_usd=float("nan")))
    told = json.loads(json.dumps(summary(unknown), allow_nan=False))
    assert {row["network_usd"] for row in told["best"]} == {None}


def test_draws_give_intervals(small_study, tmp_path):
    """Over an input that is drawn itself: a number put in has no distribution any more."""
    rate = {"value": 0.9, "p10": 0.85, "p90": 0.95, "source": "a test"}
    axes = [
        {"name": "rate", "set": {"communication.exposed_rate": [0.5, 0.9]}},
        {"name": "clock", "set": {"cluster.node.chip.peak_clock_hz": ["1.5 GHz"]}},
    ]
    base = small_study().spec.experiment | {
        "uncertainty": {"draws": 4},
        "communication": {"exposed_rate": rate},
    }
    study = small_study(axes=axes, experiment=base)
    table = study.run(tmp_path / "out", workers=1)
    for point, row in table.frame.iterrows():
        drawn = samples(draw.outcome for draw in played_draws(
            study.base.with_overrides(study.grid.changes(int(point)))
        ))  # fmt: skip
        low, _, high = quantiles(drawn["step_time_s"])
        assert (row["step_time_s.p10"], row["step_time_s.p90"]) == (low, high)
        assert low < high


def test_a_dollar_and_a_joule_buy_tokens():
    """$2 for an hour of each of 2,048 GPUs, 1,000 tokens/s each: 1.8 million tokens a dollar."""
    experiment = Experiment.load("deepseek-v3-pretrain")
    found = economics(experiment, 1000.0, 2.0)
    assert found["tokens_per_usd"] == pytest.approx(1000 * 3600 / 2, rel=1e-12)
    assert found["power_w"] > experiment.cluster.gpus * experiment.cluster.node.chip.tdp_w
    joule = 1000.0 * experiment.gpus / found["power_w"]
    assert found["tokens_per_joule"] == pytest.approx(joule, rel=1e-12)
    assert "tokens_per_usd" not in economics(experiment, 1000.0, None)
