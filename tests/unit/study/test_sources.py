"""What a study cites: kept in its folder, shown on its page and by `moesim show study`."""

import json

import pytest

from hwmodels.document import Source
from hwmodels.errors import InputError, SpecError
from simulator.study.document import study_names
from simulator.tell.report import study_report
from simulator.tell.study_table import StudyTable
from tests.html_page import HtmlPage
from tests.unit.study.studies import SMALL

CITED = {
    "sources": {"usd_per_gpu_hour": "arXiv 2412.19437 Table 1"},
    "assumed": {"axes": {"sms": "as many as kernels were seen with", "nvlink": "what is built"}},
}


def test_a_folder_has_what_a_study_cites_and_what_its_experiment_does(small_study, tmp_path):
    study = small_study(**CITED)
    study.run(tmp_path / "out", workers=1)
    sources = StudyTable.load(tmp_path / "out").document.sources
    assert sources["usd_per_gpu_hour"] == Source(text="arXiv 2412.19437 Table 1")
    assert sources["axes.sms"] == Source(text="as many as kernels were seen with", assumed=True)
    assert {path: sources[path] for path in study.base.sources} == study.base.sources
    assert len(sources) == len(study.base.sources) + 3
    page = HtmlPage(study_report(StudyTable.load(tmp_path / "out")))
    guessed = sum(source.assumed for source in sources.values())
    assert f"{len(sources)} sources of inputs, {guessed} of them assumptions" in page.text
    assert "as many as kernels were seen with" in page.text


def test_a_price_has_its_source_under_its_old_name_too(small_study):
    document = small_study(usd_source="a bill").document
    assert document.sources["usd_per_gpu_hour"].text == "a bill"
    with pytest.raises(SpecError, match="usd_per_gpu_hour: has a source already"):
        small_study(usd_source="a bill", **CITED)


@pytest.mark.parametrize(
    ("cited", "why"),
    [
        ({"sources": {"axes": {"nvlin": "x"}}}, r"must be of axes\.NAME.*did you mean"),
        ({"sources": {"axes.sms.plan.pp": "x"}}, r"sources\.axes\.sms\.plan\.pp: must be"),
        ({"assumed": {"seed": "x"}}, r"assumed\.seed: must be .* that has a value"),
        ({"sources": {"title": "x"}, "assumed": {"title": "y"}}, "has a source already"),
    ],
)
def test_what_is_cited_must_be_there(small_study, cited, why):
    with pytest.raises(SpecError, match=why):
        small_study(**cited)


def test_a_study_is_shown_with_its_sources(invoke, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "300")
    file = tmp_path / "small.toml"
    file.write_text('assumed.axes.sms = "a guess of mine"\n' + SMALL, encoding="utf-8")
    told = invoke("show", "study", file)
    assert told.exit_code == 0, told.output
    lines = told.output.splitlines()
    (sms,) = (line for line in lines if line.startswith("axes.sms.communication.sms"))
    assert "8, 20, 132" in sms
    assert "assumed: a guess of mine" in sms
    (nvlink,) = (line for line in lines if line.startswith("axes.nvlink."))
    assert "80 GB/s to 450 GB/s, 8 values, equal ratios" in nvlink
    (sms_of_base,) = (line for line in lines if line.startswith("communication.sms"))
    assert "arXiv 2412.19437" in sms_of_base


@pytest.mark.parametrize("name", study_names())
def test_every_shipped_study_can_be_shown(invoke, name):
    told = invoke("show", "study", name, "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["study"]["name"] == name
    assert found["sources"]


def test_what_only_a_cluster_has_is_refused_of_a_study(invoke):
    with pytest.raises(InputError, match="is about the network of a cluster, got a study"):
        invoke("show", "study", "nvlink", "--prices", "isca25-table3")
