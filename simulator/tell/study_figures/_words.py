"""Values of axes in words, and the parts that all figures of studies have in common."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hwmodels.arrays import Floats
from simulator.tell.headlines import UNITS
from simulator.tell.study_table import AxisColumn
from simulator.tell.style import INK, LINE, Picture

TITLE_CHARACTERS, LEGEND_CHARACTERS, CAPTION_CHARACTERS = 80, 26, 130
LEGEND_LINES = 18

TICKS, TEXTS = 10, 20
"""Numbers and texts along an axis that are written; more stand too close."""

SLANTED_CHARACTERS = 60
"""Of all words along an axis; more of them are slanted."""


def axis_values(axis: AxisColumn, frame: pd.DataFrame) -> list[Any]:
    """Return the values of an axis that rows have, in their order."""
    found = set(frame[axis.name])
    return [label for label in axis.labels if label in found] if axis.labels else sorted(found)


def axis_label(axis: AxisColumn) -> str:
    """Return the words of an axis, with its unit."""
    unit = UNITS[axis.unit].suffix.strip()
    return f"{axis.title}, {unit}" if unit else axis.title


def bare_text(axis: AxisColumn, value: Any) -> str:
    """Return a value of an axis, without its unit."""
    return str(value) if axis.labels else f"{value / UNITS[axis.unit].scale:,.5g}"


def value_text(axis: AxisColumn, value: Any) -> str:
    """Return a value of an axis, with its unit."""
    return bare_text(axis, value) + ("" if axis.labels else UNITS[axis.unit].suffix)


def place_values(axes: Axes, axis: AxisColumn, values: Sequence[Any]) -> dict[Any, float]:
    """Set an axis along the figure, and return where each of its values stands."""
    axes.set_xlabel(axis_label(axis))
    if axis.labels:
        places = {value: float(place) for place, value in enumerate(values)}
    else:
        places = {value: float(value) / UNITS[axis.unit].scale for value in values}
        if axis.log and min(places.values()) > 0:
            axes.set_xscale("log")
    is_log, most = axes.get_xscale() == "log", TEXTS if axis.labels else TICKS
    some = _apart(list(places), np.array(list(places.values())), most, log=is_log)
    texts = [bare_text(axis, value) for value in some]
    slanted = sum(map(len, texts)) > SLANTED_CHARACTERS
    axes.xaxis.set_major_locator(FixedLocator([places[value] for value in some]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(
        texts,
        rotation=30 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor",
    )
    return places


def _apart(values: list[Any], places: Floats, most: int, *, log: bool) -> list[Any]:
    """Return the values that stand far enough apart for words, so that there are at most some."""
    at = np.log(places) if log else places
    gap = (at[-1] - at[0]) / most * 0.999
    kept, last = [], -np.inf
    for value, place in zip(values, at.tolist(), strict=True):
        if place - last >= gap:
            kept.append(value)
            last = place
    return kept


def alike(amount: float, digits: int) -> str:
    """Return how to write numbers that stand together, so that one of them has some digits."""
    size = int(np.floor(np.log10(amount))) if amount > 0 else 0
    return f",.{max(0, min(6, digits - 1 - size))}f"


def plain_numbers(axes: Axes, *, x: bool = False, y: bool = True) -> None:
    """Write the numbers of axes out, without a power of ten beside them."""
    plain = FuncFormatter(lambda value, _: f"{value:,.6g}")
    for axis in [axes.xaxis] * x + [axes.yaxis] * y:
        axis.set_major_formatter(plain)
        if axis.get_scale() == "log":
            axis.set_minor_formatter(FuncFormatter(lambda _value, _place: ""))


def finish(picture: Picture, title: str, caption: str, legend: Sequence[Artist] = ()) -> None:
    """Put the finding above a figure, what else to know below it, and its legend beside it."""
    picture.suptitle(
        textwrap.fill(title, TITLE_CHARACTERS), x=0.01, ha="left", fontsize=11, color=INK
    )
    if caption:
        lines = [textwrap.fill(line, CAPTION_CHARACTERS) for line in caption.split("\n")]
        picture.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color=LINE)
    if legend:
        for handle in legend:
            handle.set_label(textwrap.fill(str(handle.get_label()), LEGEND_CHARACTERS))
        columns = 1 + (len(legend) - 1) // LEGEND_LINES
        picture.legend(handles=list(legend), loc="outside right upper", fontsize=9, ncols=columns)
