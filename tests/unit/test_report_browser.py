"""Pages as people see them, in a headless browser: drawn, sorted, picked, kept, and quiet."""

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from simulator.tell.report import run_report, study_report
from tests.browser import Browser
from tests.report_studies import large_study, small_study

ODD = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = Browser(Path(folder))
        yield found
        found.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Open a page; nothing in it may go wrong or ask for anything outside until the test ends."""
    browser.problems.clear()

    def call(html, **size):
        page = tmp_path / "page.html"
        page.write_text(html, encoding="utf-8")
        browser.open(page, **size)
        return browser

    yield call
    assert browser.problems == []


def points(browser):
    """The points in the table's rows, from the top."""
    return browser.evaluate(
        "[...document.querySelectorAll('#grid tr[data-row]')].map(r => r.cells[0].textContent)"
    )


def test_a_study_is_drawn(opened, tmp_path):
    browser = opened(study_report(small_study()), width=1200, height=1600)
    png = browser.screenshot()
    assert struct.unpack(">II", png[16:24]) == (1200, 1600)
    file = tmp_path / "page.png"
    file.write_bytes(png)
    shades = np.unique((imread(file)[..., :3] * 255).astype(np.uint8).reshape(-1, 3), axis=0)
    assert len(shades) > 200  # text, axes, and the colours of points and cells
    assert browser.evaluate("document.querySelectorAll('#map .scatterlayer .point').length") >= 9
    assert browser.evaluate("document.querySelectorAll('#heat .heatmaplayer image').length") == 1


def test_a_click_on_a_head_sorts_the_table(opened):
    browser = opened(study_report(small_study()))
    head = "document.querySelector('#grid th[data-column=\"point\"] button')"
    assert points(browser)[0] == "10"  # the best by the first objective
    browser.click(head)
    assert points(browser) == [str(number) for number in range(12)]
    browser.click(head)
    assert points(browser) == [str(number) for number in reversed(range(12))]
    assert browser.evaluate(f"{head}.parentElement.getAttribute('aria-sort')") == "descending"


def test_rows_that_cannot_run_come_last_with_their_reason(opened):
    browser = opened(study_report(small_study()))
    assert points(browser)[-3:] == ["3", "7", "11"]
    text = "document.querySelector('#grid tr.cannot').textContent"
    assert "needs 75.9 GB, the GPU has 70 GB" in browser.evaluate(text)


def test_a_click_on_a_row_marks_its_point_in_the_plots(opened):
    browser = opened(study_report(small_study()))
    browser.click("document.querySelector('#grid tr[data-row=\"5\"]').cells[0]")
    assert browser.evaluate("document.querySelector('#grid tr[aria-selected]').dataset.row") == "5"
    assert browser.evaluate("document.getElementById('picked-title').textContent") == "Point 5"
    told = browser.evaluate("document.getElementById('picked').textContent")
    assert "160 GB/s" in told
    assert "P10 to P90" in told
    ring = browser.evaluate("(d => [d.x, d.y])(document.getElementById('map').data.at(-1))")
    assert ring == [[31], [8]]


def test_a_click_on_a_point_marks_its_row(opened):
    browser = opened(study_report(small_study()))
    browser.wait("document.querySelectorAll('#map .point').length > 0")
    browser.click(
        "[...document.querySelectorAll('#map .trace')].map(t => t.querySelectorAll('.point'))"
        ".find(points => points.length === 9)[4]"
    )
    browser.wait("document.querySelector('#grid tr[aria-selected]') !== null")
    picked = browser.evaluate("document.querySelector('#grid tr[aria-selected]').dataset.row")
    assert picked == "5"  # the fifth of those that can run


def test_a_filter_keeps_rows_and_dims_points(opened):
    browser = opened(study_report(small_study()))
    browser.evaluate(
        "(i => { i.value = '<8'; i.dispatchEvent(new Event('input')); })"
        "(document.querySelector('#grid input[aria-label=\"filter step time\"]'))"
    )
    assert points(browser) == ["10", "6", "9"]
    assert browser.evaluate("document.getElementById('count').textContent") == "3 of 12 points"
    kept = browser.evaluate("document.getElementById('map').data.at(-2).selectedpoints")
    assert kept == [5, 7, 8]
    browser.click("document.getElementById('clear')")
    assert len(points(browser)) == 12


