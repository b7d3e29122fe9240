"""A bar for each value of an axis, as a study has texts: one number, or several that make up a
whole, such as the phases of a step.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from hwmodels.arrays import Floats
from simulator.tell.headlines import Headline
from simulator.tell.study_figures._view import Asks, View
from simulator.tell.study_figures._words import alike, finish, plain_numbers, value_text
from simulator.tell.study_table import FEASIBLE, POINT, REASON
from simulator.tell.style import (
    INK,
    LINE,
    WAITING,
    WHITE,
    Picture,
    colors,
    new_picture,
    phase_colors,
)

ASKS = Asks(whole=True)

PHASES = "breakdown_s."
GAP = 0.5
"""Bars that stand for nothing between those of one value of `x` and the next."""

REASON_CHARACTERS = 72
"""Of why a point cannot run, in place of its bar."""


def draw(view: View) -> Picture:
    """Return the figure."""
    stacked = len(view.numbers) > 1
    rows = _rows(view)
    picture = new_picture(max(2.2, 1.5 + 0.28 * len(rows)))
    axes = picture.subplots()
    places = _places(view, rows)
    draw_bars = _stack if stacked else _single
    handles = list(draw_bars(axes, view, rows, places))
    axes.margins(x=0.1)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    _tell_refused(axes, view, rows, places)
    _set_rows(axes, view, rows, places)
    number = view.numbers[0]
    whole = Headline("", "all of them", number.unit)
    axes.set_xlabel(view.label(whole if stacked else number, "→←"))
    plain_numbers(axes, x=True, y=False)
    axes.grid(axis="x", color=WAITING, linewidth=0.6)
    axes.set_axisbelow(True)
    finish(picture, view.spec.title, view.caption(), handles)
    return picture


def _rows(view: View) -> pd.DataFrame:
    """Return a row for each bar in the order of the axis: the best, or one that cannot run."""
    number = view.numbers[0]
    both = pd.concat([view.best(number), view.refused(number)])
    axes = [view.x, *([view.by] if view.by else [])]
    places = [both[axis.name].map(view.values(axis).index) for axis in axes]
    return both.iloc[np.lexsort([np.asarray(place) for place in reversed(places)])]


def _places(view: View, rows: pd.DataFrame) -> Floats:
    """Return (rows,) where bars stand, those of one value of `x` together."""
    steps = np.ones(len(rows))
    if view.by is not None:
        of_x = np.asarray(rows[view.x.name].map(view.values(view.x).index))
        steps[1:] += GAP * (np.diff(of_x) != 0)
    return np.cumsum(steps) - 1


def _single(axes: Axes, view: View, rows: pd.DataFrame, places: Floats) -> Iterator[Artist]:
    """Draw one number, in the colour of `by` where there is one, with P10 to P90."""
    number, by = view.numbers[0], view.by
    amounts = np.asarray(view.amounts(rows, number), np.float64)
    values = [] if by is None else view.values(by)
    palette = colors(max(1, len(values)), ordered=by is not None and not by.labels)
    of_bar = [0] * len(rows) if by is None else [values.index(each) for each in rows[by.name]]
    axes.barh(places, np.nan_to_num(amounts), color=[palette[each] for each in of_bar])
    band, ends = view.band(rows, number), amounts
    if band is not None:
        axes.hlines(places, *band, color=INK, linewidth=1.4)
        ends = np.fmax(amounts, band[1])
    _write_ends(axes, places, amounts, ends)
    if by is not None:
        yield Patch(facecolor="none", label=f"{by.title}:")
        for value, color in zip(values, palette, strict=True):
            yield Patch(color=color, label=value_text(by, value))
    if band is not None:
        yield Patch(facecolor="none", label="lines: P10 to P90")


def _stack(axes: Axes, view: View, rows: pd.DataFrame, places: Floats) -> Iterator[Artist]:
    """Draw several numbers behind each other."""
    names = [number.name.removeprefix(PHASES) for number in view.numbers]
    if all(number.name.startswith(PHASES) for number in view.numbers):
        palette = phase_colors(names)
    else:
        palette = dict(zip(names, colors(len(names), ordered=False), strict=True))
    by_name = dict(zip(names, view.numbers, strict=True))
    left = np.zeros(len(rows))
    for name, color in palette.items():
        amounts = np.nan_to_num(np.asarray(view.amounts(rows, by_name[name]), np.float64))
        look: dict[str, Any] = {"color": color, "edgecolor": WAITING if color == WHITE else color}
        axes.barh(places, amounts, left=left, **look)
        left = left + amounts
        if amounts.any():
            yield Patch(facecolor=color, edgecolor=look["edgecolor"], label=by_name[name].title)
    whole = np.where(rows[FEASIBLE].astype(bool), left, np.nan)
    _write_ends(axes, places, whole, whole)


def _write_ends(axes: Axes, places: Floats, amounts: Floats, ends: Floats) -> None:
    """Write each bar's number behind its end."""
    form = alike(float(np.nanmax(np.abs(amounts))), digits=4)
    for place, amount, end in zip(places.tolist(), amounts.tolist(), ends.tolist(), strict=True):
        if np.isfinite(amount):
            axes.annotate(
                f"{amount:{form}}", (end, place), (4, 0), textcoords="offset points", va="center",
                fontsize=9, color=INK,
            )  # fmt: skip


def _tell_refused(axes: Axes, view: View, rows: pd.DataFrame, places: Floats) -> None:
    """Write in place of a bar why nothing can run there."""
    of_rows = axes.get_yaxis_transform()
    for place, able, reason in zip(places.tolist(), rows[FEASIBLE], rows[REASON], strict=True):
        if not able:
            text = f"× cannot run: {view.reason(reason, REASON_CHARACTERS)}"
            axes.text(0.01, place, text, va="center", fontsize=8, color=LINE, transform=of_rows)


def _set_rows(axes: Axes, view: View, rows: pd.DataFrame, places: Floats) -> None:
    """Write the values of both axes beside their bars; the base experiment's in bold."""
    texts = [value_text(view.x, value) for value in rows[view.x.name]]
    if view.by is not None:
        others = [value_text(view.by, value) for value in rows[view.by.name]]
        texts = [f"{text}, {other}" for text, other in zip(texts, others, strict=True)]
    is_base = [view.base is not None and view.base[POINT] == point for point in rows[POINT]]
    texts = [f"{text} (base)" if each else text for text, each in zip(texts, is_base, strict=True)]
    axes.set_yticks(places, texts)
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.tick_params(axis="y", length=0)
    for label, each in zip(axes.get_yticklabels(), is_base, strict=True):
        label.set_fontweight("bold" if each else "normal")
