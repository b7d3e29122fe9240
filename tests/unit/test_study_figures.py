"""Figures of a study show what its table holds, and refuse what it does not."""

import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from hwmodels.errors import InputError
from simulator.tell import study_figures
from simulator.tell.headlines import Headline
from simulator.tell.study_figures import check_figures, default_figures, draw_study, picture, plot
from simulator.tell.study_figures.pareto import front_of
from simulator.tell.study_table import AxisColumn, FigureSpec, StudyDocument, StudyTable

NIC = AxisColumn(name="nic", title="NIC bandwidth", unit="B/s", log=True, base=50e9)
SMS = AxisColumn(name="sms", title="communication SMs", base=20.0)
CHIP = AxisColumn(name="chip", title="chip", labels=("H800", "H20", "B200"), base="H800")
STEP = Headline("step_time_s", "step time", "s", "less")
TOKENS = Headline("tokens_per_day", "tokens per day", "tokens/day", "more")
PRICE = Headline("network_usd", "price of the network", "USD", "less")
PHASES = (
    Headline("breakdown_s.forward", "forward alone", "s"),
    Headline("breakdown_s.bubble", "bubble", "s"),
)
NICS, SM_COUNTS = [25e9, 50e9, 100e9, 200e9], [8.0, 20.0, 32.0]
REASON = "memory: must be at most 80 GB, got 97.3 GB"


def document(**changes: Any) -> StudyDocument:
    values: dict[str, Any] = {
        "name": "nics",
        "title": "How wide a NIC?",
        "axes": (CHIP, SMS, NIC),
        "columns": (STEP, TOKENS, PRICE, *PHASES),
        "objectives": ("step_time_s", "network_usd"),
        "points": 36,
        "digest": "d",
        "asked": {},
        "base": {"name": "the-base"},
        "version": "0",
    }
    return StudyDocument(**(values | changes))


def step_of(chip: str, sms: float, nic: float) -> float:
    """Seconds, fastest at 20 SMs on any chip."""
    speed = {"H800": 1.0, "H20": 3.0, "B200": 0.6}[chip]
    return speed * (10 + 400e9 / nic + abs(sms - 20) / 4)


def frame(bands: bool = False) -> pd.DataFrame:
    """A row a point; no H20 runs on 200 GB/s, and no chip with 32 SMs on 25 GB/s."""
    rows = []
    for point, (chip, sms, nic) in enumerate(itertools.product(CHIP.labels, SM_COUNTS, NICS)):
        able = (chip, nic) != ("H20", 200e9) and (sms, nic) != (32.0, 25e9)
        step = step_of(chip, sms, nic) if able else np.nan
        rows.append(
            {
                "point": point,
                "chip": chip,
                "sms": sms,
                "nic": nic,
                "feasible": able,
                "reason": "" if able else f"the-base: {REASON}",
                "fidelity": "play",
                "seed": 0,
                "pareto": False,
                "step_time_s": step,
                "tokens_per_day": 5e12 / step,
                "network_usd": 1e6 * (1 + nic / 1e10),
                "breakdown_s.forward": 0.75 * step,
                "breakdown_s.bubble": 0.25 * step,
            }
            | ({"step_time_s.p10": 0.9 * step, "step_time_s.p90": 1.2 * step} if bands else {})
        )
    return pd.DataFrame(rows)


@pytest.fixture
def table() -> StudyTable:
    return StudyTable(document(), frame())


def legend(drawn: Any) -> list[str]:
    return [
        text.get_text().replace("\n", " ") for each in drawn.legends for text in each.get_texts()
    ]


def curves_of(axes: Any) -> list[Any]:
    return [line for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata())]


# --- curves ---------------------------------------------------------------------------------


def test_a_curve_shows_the_table_in_units_for_people(table: StudyTable) -> None:
    axes = plot(table, "step_time_s", at={"chip": "H800", "sms": 20.0}).axes[0]
    (curve,) = curves_of(axes)
    assert curve.get_xdata().tolist() == [25, 50, 100, 200]
    assert curve.get_ydata().tolist() == [step_of("H800", 20, nic) for nic in NICS]
    assert axes.get_xlabel() == "NIC bandwidth, GB/s"
    assert axes.get_ylabel() == "step time, s  (↓ better)"
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["25", "50", "100", "200"]


