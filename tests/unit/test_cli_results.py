"""The commands beside `run`: results compared, drawn and held against publications; presets, schema
and plans told.
"""

import json
import re

import pytest

from simulator.published.reproduce import Row
from simulator.tell.facts import Facts
from workloads.schedules import SCHEDULES

# Results


@pytest.fixture
def two_results(short_run, tmp_path):
    paths = []
    for name, changes in (("a", ()), ("b", (("cluster.node.chip", "h100"),))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "result.json").write_text(short_run(*changes).to_json(), encoding="utf-8")
        paths.append(folder)
    return paths


def test_compare_explains_two_results(invoke, two_results, short_run):
    document = json.loads(invoke("compare", *two_results, "--json").stdout)
    assert set(document) == {
        "inputs",
        "headline",
        "phases",
        "facts",
        "spreads",
        "better_share",
        "draws",
    }
    assert document["headline"][0]["before"] == short_run().metrics.step_time_s
    text = invoke("compare", *two_results).stdout
    assert "cluster.node.chip.nvlink_bytes_per_s" in text
    assert "inputs do not differ" in invoke("compare", two_results[0], two_results[0]).stdout


def test_compare_prints_the_spread_of_the_difference(invoke, drawn_run, tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, changes in zip(paths, ((), (("communication.sms", 24),)), strict=True):
        path.write_text(drawn_run(*changes).to_json(), encoding="utf-8")
    document = json.loads(invoke("compare", *paths, "--json").stdout)
    step = next(each for each in document["spreads"] if each["name"] == "step_time_s")
    assert set(step["difference"]) == {"p10", "median", "p90"}
    text = invoke("compare", *paths).stdout
    low, high = step["difference"]["p10"], step["difference"]["p90"]
    assert "24 draws from seed 0, compared draw by draw" in text
    assert f"{low:+.4g} to {high:+.4g} s" in text
    assert f"step time is better after in {document['better_share']:.0%} of the draws" in text


def test_plot_draws_the_figures_of_a_result_again(
    invoke, monkeypatch, two_results, short_played, drawn
):
    """The result is read and its experiment played again; figures go beside it."""
    run = short_played()
    replayed = []
    monkeypatch.setattr("simulator.driver.step.play", lambda e: replayed.append(e) or run)
    done = invoke("plot", two_results[0])
    assert done.stdout == ""
    assert done.stderr == f"wrote {two_results[0] / 'pipeline.png'}\n"
    assert drawn == [(run, two_results[0])]
    assert [experiment.batch.sequences for experiment in replayed] == [4096]


def test_reproduce_prints_the_figures_that_were_named(invoke):
    rows = json.loads(invoke("reproduce", "isca25.table1", "--json").stdout)["rows"]
    assert [row["simulated"] for row in rows] == [70272, 327680, 516096]
    assert set(rows[0]) == {
        "id",
        "source",
        "published",
        "simulated",
        "unit",
        "relative_error",
        "kind",
        "note",
        "p10",
        "median",
        "p90",
    }
    assert {row["p10"] for row in rows} == {None}
    text = invoke("reproduce", "isca25.table1.deepseek-v3").stdout
    assert "70.272 kB" in text
    assert "no predicted figure" in text


def test_a_published_figure_with_draws_shows_its_interval(invoke, monkeypatch):
    sure = Row("a.sure", "source", 1.0, 1.0, "s", 0.0, "predicted", "")
    unsure = Row("a.unsure", "source", 1.0, 2.0, "s", 1.0, "predicted", "", "", 1.5, 2.1, 2.5)
    rows = {"sure": (sure,), "both": (sure, unsure)}
    monkeypatch.setattr("simulator.published.reproduce.reproduce", lambda names, _: rows[names[0]])
    assert "1.5 s to 2.5 s" in invoke("reproduce", "both").stdout
    assert "P10-P90" not in invoke("reproduce", "sure").stdout
    told = json.loads(invoke("reproduce", "both", "--json").stdout)["rows"][1]
    assert (told["p10"], told["median"], told["p90"]) == (1.5, 2.1, 2.5)


# Presets, schema and plans


def test_list_names_every_kind_of_preset(invoke):
    kinds = json.loads(invoke("list", "--json").stdout)
    assert set(kinds) == {
        "chip",
        "node",
        "cluster",
        "price",
        "library",
        "profile",
        "model",
        "experiment",
        "fabric",
        "attention",
        "ffn",
        "recipe",
        "schedule",
        "study",
    }
    assert {"h800", "h20"} <= set(kinds["chip"])
    assert "deepseek-v3-pretrain" in kinds["experiment"]
    assert kinds["schedule"] == sorted(SCHEDULES)
    assert {"1f1b", "interleaved", "zb1p", "zbv", "dualpipe"} <= set(kinds["schedule"])
    assert kinds["attention"] == ["gqa", "mla"]
    assert kinds["recipe"] == ["bf16", "fp8-blockwise"]
    assert json.loads(invoke("list", "chips", "--json").stdout) == {"chip": kinds["chip"]}
    assert "h800" in invoke("list").stdout


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("chip", "h800"),
        ("node", "h800x8"),
        ("cluster", "h800-2048-mpft"),
        ("profile", "h800-deepseek"),
        ("model", "deepseek-v3"),
        ("experiment", "deepseek-v3-pretrain"),
    ],
)
def test_show_gives_resolved_values_with_sources(invoke, kind, name):
    document = json.loads(invoke("show", kind, name, "--json").stdout)
    assert set(document) == {"values", "sources"} | ({"network"} if kind == "cluster" else set())
    assert document["values"]["name"] == name
    assert document["sources"]
    text = invoke("show", kind, name).stdout
    first = next(source["text"] for source in document["sources"].values())
    assert first[:12] in text


def test_show_gives_the_distribution_of_a_value(invoke):
    assert "0.7268 (0.682 to 0.7565)" in invoke("show", "profile", "h800-deepseek").stdout


def test_the_schema_describes_a_result(invoke, short_run):
    """References resolve, nothing unknown is allowed, and a result has all that is required."""
    schema = json.loads(invoke("schema").stdout)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    document = json.loads(short_run().to_json())
    assert set(schema["properties"]) == set(document)
    assert set(schema["required"]) <= set(document)
    for reference in references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]
    kinds = (schema["properties"]["metrics"], schema["properties"]["facts"]["items"])
    metrics, facts = (
        {each["properties"]["kind"]["const"]: each for each in kind["oneOf"]} for kind in kinds
    )
    for alternatives, told in ((metrics, [document["metrics"]]), (facts, document["facts"])):
        for each in told:
            assert set(alternatives[each["kind"]]["properties"]) == set(each)
            assert set(alternatives[each["kind"]]["required"]) <= set(each)
            assert "kind" in alternatives[each["kind"]]["required"]
    assert set(facts) == set(Facts.kinds)


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_help_names_every_command(invoke):
    text = invoke("--help").stdout
    for command in ("run", "compare", "plot", "reproduce", "list", "show", "schema"):
        assert f"  {command} " in text


def test_a_plan_is_written_and_its_size_told(invoke, tmp_path):
    pytest.importorskip("triton", reason="needs PyTorch and Triton")
    file = tmp_path / "plan.json"
    done = invoke("calibrate", "plan", "--quick", "--out", file)
    assert done.stdout == ""
    assert re.fullmatch(r"\d+ points, about \d+ s on the device, compilation apart\n", done.stderr)
    assert json.loads(file.read_text(encoding="utf-8"))["points"]
