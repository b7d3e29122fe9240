"""The command report: a page beside what it is of, or where it is asked for; errors in one line."""

import json

import pytest

from hwmodels.errors import InputError, SpecError
from tests.report_studies import small_study


@pytest.fixture
def study_folder(tmp_path):
    folder, table = tmp_path / "study", small_study()
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps(table.document.model_dump(mode="json")))
    table.frame.to_parquet(folder / "table.parquet")
    return folder


@pytest.fixture
def run_folder(short_run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "result.json").write_text(short_run().to_json(), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", [".", "study.json"])
def test_a_study_gets_its_page(invoke, study_folder, name):
    done = invoke("report", study_folder / name)
    page = study_folder / "report.html"
    assert f"wrote {page}" in done.stderr
    assert done.stdout == ""
    assert "How much NVLink does a step need?" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [".", "result.json"])
def test_a_run_gets_its_page(invoke, run_folder, name):
    invoke("report", run_folder / name)
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>deepseek-v3-pretrain</h1>" in page


def test_it_is_written_where_it_is_asked_for(invoke, study_folder, tmp_path):
    invoke("report", study_folder, "--out", tmp_path / "mine.html")
    assert (tmp_path / "mine.html").stat().st_size > 1e6
    assert not (study_folder / "report.html").exists()


def test_what_is_neither_is_refused_in_one_line(invoke, tmp_path):
    with pytest.raises(SpecError, match=r"must hold a study.json or a result.json, got neither$"):
        invoke("report", tmp_path)
    with pytest.raises(SpecError, match="must be the folder of a study or a run"):
        invoke("report", tmp_path / "none")
    (tmp_path / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(SpecError, match="not JSON"):
        invoke("report", tmp_path)


def test_a_place_that_cannot_be_written_is_refused_in_one_line(invoke, study_folder):
    with pytest.raises(InputError, match=r"--out .*: is a directory"):
        invoke("report", study_folder, "--out", study_folder)
