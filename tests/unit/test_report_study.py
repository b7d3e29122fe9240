"""The page of a study: whole, safe to open, small, and with the numbers of its table."""

import re

import numpy as np
import pandas as pd
import pytest

from simulator.tell.report import study_report
from simulator.tell.study_table import AxisColumn, StudyTable
from tests.html_page import HtmlPage
from tests.report_studies import large_study, small_study

ODD = "</script><img src=x onerror=alert(1)><b>&amp;"
BYTES_MAX = 8_000_000


@pytest.fixture(scope="module")
def page():
    return HtmlPage(study_report(small_study()))


def column(page, name):
    (found,) = (each for each in page.data("study")["columns"] if each["name"] == name)
    return found


def values(found):
    if "codes" in found:
        return [found["kinds"][code] for code in found["codes"]]
    return found["values"]


def test_it_says_what_was_asked_and_what_came_out(page):
    assert "How much NVLink does a step need?" in page.text
    assert "NVLink by topology." in page.text
    assert "best point: step time" in page.text
    assert "at NVLink 200 GB/s, network ft3; -25.0% to the base" in " ".join(page.text.split())
    assert "12" in page.text
    assert "9 can run; 3 cannot; 3 on the front of objectives" in page.text


def test_a_card_leads_to_the_row_of_its_number(page):
    rows = [
        found["data-row"] for tag, found in page.tags if tag == "button" and "data-row" in found
    ]
    table = small_study()
    steps = table.frame["step_time_s"]
    assert rows == [str(steps.idxmin()), str(table.frame["network_usd"].idxmin()), "2"]
    assert table.base_row.name == 2


def test_reasons_that_differ_in_numbers_only_are_counted_as_one(page):
    assert "Why 3 points cannot run" in page.text
    assert "needs 75.9 GB, the GPU has 70 GB (and the like)" in page.text
    assert "76.9" not in page.text  # in the table's data only


def test_its_provenance_is_told(page):
    for told in ("moesim 0.1.0", "d1" * 32, '"experiment": "deepseek-v3-pretrain"'):
        assert told in page.text


def test_a_study_that_is_not_done_says_so():
    table = small_study()
    part = StudyTable(table.document, table.frame.iloc[:5].reset_index(drop=True))
    text = HtmlPage(study_report(part)).text
    assert "5 of 12 points are here" in text
    assert "7 not done yet" in text


def test_a_study_in_which_nothing_runs_is_a_page_too():
    table = small_study()
    frame = table.frame.assign(feasible=False, reason="too small")
    frame[["step_time_s", "network_usd", "mfu_causal"]] = np.nan
    page = HtmlPage(study_report(StudyTable(table.document, frame)))
    assert "0 can run; 12 cannot" in page.text
    assert "best point" not in page.text


def test_the_page_holds_every_row_in_units_of_people(page):
    table = small_study()
    step = column(page, "step_time_s")
    assert step["unit"] == "s"
    assert step["better"] == "less"
    shown = [None if pd.isna(each) else round(each, 4) for each in table.frame["step_time_s"]]
    assert values(step) == shown
    assert values(column(page, "nvlink")) == [80, 160, 200, 450] * 3
    assert column(page, "nvlink")["base"] == 200
    assert column(page, "topology")["kinds"] == ["mpft", "mrft", "ft3"]
    assert page.data("study")["feasible"] == [1, 1, 1, 0] * 3


def test_fields_that_move_with_an_axis_are_in_the_unit_of_their_name():
    table = small_study()
    frame = table.frame.assign(**{"cluster.node.pcie_bytes_per_s": 64e9, "cluster.node.nics": 8})
    page = HtmlPage(study_report(StudyTable(table.document, frame)))
    pcie, nics = (column(page, f"cluster.node.{name}") for name in ("pcie_bytes_per_s", "nics"))
    assert (pcie["unit"], set(values(pcie)), pcie["role"]) == ("GB/s", {64}, "field")
    assert (nics["unit"], set(values(nics))) == ("", {8})


def test_intervals_stand_beside_their_number(page):
    step, price = column(page, "step_time_s"), column(page, "network_usd")
    assert step["low"][0] == pytest.approx(9.5)
    assert step["high"][0] == pytest.approx(11.0)
    assert step["low"][3] is None
    assert "low" not in price


def test_numbers_are_rounded_once_to_what_is_shown():
    page = HtmlPage(study_report(large_study(400, 2)))
    whole = large_study(400, 2).frame["n1"].dropna()
    told = np.array([each for each in values(column(page, "n1")) if each is not None])
    digits = column(page, "n1")["decimals"]
    exact = [float(f"{each:.5g}") for each in whole] if digits is None else whole.round(digits)
    assert (told == np.asarray(exact)).all()


@pytest.mark.parametrize("place", ["title", "about", "reason", "label", "axis", "name", "figure"])
def test_odd_texts_are_shown_and_never_run(place):
    html = study_report(odd_study(place))
    page = HtmlPage(html)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 10
    assert "<img src=x" not in html
    if place in ("title", "about", "reason", "name"):
        assert ODD in page.text
    if place != "name":
        assert ODD in str(page.data("study")) + page.text


def odd_study(place):
    """A study with markup in one of its texts."""
    table = small_study()
    document, frame = table.document, table.frame
    nvlink, topology = document.axes
    changes = {
        "title": {"title": ODD},
        "about": {"about": ODD},
        "name": {"asked": {"experiment": ODD}},
        "axis": {"axes": (nvlink.model_copy(update={"title": ODD}), topology)},
        "label": {"axes": (nvlink, AxisColumn(name="topology", title="network", labels=(ODD,)))},
        "figure": {"figures": (document.figures[0].model_copy(update={"title": ODD}),)},
        "reason": {},
    }[place]
    if place == "reason":
        frame = frame.assign(reason=frame["reason"].where(frame["feasible"], ODD))
    if place == "label":
        frame = frame.assign(topology=ODD)
    return StudyTable(document.model_copy(update=changes), frame)


def test_it_loads_nothing(page):
    assert page.loads == []
    (policy,) = (f["content"] for t, f in page.tags if f.get("http-equiv") is not None)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    html = study_report(small_study())
    assert not re.search(r"@import|url\(\s*['\"]?https?:", html.partition("<body>")[0])


def test_ten_thousand_rows_of_twenty_columns_are_below_eight_megabytes():
    table = large_study(10_000, 14)
    assert table.frame.shape == (10_000, 22)  # twenty beside `feasible` and `seed`
    assert len(study_report(table).encode()) < BYTES_MAX