def test_a_drag_along_a_scale_keeps_a_range(opened):
    browser = opened(study_report(small_study()))
    browser.evaluate("document.getElementById('lines').scrollIntoView({block: 'center'})")
    place = browser.evaluate(
        "(b => [b.x + lines.x(0), b.y + lines.y(0.2), b.y + lines.y(-0.05)])"
        "(document.getElementById('lines').getBoundingClientRect())"
    )
    x, high, low = place
    browser.drag([x, low], [x, high])
    assert sorted(points(browser), key=int) == ["0", "4", "8"]  # NVLink of 80 GB/s


def test_a_box_around_points_keeps_their_rows(opened):
    browser = opened(study_report(small_study()))
    browser.evaluate("document.getElementById('map').scrollIntoView({block: 'center'})")
    box = browser.evaluate(
        "(b => [b.x + 62, b.y + 35, b.x + 90, b.bottom - 60])"
        "(document.getElementById('map').getBoundingClientRect())"
    )
    browser.drag(box[:2], box[2:])
    browser.wait("rows.conditions.has('map')")
    assert sorted(points(browser), key=int) == ["0", "4", "8"]  # the cheapest of each network


def test_a_cell_is_crossed_out_only_where_no_point_can_run(opened):
    browser = opened(study_report(small_study()))
    crossed = "document.getElementById('heat').layout.annotations.filter(a => a.text === '×')"
    assert browser.evaluate(f"{crossed}.map(a => a.x)") == [3, 3, 3]
    browser.evaluate("rows.keep('test', row => !rows.feasible[row] || row === 0)")
    assert browser.evaluate(f"{crossed}.map(a => a.x)") == [3, 3, 3]


def test_only_rows_in_sight_are_in_the_page(opened):
    browser = opened(study_report(large_study(10_000, 14)))
    assert browser.evaluate("document.getElementById('count').textContent") == "10,000 points"
    assert len(points(browser)) < 100
    browser.evaluate("document.getElementById('grid').scrollTop = 1e9")
    browser.wait("document.querySelector('#grid tr[data-row=\"9990\"]') !== null")
    assert len(points(browser)) < 100


def test_odd_texts_are_shown_as_they_are(opened):
    table = small_study(title=ODD)
    frame = table.frame.assign(reason=table.frame["reason"].where(table.frame["feasible"], ODD))
    axes = tuple(axis.model_copy(update={"title": ODD}) for axis in table.document.axes)
    document = table.document.model_copy(update={"axes": axes})
    browser = opened(study_report(type(table)(document, frame)))
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert browser.evaluate("document.querySelector('h1').textContent") == ODD
    assert ODD in browser.evaluate("document.querySelector('#grid tr.cannot').textContent")
    browser.click("document.querySelector('#grid tr.cannot')")
    assert ODD in browser.evaluate("document.getElementById('picked').textContent")
    titles = browser.evaluate("document.querySelector('#heat .xtitle').textContent")
    assert titles.startswith(ODD)


def test_a_phone_shows_a_study_without_scrolling_sideways(opened):
    browser = opened(study_report(small_study()), width=390, height=800)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_run_is_drawn_and_its_tables_sort(opened, short_run):
    browser = opened(run_report(short_run()))
    assert browser.evaluate("document.querySelectorAll('.plot .bars .point').length") > 16
    first = "document.querySelector('#kernels tbody tr').textContent"
    most = browser.evaluate(first)
    head = "document.querySelectorAll('#kernels th button')[1]"
    browser.click(head)
    assert browser.evaluate(first) == most
    browser.click(head)
    least = browser.evaluate(first)
    shares = short_run().fact(next(type(f) for f in short_run().facts if f.kind == "kernels"))
    assert list(shares.compute_share)[-1].replace("_", " ") in least
