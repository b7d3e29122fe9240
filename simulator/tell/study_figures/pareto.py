"""Two numbers against each other: every point that can run, and the front, which no other point is
better than in both. Points of the front are numbered, and the numbers told beside the figure.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError
from simulator.tell.headlines import Headline
from simulator.tell.study_figures._view import SCREENED, Asks, View
from simulator.tell.study_figures._words import finish, plain_numbers, value_text
from simulator.tell.study_table import FIDELITY, AxisColumn
from simulator.tell.style import INK, LINE, WAITING, WHITE, Picture, colors, new_picture

ASKS = Asks(x="number", one_number=True, improves=True)

NUMBERED = 10
"""Points of the front that are told of; of more, as many spread evenly along it."""

WIDE = 50.0
APART = 0.045
"""Of the figure, that numbered points are apart at least."""

FRONT = "#c44e52"


def draw(view: View) -> Picture:
    """Return the figure.

    Raises:
        InputError: no point has both numbers.
    """
    x, y = view.x_number, view.numbers[0]
    rows = view.runs(x, y)
    if rows.empty:
        raise InputError(
            f"figure {view.spec.name}: must have a point with both {x.name} and {y.name}, got none"
        )
    at = np.asarray(view.amounts(rows, x), np.float64)
    up = np.asarray(view.amounts(rows, y), np.float64)
    front = front_of(_less(rows, x), _less(rows, y))
    picture = new_picture(4.2)
    axes = picture.subplots()
    handles = list(_draw_points(axes, view, rows, at, up))
    axes.step(at[front], up[front], where="post", color=FRONT, linewidth=1.2, zorder=2)
    axes.plot(at[front], up[front], linestyle="none", zorder=3, **_RING)
    if view.base is not None and view.base[[x.name, y.name]].notna().all():
        place = view.amounts(view.base, x), view.amounts(view.base, y)
        axes.plot(*place, zorder=4, **_BASE)
        handles.append(Line2D([], [], label="base experiment", **_BASE))
    _scale(axes, at, up)
    axes.set_xlabel(view.label(x, "→←"))
    axes.set_ylabel(view.label(y, "↑↓"))
    axes.grid(color=WAITING, linewidth=0.6)
    chosen = _numbered(axes, at, up, front)
    handles.append(Line2D([], [], **_RING, linestyle="-", label=f"front: {_differ(view)}"))
    for nth, row in enumerate(chosen, 1):
        _write(axes, nth, float(at[row]), float(up[row]), x, y)
        text = f"{nth}  {_told(view, rows.iloc[row])}"
        handles.append(Line2D([], [], linestyle="none", label=text))
    finish(picture, view.spec.title, view.caption(best=False), handles)
    return picture


_RING: dict[str, Any] = {
    "marker": "o", "markersize": 8, "markerfacecolor": "none", "color": FRONT,
    "markeredgewidth": 1.6,
}  # fmt: skip

_BASE: dict[str, Any] = {
    "marker": "D", "markersize": 11, "markerfacecolor": "none", "color": INK, "linestyle": "none",
    "markeredgewidth": 1.4,
}  # fmt: skip


def front_of(first: Floats, second: Floats) -> Ints:
    """Return the points that no other is better than, in order of the first of two numbers.

    Args:
        first, second: (points,) each, less being better. Of points alike in both the first counts.
    """
    order = np.lexsort((second, first))
    least = np.minimum.accumulate(second[order])
    before = np.concatenate([[np.inf], least[:-1]])
    return np.asarray(order[second[order] < before])


def _less(rows: pd.DataFrame, number: Headline) -> Floats:
    sign = 1 if number.better == "less" else -1
    return sign * np.asarray(rows[number.name], np.float64)


def _draw_points(
    axes: Axes, view: View, rows: pd.DataFrame, at: Floats, up: Floats
) -> Iterator[Artist]:
    screened = (rows[FIDELITY] == SCREENED).to_numpy()
    groups: list[tuple[str, Any, Any]] = [("point of the study", LINE, np.ones(len(rows), bool))]
    if view.by is not None:
        values = view.values(view.by)
        palette = colors(len(values), ordered=not view.by.labels)
        yield Line2D([], [], linestyle="none", label=f"{view.by.title}:")
        groups = [
            (value_text(view.by, value), color, (rows[view.by.name] == value).to_numpy())
            for value, color in zip(values, palette, strict=True)
        ]
    for text, color, of_group in groups:
        for chosen, face in ((of_group & ~screened, color), (of_group & screened, WHITE)):
            axes.scatter(
                at[chosen], up[chosen], s=22, facecolors=face, edgecolors=color, linewidths=0.8,
                alpha=0.75, zorder=1,
            )  # fmt: skip
        if of_group.any():
            look: dict[str, Any] = {"marker": "o", "markersize": 5, "linestyle": "none"}
            yield Line2D([], [], color=color, label=text, **look)


def _scale(axes: Axes, at: Floats, up: Floats) -> None:
    """Show numbers that are far apart on a scale of ratios."""
    if at.min() > 0 and at.max() > WIDE * at.min():
        axes.set_xscale("log")
    if up.min() > 0 and up.max() > WIDE * up.min():
        axes.set_yscale("log")
    plain_numbers(axes, x=True, y=True)
    axes.margins(0.08)
    axes.autoscale_view()


def _numbered(axes: Axes, at: Floats, up: Floats, front: Ints) -> list[int]:
    """Return the points of the front that are told of, far enough apart for their numbers."""
    places = axes.transData.transform(np.stack([at[front], up[front]], axis=1))
    size = axes.transAxes.transform([(1, 1)]) - axes.transAxes.transform([(0, 0)])
    places = places / size
    spread = np.linspace(0, len(front) - 1, min(NUMBERED, len(front))).round().astype(int)
    kept: list[int] = []
    for place in dict.fromkeys([0, len(front) - 1, *spread.tolist()]):  # its ends first
        gaps = np.hypot(*(places[kept] - places[place]).T) if kept else np.array([np.inf])
        if gaps.min() >= APART:
            kept.append(place)
    return [int(front[place]) for place in sorted(kept)]


def _write(axes: Axes, number: int, at: float, up: float, x: Headline, y: Headline) -> None:
    """Write a number on the better side of its point, where no other point can be."""
    aside = (-9 if x.better == "less" else 9, -9 if y.better == "less" else 9)
    axes.annotate(
        str(number), (at, up), aside, textcoords="offset points", ha="center", va="center",
        fontsize=9, color=FRONT, fontweight="bold",
    )  # fmt: skip


def _differ(view: View) -> str:
    """Return the axes by whose values points are told apart."""
    return ", ".join(axis.title for axis in _axes(view))


def _told(view: View, row: "pd.Series[Any]") -> str:
    """Return the values by which a point differs from others."""
    return ", ".join(value_text(axis, row[axis.name]) for axis in _axes(view))


def _axes(view: View) -> list[AxisColumn]:
    return [axis for axis in view.document.axes if len(view.values(axis)) > 1]