def test_what_is_left_out_is_the_best_over_it_which_way_it_may_be(table: StudyTable) -> None:
    for number, of in (("step_time_s", lambda s: s), ("tokens_per_day", lambda s: 5e3 / s)):
        drawn = plot(table, number, by="chip")
        shown = [curve.get_ydata()[:3].tolist() for curve in curves_of(drawn.axes[0])]
        best = [[of(step_of(chip, 20, nic)) for nic in NICS[:3]] for chip in CHIP.labels]
        assert shown == [pytest.approx(values) for values in best]
        assert drawn.get_supxlabel().startswith("best over communication SMs\n")


def test_phases_are_those_of_the_best_by_the_decisive_objective(table: StudyTable) -> None:
    axes = plot(table, "breakdown_s.bubble", at={"chip": "H800"}).axes[0]
    best = [0.25 * step_of("H800", 20, nic) for nic in NICS]
    assert curves_of(axes)[0].get_ydata().tolist() == best


def test_where_nothing_can_run_is_a_gap_in_the_curve_and_a_cross_below_it(
    table: StudyTable,
) -> None:
    drawn = plot(table, "step_time_s", by="chip")
    axes = drawn.axes[0]
    h20 = curves_of(axes)[1]
    assert np.isnan(h20.get_ydata()).tolist() == [False, False, False, True]
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [200]
    assert cross.get_color() == h20.get_color()
    assert "cannot run" in legend(drawn)
    least = min(np.nanmin(curve.get_ydata()) for curve in curves_of(axes))
    strip = axes.patches[0].get_height()
    low, high = axes.get_ylim()
    assert low + strip * (high - low) < least
    assert "6 of 36 points cannot run, the first: " + REASON in drawn.get_supxlabel()


def test_the_base_experiment_is_marked_where_it_is_and_nowhere_else(table: StudyTable) -> None:
    drawn = plot(table, "step_time_s", by="chip")
    (base,) = [line for line in drawn.axes[0].lines if line.get_marker() == "D"]
    assert (base.get_xdata()[0], base.get_ydata()[0]) == (50, step_of("H800", 20, 50e9))
    assert "base experiment" in legend(drawn)
    elsewhere = plot(table, "step_time_s", at={"sms": 8.0})
    assert "base experiment" not in legend(elsewhere)


def test_bands_are_from_p10_to_p90() -> None:
    drawn = plot(StudyTable(document(), frame(bands=True)), at={"chip": "H800", "sms": 20.0})
    (band,) = drawn.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    first = step_of("H800", 20, 25e9)
    assert heights.max() == pytest.approx(1.2 * first)
    assert heights.min() == pytest.approx(0.9 * step_of("H800", 20, 200e9))
    assert "P10 to P90" in legend(drawn)


def test_ratios_are_to_the_base_experiment(table: StudyTable) -> None:
    axes = plot(table, "step_time_s", at={"chip": "H800"}, relative=True).axes[0]
    base = step_of("H800", 20, 50e9)
    expected = [step_of("H800", 20, nic) / base for nic in NICS]
    assert curves_of(axes)[0].get_ydata().tolist() == pytest.approx(expected)
    assert axes.get_ylabel() == "step time, × base experiment  (↓ better)"


def test_numbers_of_other_units_have_panels_of_their_own(table: StudyTable) -> None:
    two = plot(table, "step_time_s", "network_usd", at={"chip": "H800"})
    assert [axes.get_ylabel() for axes in two.axes] == [
        "step time, s  (↓ better)",
        "price of the network, M USD  (↓ better)",
    ]
    assert len(plot(table, "breakdown_s").axes) == 1


