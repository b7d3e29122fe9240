"""Numbers over an axis, a curve for each value of another; with P10 to P90 where the study has it.

Points at which nothing can run are crosses on a strip below the curves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from simulator.tell.headlines import Headline
from simulator.tell.study_figures._view import SCREENED, Asks, View
from simulator.tell.study_figures._words import finish, place_values, plain_numbers, value_text
from simulator.tell.study_table import FIDELITY
from simulator.tell.style import INK, LINE, WAITING, WHITE, Picture, colors, new_picture

ASKS = Asks()

PANELS_A_ROW = 2
STRIP = "#eef0f2"
CROSS_HEIGHT = 0.045
"""Of a panel, that the crosses of one curve take."""

WIDE = 50.0
"""Ratio of the largest to the least number from which they are shown on a scale of ratios."""


@dataclass(frozen=True)
class Curve:
    """One curve: a number, at a value of `by` where there is one."""

    number: Headline
    label: str
    color: Any
    value: Any = None


def draw(view: View) -> Picture:
    """Return the figure: a panel a number, but one for all of one unit without `by`."""
    panels = list(_panels(view))
    columns = min(PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    picture = new_picture(4.0 if columns == rows == 1 else 0.6 + 3.2 * rows)
    grid = picture.subplots(rows, columns, squeeze=False).ravel()
    refused = False
    for axes, curves in zip(grid, panels, strict=False):
        refused |= _draw_panel(axes, view, curves)
    for axes in grid[len(panels) :]:
        axes.remove()
    finish(picture, view.spec.title, view.caption(), list(_legend(view, panels[0], refused)))
    return picture


def _panels(view: View) -> Iterator[list[Curve]]:
    numbers, by = view.numbers, view.by
    if by is not None:
        values = view.values(by)
        palette = colors(len(values), ordered=not by.labels)
        for number in numbers:
            yield [
                Curve(number, value_text(by, value), color, value)
                for value, color in zip(values, palette, strict=True)
            ]
    elif len({number.unit for number in numbers}) == 1 or view.spec.relative:
        palette = colors(len(numbers), ordered=False)
        yield [
            Curve(number, number.title, color)
            for number, color in zip(numbers, palette, strict=True)
        ]
    else:
        for number in numbers:
            yield [Curve(number, number.title, colors(1, ordered=False)[0])]


def _draw_panel(axes: Axes, view: View, curves: list[Curve]) -> bool:
    """Draw the curves of a panel; returns whether something there cannot run."""
    values = view.values(view.x)
    places = place_values(axes, view.x, values)
    thickness = np.linspace(2.6 if len(curves) > 1 else 1.6, 1.4, len(curves)).tolist()
    for curve, thick in zip(curves, thickness, strict=True):  # so that those beneath show
        rows = _of(view, view.best(curve.number), curve).set_index(view.x.name)
        _draw_curve(axes, view, curve, rows.reindex(values), list(places.values()), thick)
    crosses: list[tuple[list[float], Any]] = []
    for curve in curves if view.by else curves[:1]:
        lost = _of(view, view.refused(curve.number), curve)[view.x.name]
        if len(lost):
            color = curve.color if view.by else LINE
            crosses.append(([places[value] for value in lost], color))
    _draw_base(axes, view, curves, places)
    _scale(axes, view)
    _draw_crosses(axes, crosses)
    one = len({curve.number.name for curve in curves}) == 1
    number = curves[0].number
    shared = Headline("", "", number.unit)
    axes.set_ylabel(view.label(number if one else shared, "↑↓"))
    axes.grid(axis="y", color=WAITING, linewidth=0.6)
    return bool(crosses)


def _of(view: View, rows: pd.DataFrame, curve: Curve) -> pd.DataFrame:
    return rows if view.by is None else rows[rows[view.by.name] == curve.value]


def _draw_curve(
    axes: Axes, view: View, curve: Curve, rows: pd.DataFrame, places: list[float], thick: float
) -> None:
    at, amounts = np.array(places), np.asarray(view.amounts(rows, curve.number), np.float64)
    band = view.band(rows, curve.number)
    if band is not None:
        axes.fill_between(at, *band, color=curve.color, alpha=0.18, linewidth=0)
    axes.plot(at, amounts, color=curve.color, linewidth=thick)
    screened = (rows[FIDELITY] == SCREENED).to_numpy()
    for chosen, face in ((~screened, curve.color), (screened, WHITE)):
        axes.plot(
            at[chosen], amounts[chosen], "o", color=curve.color, markerfacecolor=face,
            markersize=2.4 + 1.9 * thick,
        )  # fmt: skip


def _draw_base(axes: Axes, view: View, curves: list[Curve], places: dict[Any, float]) -> None:
    """Mark the base experiment where it is in the figure, be it the best over other axes or not."""
    base = view.base
    if base is None:
        return
    for curve in curves:
        if view.by is None or base[view.by.name] == curve.value:
            amount = view.amounts(base, curve.number)
            axes.plot(places[base[view.x.name]], amount, **_BASE)


_BASE: dict[str, Any] = {
    "marker": "D", "markersize": 11, "markerfacecolor": "none", "color": INK, "linestyle": "none",
    "markeredgewidth": 1.4,
}  # fmt: skip


def _scale(axes: Axes, view: View) -> None:
    """Show numbers that are far apart on a scale of ratios."""
    shown = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    shown = shown[np.isfinite(shown)]
    if len(shown) and shown.min() > 0 and shown.max() > WIDE * shown.min():
        axes.set_yscale("log")
    plain_numbers(axes)
    if view.spec.relative:
        axes.axhline(1, color=LINE, linewidth=0.8, zorder=0)


def _draw_crosses(axes: Axes, crosses: list[tuple[list[float], Any]]) -> None:
    """Draw where nothing can run on a strip below all numbers, a line a curve."""
    if not crosses:
        return
    strip = CROSS_HEIGHT * (len(crosses) + 1)
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        axes.set_ylim(low * (low / high) ** (strip / (1 - strip)), high)
    else:
        axes.set_ylim(low - (high - low) * strip / (1 - strip), high)
    axes.add_patch(
        Rectangle((0, 0), 1, strip, transform=axes.transAxes, facecolor=STRIP, zorder=0.5)
    )
    for line, (places, color) in enumerate(crosses, 1):
        heights = [CROSS_HEIGHT * line] * len(places)
        axes.plot(places, heights, color=color, transform=axes.get_xaxis_transform(), **_CROSS)


_CROSS: dict[str, Any] = {
    "marker": "x", "linestyle": "none", "markersize": 6, "markeredgewidth": 1.8,
}  # fmt: skip


def _legend(view: View, curves: list[Curve], refused: bool) -> Iterator[Artist]:
    if view.by is not None:
        yield Line2D([], [], linestyle="none", label=f"{view.by.title}:")
    if len(curves) > 1:
        for curve in curves:
            yield Line2D([], [], color=curve.color, marker="o", markersize=5, label=curve.label)
    rows = view.best(curves[0].number)
    if view.band(rows, curves[0].number) is not None:
        yield Patch(facecolor=LINE, alpha=0.3, label="P10 to P90")
    if view.base is not None:
        yield Line2D([], [], label="base experiment", **_BASE)
    if refused:
        yield Line2D([], [], color=LINE, label="cannot run", **_CROSS)
