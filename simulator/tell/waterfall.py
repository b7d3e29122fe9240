"""What changed between two results, as steps from the one's time to the other's."""

import textwrap
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from hwmodels.errors import shown as as_input
from simulator.tell.compare import Change, Comparison
from simulator.tell.headlines import shown
from simulator.tell.style import BETTER, INK, LINE, STYLE, WAITING, WORSE, Picture, new_picture

INPUTS_TOLD = 3
TITLE_CHARACTERS = 95
ZOOMED = 0.25
"""Share of the whole below which the steps would be hard to see if time began at zero."""


def draw_waterfall(comparison: Comparison, file: Path) -> None:
    """Write the figure of a comparison to a file.

    Raises:
        OSError: it cannot be written.
    """
    waterfall(comparison).save(file)


def waterfall(comparison: Comparison) -> Picture:
    """Return the figure: phase by phase what is slower and what is faster, and how sure that is."""
    steps = [each for each in comparison.phases if each.difference]
    before, after = (sum(each) for each in zip(*_ends(comparison), strict=True))
    reached = before + np.cumsum([0.0, *(each.difference for each in steps)])
    with mpl.rc_context(STYLE):
        picture = new_picture(1.8 + 0.32 * (len(steps) + 2))
        axes = picture.subplots()
        _draw_bars(axes, steps, before, after, reached.tolist())
        _draw_spreads(axes, comparison, steps, reached.tolist())
        _draw_rows(axes, steps, reached.tolist())
        axes.legend(
            handles=[Patch(color=BETTER, label="faster"), Patch(color=WORSE, label="slower")],
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
        )
        picture.suptitle(_title(comparison), x=0.01, ha="left", fontsize=11, color=INK)
    return picture


def _ends(comparison: Comparison) -> list[tuple[float, float]]:
    return [(float(each.before), float(each.after)) for each in comparison.phases]


def _draw_bars(
    axes: Axes, steps: list[Change], before: float, after: float, reached: list[float]
) -> None:
    for row, (whole, text) in ((0, (before, "before")), (len(steps) + 1, (after, "after"))):
        axes.barh(row, whole, color=LINE, label=text)
        axes.annotate(shown(whole, "s"), (whole, row), (4, 0), textcoords="offset points",
                      va="center", fontsize=9, color=INK)  # fmt: skip
    for row, (step, (start, end)) in enumerate(zip(steps, pairwise(reached), strict=True), 1):
        color = BETTER if step.difference < 0 else WORSE
        axes.barh(row, step.difference, left=start, color=color)
        axes.plot([start, start], [row - 1, row], color=LINE, linewidth=0.8, zorder=0)
        share = "" if step.relative is None else f" ({step.relative:+.1%})"
        axes.annotate(
            f"{step.difference:+.3g} s{share}", (max(start, end), row), (4, 0),
            textcoords="offset points", va="center", fontsize=9, color=INK,
        )  # fmt: skip
    axes.plot([after, after], [len(steps), len(steps) + 1], color=LINE, linewidth=0.8, zorder=0)


def _draw_spreads(
    axes: Axes, comparison: Comparison, steps: list[Change], reached: list[float]
) -> None:
    """Draw P10 to P90 of each difference, where both were drawn alike."""
    spreads = {each.name: each.difference for each in comparison.spreads}
    for row, (step, start) in enumerate(zip(steps, reached, strict=False), 1):
        spread = spreads.get(step.name)
        if spread is not None:
            ends = [start + spread.p10, start + spread.p90]
            axes.plot(ends, [row + 0.3, row + 0.3], color=INK, linewidth=1.4)


def _draw_rows(axes: Axes, steps: list[Change], reached: list[float]) -> None:
    texts = ["before", *(textwrap.fill(each.title, 30) for each in steps), "after"]
    axes.set_yticks(range(len(texts)), texts)
    axes.set_ylim(len(texts) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    low, high = min(reached), max(reached)
    begin = 0.0 if high - low > ZOOMED * high or high == low else max(0.0, low - (high - low))
    axes.set_xlim(begin, high + 0.28 * (high - begin))
    axes.set_xlabel("seconds" if begin == 0 else "seconds; the axis does not begin at zero")
    axes.grid(axis="x", color=WAITING, linewidth=0.6)
    axes.set_axisbelow(True)


def _title(comparison: Comparison) -> str:
    """Return by how much the decisive number moved, and what was changed."""
    decisive = comparison.headline[0]
    values = [shown(value, decisive.unit) for value in (decisive.before, decisive.after)]
    by = "" if decisive.relative is None else f" ({decisive.relative:+.1%})"
    inputs = [
        f"{each.name} {_short(each.before)} to {_short(each.after)}"
        for each in comparison.inputs[:INPUTS_TOLD]
    ]
    more = len(comparison.inputs) - len(inputs)
    lines = [f"{decisive.title} {values[0]} to {values[1]}{by}", *inputs]
    lines += [f"and {more} more inputs"] if more else []
    return "\n".join(textwrap.fill(line, TITLE_CHARACTERS) for line in lines)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else as_input(value).strip("'")