def test_what_was_played_counts_before_what_was_screened(table: StudyTable) -> None:
    rows = table.frame
    is_fast = rows.sms == 20
    screened = rows.assign(fidelity=np.where(is_fast & (rows.nic < 200e9), "screen", "play"))
    drawn = plot(StudyTable(document(), screened), at={"chip": "H800"})
    shown = curves_of(drawn.axes[0])[0].get_ydata().tolist()
    slower = [min(step_of("H800", sms, nic) for sms in (8, 32)) for nic in NICS]
    assert shown[:3] == slower[:3]
    only = plot(StudyTable(document(), screened), at={"chip": "H800", "sms": 20.0})
    hollow = [x for x in only.axes[0].lines if x.get_markerfacecolor() == "#ffffff"]
    assert [len(line.get_xdata()) for line in hollow] == [3]
    assert "hollow: screened, not played" in only.get_supxlabel()


# --- heat maps ------------------------------------------------------------------------------


def test_a_heat_map_has_a_cell_a_pair_and_frames_the_best(table: StudyTable) -> None:
    axes = plot(table, "step_time_s", by="sms", at={"chip": "B200"}, kind="heatmap").axes[0]
    (mesh,) = axes.collections
    cells = np.ma.filled(mesh.get_array().reshape(3, 4), np.nan)
    expected = [[step_of("B200", sms, nic) for nic in NICS] for sms in SM_COUNTS]
    expected[2][0] = np.nan
    assert cells == pytest.approx(np.array(expected), nan_ok=True)
    hatched = [box for box in axes.patches if box.get_hatch()]
    assert [(box.get_x(), box.get_y()) for box in hatched] == [(-0.5, 1.5)]
    best = max(axes.patches, key=lambda box: box.get_linewidth())
    assert (best.get_x(), best.get_y()) == (2.5, 0.5)
    assert {text.get_text() for text in axes.texts} >= {"7.20", "15.60"}
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert told == ["best", "cannot run"]  # the base experiment is of another chip


# --- one number against another -------------------------------------------------------------


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 2), min_size=1, max_size=12))
def test_a_front_is_what_no_point_is_better_than(points: list[tuple[int, int]]) -> None:
    first, second = np.array(points, np.float64).T
    front = {points[place] for place in front_of(first, second).tolist()}
    expected = {
        point
        for point in points
        if not any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in points)
    }
    assert front == expected
    assert len(front_of(first, second)) == len(expected)


