"""One number over two axes: a cell a pair of values, the darker the better."""

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from hwmodels.arrays import Floats
from simulator.tell.study_figures._view import Asks, View
from simulator.tell.study_figures._words import alike, axis_label, bare_text, finish
from simulator.tell.study_table import AxisColumn
from simulator.tell.style import INK, LINE, WAITING, WHITE, Picture, new_picture

ASKS = Asks(by="must", one_number=True)

WRITTEN_COLUMNS, WRITTEN_ROWS = 12, 20
"""Cells of a figure in which numbers are written; more are too small."""

TICKS = 24
BEST, BASE = "#e1812c", INK


def draw(view: View) -> Picture:
    """Return the figure."""
    number, by = view.numbers[0], view.by
    assert by is not None, "a heat map has two axes, as it asks for"
    xs, ys = view.values(view.x), view.values(by)
    rows, refused = view.best(number), view.refused(number)
    amounts = _grid(xs, ys, view.x, by, rows, np.asarray(view.amounts(rows, number), np.float64))
    picture = new_picture(min(9.0, max(2.6, 1.7 + 0.36 * len(ys))))
    axes = picture.subplots()
    colors = mpl.colormaps["YlGnBu" if number.better != "less" else "YlGnBu_r"]
    mesh = axes.pcolormesh(
        np.arange(len(xs) + 1) - 0.5, np.arange(len(ys) + 1) - 0.5, np.ma.masked_invalid(amounts),
        cmap=colors, edgecolors="white", linewidth=0.8,
    )  # fmt: skip
    if len(xs) <= WRITTEN_COLUMNS and len(ys) <= WRITTEN_ROWS:
        _write(axes, mesh, amounts)
    lost = _cells(xs, ys, view.x, by, refused)
    for cell in lost:
        _box(axes, cell, facecolor=WHITE, hatch="////", edgecolor=WAITING, linewidth=0)
    _set_axis(axes, "x", view.x, xs)
    _set_axis(axes, "y", by, ys)
    marks = list(_mark(axes, view, xs, ys, rows))
    bar = picture.colorbar(mesh, ax=axes, pad=0.01, aspect=25)
    bar.set_label(view.label(number, "↑↓"))
    if lost:
        marks.append(Patch(facecolor=WHITE, hatch="////", edgecolor=LINE, label="cannot run"))
    finish(picture, view.spec.title, view.caption())
    if marks:
        axes.legend(
            handles=marks, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(marks), fontsize=9,
            borderaxespad=0.2,
        )  # fmt: skip
    return picture


def _grid(
    xs: list[Any], ys: list[Any], x: AxisColumn, by: AxisColumn, rows: pd.DataFrame, shown: Floats
) -> Floats:
    """Return (ys, xs) what is shown in each cell, NaN where there is nothing."""
    grid = np.full((len(ys), len(xs)), np.nan)
    for cell, amount in zip(_cells(xs, ys, x, by, rows), shown.tolist(), strict=True):
        grid[cell[1], cell[0]] = amount
    return grid


def _cells(
    xs: list[Any], ys: list[Any], x: AxisColumn, by: AxisColumn, rows: pd.DataFrame
) -> list[tuple[int, int]]:
    """Return the column and the line of each row."""
    return [
        (xs.index(value), ys.index(other))
        for value, other in zip(rows[x.name], rows[by.name], strict=True)
    ]


def _write(axes: Axes, mesh: Any, amounts: Floats) -> None:
    """Write the numbers into their cells, in a colour that shows on theirs."""
    form = alike(np.nanmin(np.abs(amounts)), digits=3)
    for (line, column), amount in np.ndenumerate(amounts):
        if np.isfinite(amount):
            red, green, blue, _ = mesh.cmap(mesh.norm(amount))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
            axes.text(
                column, line, f"{amount:{form}}", ha="center", va="center", fontsize=8,
                color=WHITE if dark else INK,
            )  # fmt: skip


def _mark(
    axes: Axes, view: View, xs: list[Any], ys: list[Any], rows: pd.DataFrame
) -> Iterator[Artist]:
    """Frame the best cell and that of the base experiment."""
    number, by = view.numbers[0], view.by
    assert by is not None, "a heat map has two axes, as it asks for"
    if view.base is not None:
        cell = _cells(xs, ys, view.x, by, view.base.to_frame().T)[0]
        _box(axes, cell, 0.12, edgecolor=WHITE, linewidth=2.4)  # shows on any colour
        _box(axes, cell, 0.12, edgecolor=BASE, linewidth=1.4, linestyle=(0, (3, 2)))
        yield Patch(facecolor="none", edgecolor=BASE, linestyle="--", label="base experiment")
    if number.better is not None:
        least = number.better == "less"
        best = rows.loc[[rows[number.name].idxmin() if least else rows[number.name].idxmax()]]
        _box(axes, _cells(xs, ys, view.x, by, best)[0], edgecolor=BEST, linewidth=2.4)
        yield Patch(facecolor="none", edgecolor=BEST, linewidth=2.4, label="best")


def _box(axes: Axes, cell: tuple[int, int], inside: float = 0.0, **look: Any) -> None:
    corner, side = (cell[0] - 0.5 + inside, cell[1] - 0.5 + inside), 1 - 2 * inside
    axes.add_patch(Rectangle(corner, side, side, **({"facecolor": "none"} | look)))


def _set_axis(axes: Axes, which: str, axis: AxisColumn, values: list[Any]) -> None:
    """Write the values of an axis beside their cells, every second or third where many are."""
    step = -(-len(values) // TICKS)
    texts = [bare_text(axis, value) for value in values[::step]]
    places = range(0, len(values), step)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    if which == "x":
        slanted = sum(map(len, texts)) > 75
        axes.set_xticks(
            places, texts, rotation=30 if slanted else 0, ha="right" if slanted else "center",
            rotation_mode="anchor",
        )  # fmt: skip
        axes.set_xlabel(axis_label(axis))
    else:
        axes.set_yticks(places, texts)
        axes.set_ylabel(axis_label(axis))
