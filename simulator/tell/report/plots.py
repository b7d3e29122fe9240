"""Figures of a run as Plotly draws them, as plain data; `plots.js` gives them their looks."""

from html import escape
from typing import Any

from simulator.tell.exhibits import Stack, words
from simulator.tell.headlines import UNITS
from simulator.tell.style import phase_colors

BINS_MAX = 24


def stacked_bars(stack: Stack) -> dict[str, Any]:
    """Return a pile of bars for each place, coloured as in the figures."""
    unit, colors = UNITS[stack.unit], phase_colors(stack.series)
    traces = [
        {
            "type": "bar",
            "name": escape(words(name)),
            "x": list(range(len(heights))),
            "y": [float(f"{height / unit.scale:.6g}") for height in heights],
            "marker": {"color": colors[name], "line": {"color": "#8a8f98", "width": 0.5}},
            "hovertemplate": f"%{{y:.4g}}{unit.suffix}",
        }
        for name, heights in stack.series.items()
    ]
    layout = {
        "barmode": "stack",
        "hovermode": "x unified",
        "xaxis": {"title": {"text": escape(stack.along)}, "dtick": _step(stack)},
        "yaxis": {"title": {"text": unit.suffix.strip()}},
    }
    return {"data": traces, "layout": layout}


def histogram(title: str, unit: str, samples: tuple[float, ...]) -> dict[str, Any]:
    """Return how often a number of the draws fell where."""
    scale, suffix = UNITS[unit]
    trace = {
        "type": "histogram",
        "x": [float(f"{value / scale:.6g}") for value in samples],
        "nbinsx": min(BINS_MAX, max(6, round(len(samples) ** 0.5) * 2)),
        "marker": {"color": "#3b75af", "line": {"color": "#fff", "width": 1}},
        "hovertemplate": "%{y} draws at %{x}<extra></extra>",
    }
    named = f"{title}, {suffix.strip()}" if suffix else title
    layout = {
        "xaxis": {"title": {"text": escape(named)}},
        "yaxis": {"title": {"text": "draws"}},
    }
    return {"data": [trace], "layout": layout}


def _step(stack: Stack) -> int:
    """Return how far apart the places are that have a label."""
    return max(1, len(next(iter(stack.series.values()))) // 16)