def test_pareto_draws_the_front_and_tells_its_points(table: StudyTable) -> None:
    drawn = plot(table, "tokens_per_day", x="network_usd", by="chip")
    axes = drawn.axes[0]
    (front,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert list(front.get_xdata()) == pytest.approx([3.5, 6, 11, 21])
    fastest = [5e3 / step_of("B200", 20, nic) for nic in NICS]
    assert list(front.get_ydata()) == pytest.approx(fastest)
    told = legend(drawn)
    assert "front: chip, communication SMs, NIC bandwidth" in told
    assert told[-1] == "4  B200, 20, 200 GB/s"
    assert axes.get_xlabel() == "price of the network, M USD  (← better)"
    assert axes.get_ylabel() == "tokens per day, B  (↑ better)"


# --- bars -----------------------------------------------------------------------------------


def test_bars_stand_in_the_order_of_labels_and_say_why_one_is_not_there(
    table: StudyTable,
) -> None:
    drawn = plot(table, "step_time_s", x="chip", at={"nic": 200e9, "sms": 20.0})
    axes = drawn.axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == [step_of("H800", 20, 200e9), 0.0, step_of("B200", 20, 200e9)]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["H800", "H20", "B200"]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["12.00", "7.20", f"× cannot run: {REASON}"]


def test_bars_of_phases_add_up_to_the_step(table: StudyTable) -> None:
    drawn = plot(table, "breakdown_s", x="chip", at={"nic": 50e9})
    axes = drawn.axes[0]
    whole = np.zeros(3)
    for bar in axes.patches:
        whole[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
    assert whole == pytest.approx([step_of(chip, 20, 50e9) for chip in CHIP.labels])
    assert legend(drawn) == ["forward alone", "bubble"]
    assert axes.get_yticklabels()[0].get_text() == "H800 (base)"


def test_bars_of_two_axes_are_a_group_a_value(table: StudyTable) -> None:
    axes = plot(table, "step_time_s", x="chip", by="nic").axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[:2] == ["H800, 25 GB/s", "H800, 50 GB/s (base)"]
    assert len(labels) == 12
    places = axes.get_yticks()
    gaps = np.diff(places)
    assert sorted(set(gaps.tolist())) == [1.0, 1.5]
    assert (gaps == 1.5).sum() == 2


# --- all of them ----------------------------------------------------------------------------

EVERY: dict[str, dict[str, Any]] = {
    "curves": {"y": ("step_time_s", "tokens_per_day"), "x": "nic", "by": "chip"},
    "heatmap": {"y": ("tokens_per_day",), "x": "nic", "by": "chip"},
    "pareto": {"y": ("step_time_s",), "x": "network_usd", "by": "sms"},
    "bars": {"y": ("step_time_s",), "x": "nic", "by": "chip"},
}


def spec(kind: str, **changes: Any) -> FigureSpec:
    title = (
        "Above 100 GB/s a wider NIC buys little: the step is held by what no network can speed up"
    )
    values = {"kind": kind, "name": kind, "title": title} | EVERY[kind]
    return FigureSpec(**(values | changes))


def test_a_kind_is_a_module() -> None:
    files = Path(study_figures.__file__).parent.glob("[!_]*.py")
    assert set(study_figures.KINDS) == {file.stem for file in files} == set(EVERY)


def test_a_study_draws_what_its_document_asks_for(tmp_path: Path) -> None:
    asked = tuple(spec(kind) for kind in EVERY)
    check_figures(document(figures=asked))
    files = draw_study(StudyTable(document(figures=asked), frame(bands=True)), tmp_path / "figures")
    assert files == [tmp_path / "figures" / f"{kind}.png" for kind in EVERY]
    for file in files:
        width, height = struct.unpack(">II", file.read_bytes()[16:24])
        assert 850 < width < 1000
        assert 200 < height < 1000


def test_without_figures_each_objective_is_drawn_and_one_against_the_other(
    table: StudyTable, tmp_path: Path
) -> None:
    figures = default_figures(table)
    assert [(each.kind, each.name, each.x, each.by) for each in figures] == [
        ("curves", "step_time_s", "nic", "sms"),
        ("curves", "network_usd", "nic", "sms"),
        ("pareto", "pareto", "network_usd", None),
    ]
    assert figures[0].title == "step time over NIC bandwidth: best 7.2 s, at 200 GB/s"
    assert [file.name for file in draw_study(table, tmp_path)] == [
        "step_time_s.png",
        "network_usd.png",
        "pareto.png",
    ]


def test_a_study_over_texts_is_drawn_as_bars() -> None:
    of_chips = document(axes=(NIC, SMS, CHIP), objectives=("step_time_s",))
    assert [each.kind for each in default_figures(StudyTable(of_chips, frame()))] == ["bars"]


def hide_ticks_outside(drawn: Any) -> None:
    """Ticks that are not drawn, as they are outside of their axes, still have words."""
    for axes in drawn.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    tick.label1.set_visible(False)


@pytest.mark.parametrize("kind", EVERY)
def test_no_words_of_a_figure_overlap(kind: str) -> None:
    drawn = picture(StudyTable(document(), frame(bands=True)), spec(kind))
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    hide_ticks_outside(drawn)
    texts = [each for each in drawn.findobj(Text) if each.get_visible() and each.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]
    assert len(boxes) > 10
    for (text, box), (other, of_other) in itertools.combinations(boxes, 2):
        assert not box.padded(-1).overlaps(of_other.padded(-1)), (text, other)


def test_a_notebook_shows_a_figure(table: StudyTable) -> None:
    assert plot(table)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "curve"}, "figure f: kind: unknown 'curve'; did you mean 'curves'?"),
        ({"x": "nics"}, "figure f: axis 'nics': the study has none; did you mean 'nic'?"),
        ({"x": "step_time_s"}, "figure f: axis 'step_time_s': the study has none"),
        ({"by": "nodes"}, "figure f: axis 'nodes': the study has none"),
        ({"by": "nic"}, "figure f: by: must be an axis that is not shown yet, got 'nic'"),
        ({"y": ("step",)}, "figure f: number 'step': the study has none"),
        ({"y": ()}, "figure f: y: must name a number, got none"),
        ({"at": {"nodes": 3}}, "figure f: axis 'nodes': the study has none"),
        ({"kind": "heatmap"}, "figure f: by: heatmap must have an axis, got none"),
        ({"kind": "pareto"}, "figure f: number 'nic': the study has none"),
        (
            {"kind": "pareto", "x": "network_usd", "y": ("breakdown_s.bubble",)},
            "figure f: y: pareto must have numbers that improve one way, got breakdown_s.bubble",
        ),
        (
            {"kind": "bars", "y": ("step_time_s", "network_usd")},
            "figure f: y: bars of several must have one unit, got units USD, s",
        ),
        (
            {"kind": "bars", "y": ("breakdown_s",), "relative": True},
            "figure f: y: bars of several must have one unit, got ratios",
        ),
    ],
)
def test_what_a_study_has_not_is_refused_before_it_runs(
    changes: dict[str, Any], message: str
) -> None:
    values = {"kind": "curves", "name": "f", "title": "t", "x": "nic", "y": ("step_time_s",)}
    with pytest.raises(InputError) as refused:
        check_figures(document(figures=(FigureSpec(**(values | changes)),)))
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"at": {"nic": 30e9}},
            "figure f: at.nic: must be one of 25 GB/s, 50 GB/s, 100 GB/s, 200 GB/s, got 3",
        ),
        ({"at": {"chip": "H100"}}, "figure f: at.chip: must be one of H800, H20, B200, got 'H100'"),
        (
            {"at": {"chip": "H20", "nic": 200e9}},
            "figure f: step_time_s: must be of a point that can run, got none in 3 rows",
        ),
    ],
)
def test_rows_that_are_not_there_are_refused(
    changes: dict[str, Any], message: str, table: StudyTable
) -> None:
    values = {"kind": "curves", "name": "f", "title": "t", "x": "nic", "y": ("step_time_s",)}
    with pytest.raises(InputError) as refused:
        picture(table, FigureSpec(**(values | changes)))
    assert str(refused.value).startswith(message)


