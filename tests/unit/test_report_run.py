"""The page of a run: all its numbers, facts that show themselves, texts that are never run."""

import re

import pytest

from simulator.tell.exhibits import Stack
from simulator.tell.facts import Facts
from simulator.tell.headlines import shown
from simulator.tell.report import run_report
from tests.html_page import HtmlPage

ODD = "</script><img src=x onerror=alert(1)><b>&amp;"


@pytest.fixture(scope="module")
def page(short_run):
    return HtmlPage(run_report(short_run()))


def flat(page):
    return " ".join(page.text.split())


def test_it_shows_every_headline_and_phase(page, short_run):
    result = short_run()
    for each in result.metrics.headline:
        assert each.title in page.text
        assert shown(result.numbers[each.name], each.unit) in page.text
    for name, seconds in result.breakdown_s.items():
        if seconds:
            assert result.phases[name] in page.text


def test_memory_is_told_by_term_and_ends_with_its_sum(page, short_run):
    terms = short_run().memory_bytes
    for name, size in terms.items():
        if size:
            assert name.replace("_", " ") in page.text
    assert f"{terms['total'] / 1e9:.2f}" in page.text


def test_it_says_what_it_rests_on(page, short_run):
    origin = short_run().provenance
    for told in (origin.version, origin.folding, origin.profile_sha256, origin.communication_basis):
        assert " ".join(told.split()) in flat(page)
    for source in origin.sources.values():
        assert " ".join(source.text.split()) in flat(page)


@pytest.mark.parametrize("kind", sorted(Facts.kinds))
def test_every_kind_of_facts_has_its_place(kind, short_run):
    changes = Facts.kinds[kind].example
    result = short_run(*changes.items())
    page = HtmlPage(run_report(result))
    assert kind in [found.get("id") for tag, found in page.tags if tag == "section"]
    exhibits = list(result.fact(Facts.kinds[kind]).exhibits())
    assert exhibits
    for exhibit in exhibits:
        assert exhibit.title in page.text
        if not isinstance(exhibit, Stack):
            for column in exhibit.columns:
                assert column.title in page.text


def test_bars_of_ranks_sum_to_the_step(page, short_run):
    figure = page.data("pipeline_ranks-1")
    piles = zip(*(trace["y"] for trace in figure["data"]), strict=True)
    for pile in piles:
        assert sum(pile) == pytest.approx(short_run().metrics.step_time_s, rel=1e-4)


def test_draws_show_their_spread(drawn_run):
    result = drawn_run()
    page = HtmlPage(run_report(result))
    assert f"{result.uncertainty.draws} draws of the uncertain inputs" in page.text
    spread = result.intervals["step_time_s"]
    assert f"P10 to P90 {shown(spread.p10, 's')} to {shown(spread.p90, 's')}" in page.text
    assert len(page.data("draws")["data"][0]["x"]) == result.uncertainty.draws
    for each in result.uncertainty.inputs:
        assert each.path in page.text


def test_odd_texts_are_shown_and_never_run(short_run):
    result = short_run()
    origin = result.provenance.model_copy(update={"notes": (ODD,)})
    odd = result.model_copy(
        update={"experiment": result.experiment | {"name": ODD}, "provenance": origin}
    )
    html = run_report(odd)
    page = HtmlPage(html)
    assert page.text.count(ODD) >= 3  # title of the window, heading and note
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert "<img src=x" not in html


def test_it_loads_nothing_and_is_small(short_run):
    html = run_report(short_run())
    assert HtmlPage(html).loads == []
    assert not re.search(r"@import|url\(\s*['\"]?https?:", html.partition("<body>")[0])
    assert len(html.encode()) < 8_000_000
