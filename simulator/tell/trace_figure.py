"""The picture of a measured trace: what ran when on each stream, and what its time is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hwmodels.arrays import Floats
from simulator.tell.style import STYLE

COLORS = {
    "GEMM": "#3b75af",
    "attention": "#8d6bb8",
    "glue": "#e1812c",
    "communication": "#8a8f98",
    "waiting": "#d9dce1",
}
"""By kind of work; what is told here is of these kinds."""
SHARES_WRITTEN = 0.04
"""Of a bar; narrower pieces have no room for words."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Kernels of one kind of work on one stream: (kernels,) seconds."""

    work: str
    start_s: Floats
    length_s: Floats


@dataclass(frozen=True, slots=True)
class Lane:
    """One stream, and what it ran."""

    name: str
    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class Bar:
    """What the busy time of streams of one role is made of: (class, kind of work, share) each."""

    name: str
    parts: Sequence[tuple[str, str, float]]


def draw_trace(title: str, lanes: Sequence[Lane], bars: Sequence[Bar]) -> Figure:
    """Return the figure: streams as lanes over time, and below them a bar for each role."""
    with mpl.rc_context(STYLE):
        heights = [0.45 * len(lanes) + 0.6, 0.45 * len(bars) + 0.6]
        figure = Figure(figsize=(14, sum(heights) + 0.9), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=heights)
        _draw_lanes(above, lanes)
        _draw_bars(below, bars)
        above.set_title(title)
        shown = {run.work for lane in lanes for run in lane.runs}
        handles = [Patch(color=COLORS[work], label=work) for work in COLORS if work in shown]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(COLORS))
    return figure


def _draw_lanes(axes: Axes, lanes: Sequence[Lane]) -> None:
    for row, lane in enumerate(lanes):
        for run in lane.runs:
            spans = list(zip(1e3 * run.start_s, 1e3 * run.length_s, strict=True))
            axes.broken_barh(
                spans, (row - 0.4, 0.8), color=COLORS[run.work], linewidth=0, rasterized=True
            )
    axes.set_yticks(range(len(lanes)), [lane.name for lane in lanes])
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlabel("milliseconds")


def _draw_bars(axes: Axes, bars: Sequence[Bar]) -> None:
    for row, bar in enumerate(bars):
        left = 0.0
        for name, work, share in bar.parts:
            axes.barh(row, 100 * share, left=100 * left, color=COLORS[work], edgecolor="white")
            if share >= SHARES_WRITTEN:
                place = 100 * (left + share / 2)
                axes.text(place, row, f"{name}\n{share:.0%}", ha="center", va="center", fontsize=7)
            left += share
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the time in which the streams are busy")