def test_without_a_base_experiment_there_are_no_ratios() -> None:
    axes = (CHIP.model_copy(update={"base": None}), SMS, NIC)
    with pytest.raises(InputError, match="must have a row of its base experiment"):
        plot(StudyTable(document(axes=axes), frame()), "step_time_s", relative=True)


def test_two_figures_of_one_name_are_refused() -> None:
    twice = (spec("curves"), spec("bars", name="curves"))
    with pytest.raises(InputError, match="a name of its own each"):
        check_figures(document(figures=twice))


def test_plot_draws_the_folder_of_a_study(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(document().model_dump_json(), encoding="utf-8")
    frame().to_parquet(tmp_path / "table.parquet")
    done = invoke("plot", tmp_path)
    assert done.exit_code == 0
    assert done.stdout == ""
    names = ["step_time_s", "network_usd", "pareto"]
    files = [tmp_path / "figures" / f"{name}.png" for name in names]
    assert done.stderr == "".join(f"wrote {file}\n" for file in files)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_plot_says_what_is_wrong_with_the_folder_of_a_study(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(document().model_dump_json(), encoding="utf-8")
    with pytest.raises(InputError, match="holds no row yet"):
        invoke("plot", tmp_path)
    frame().to_parquet(tmp_path / "table.parquet")
    (tmp_path / "figures").write_text("in the way", encoding="utf-8")
    with pytest.raises(InputError, match="figures: file exists"):
        invoke("plot", tmp_path)
