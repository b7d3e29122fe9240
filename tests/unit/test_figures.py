"""Figures: every step is drawn where it ran, and everything a step has is on them."""

import struct

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from simulator.tell import figures
from simulator.tell.roofline import AREA, kernel_points, roofline


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def test_a_run_draws_four_png_files(short_simulated, tmp_path):
    result, played = short_simulated()
    files = figures.draw_all(played, result, tmp_path)
    assert [file.name for file in files] == [
        "pipeline.png",
        "overlap.png",
        "breakdown.png",
        "roofline.png",
    ]
    for file in files:
        data = file.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", data[16:24])
        assert width > 600
        assert height > 200
    assert plt.get_fignums() == []


def test_without_pairs_there_is_no_overlap_to_draw(short_simulated, tmp_path, monkeypatch):
    result, run = short_simulated(("plan.schedule", "1f1b"))
    assert figures.pair_overlap(run) is None
    monkeypatch.setattr(  # it is slow, and not the point
        figures, "pipeline_gantt", lambda _: figures.breakdown(result)
    )
    files = figures.draw_all(run, result, tmp_path)
    assert [file.name for file in files] == ["pipeline.png", "breakdown.png", "roofline.png"]


def bars(axes):
    """Row, left and right end and colour of each bar of a Gantt, row by row from the left."""
    found = []
    for group in axes.collections:
        assert isinstance(group, PolyCollection)
        colours = [tuple(colour) for colour in group.get_facecolor()]
        paths = group.get_paths()
        for path, colour in zip(paths, colours * (len(paths) // len(colours)), strict=True):
            x, y = path.vertices[:-1].T
            found.append((round(y.mean()), x.min(), x.max(), colour))
    return sorted(found)


@pytest.fixture(scope="module")
def gantt(short_played):
    return figures.pipeline_gantt(short_played()).axes[0]


def test_the_gantt_shows_each_step_of_each_rank_where_it_ran(gantt, short_played):
    """A bar a step, and one a rank for the optimizer; none for messages."""
    run = short_played()
    names = [run.pipeline.graph.streams[stream] for stream in run.pipeline.graph.stream]
    ran = sorted(
        (run.pipeline.rank[task], run.timeline().start_s[task], run.timeline().end_s[task])
        for task, name in enumerate(names)
        if name.endswith("/compute")
    )
    drawn = bars(gantt)
    assert [row for row, *_ in drawn] == [rank for rank, *_ in ran]
    assert [bar[1:3] for bar in drawn] == [pytest.approx(span[1:], abs=1e-9) for span in ran]
    assert gantt.get_xlim() == (0, run.timeline().makespan_s)


def test_each_kind_of_step_has_its_colour(gantt, short_played):
    """Full and input-only backwards share one; the optimizer has its own."""
    program = short_played().pipeline.program
    colours = {}
    drawn = iter(bars(gantt))
    for own in program:
        for step in own:
            colours.setdefault(step.kind, set()).add(next(drawn)[3])
        colours.setdefault("optimizer", set()).add(next(drawn)[3])
    assert all(len(used) == 1 for used in colours.values())
    assert colours["Bi"] == colours["B"]
    assert len(set.union(*colours.values())) == 5


def test_the_overlap_shows_compute_over_communication_and_the_waiting(short_played):
    """Rank 0 of the middle pair: a bar a task, a hatched one for each wait, compute above."""
    run = short_played()
    part = run.parts["FB", 1, 1]
    timeline = part.timeline(0)
    figure = figures.pair_overlap(run)
    axes = figure.axes[0]
    tasks = len(timeline.graph)
    waits = int((timeline.wait_s > 0).sum())
    assert waits
    drawn = bars(axes)
    assert len(drawn) == tasks + waits
    title = axes.get_title(loc="left") + axes.get_title()
    assert f"{part.duration_s[0] * 1e3:.1f} ms" in title
    assert [label.get_text() for label in axes.get_yticklabels()] == ["compute", "communication"]
    compute_ms = sum(right - left for row, left, right, _ in drawn if row == 0)
    streams = timeline.graph.stream
    on_compute = [timeline.graph.streams[stream].endswith("compute") for stream in streams]
    seconds = (timeline.end_s - timeline.start_s)[on_compute]
    assert compute_ms == pytest.approx(seconds.sum() * 1e3, rel=1e-9)


def test_the_breakdown_stacks_each_rank_to_the_whole_step(short_run):
    result = short_run()
    axes = figures.breakdown(result).axes[0]
    widths = np.zeros(16)
    for bar in axes.patches:
        widths[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
    assert widths == pytest.approx(np.full(16, result.metrics.step_time_s), rel=1e-9)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(legend) == 6
    assert legend[-2].startswith("optimizer: ")
    assert legend[-1].startswith("bubble: ")


def test_without_ranks_the_breakdown_is_of_their_mean(short_run):
    result = short_run().model_copy(update={"facts": ()})
    axes = figures.breakdown(result).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(
        [result.breakdown_s[name] for name in figures.phase_colors(result.phases)], rel=1e-9
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mean"]


def test_phases_of_any_number_have_colours():
    names = [f"phase {place}" for place in range(9)]
    assert list(figures.phase_colors(names)) == names
    assert len(set(figures.phase_colors(names).values())) == len(figures.PALETTE)


def test_no_kernel_is_above_the_roofs_of_its_chip(short_played):
    run = short_played()
    points = kernel_points(run)
    chip = run.experiment.cluster.node.chip
    seconds = sum(each.seconds for each in run.op_seconds)
    assert points.seconds.sum() == pytest.approx(seconds)
    assert (points.flops <= max(chip.tensor.values()) * points.seconds * (1 + 1e-9)).all()


def test_the_roofline_has_a_mark_a_kernel_whose_area_is_its_time(short_played):
    run = short_played()
    points = kernel_points(run)
    left, right = roofline(run).axes
    multiplies, moves = left.collections[0], right.collections[0]
    used = points.seconds > 0
    assert len(multiplies.get_offsets()) == (used & (points.flops > 0)).sum()
    assert len(moves.get_offsets()) == (used & (points.flops == 0) & (points.moved_bytes > 0)).sum()
    share = (multiplies.get_sizes() - 2).sum() / AREA
    assert share == pytest.approx(points.seconds[points.flops > 0].sum() / points.seconds.sum())
    roofs = {line.get_ydata().max() for line in left.lines}
    chip = run.experiment.cluster.node.chip
    assert sorted(roofs) == pytest.approx(sorted({peak / 1e12 for peak in chip.tensor.values()}))
