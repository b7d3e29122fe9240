"""How all figures look: sizes, letters, colours, and a figure that shows itself in a notebook."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from workloads.phases import END, IDLE

mpl.use("Agg")

STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}

PALETTE = ("#3b75af", "#e1812c", "#3a923a", "#8d6bb8")
"""Of passes and of the phases that steps are in, in their order."""

CATEGORIES = (*PALETTE, "#c44e52", "#4c9fa8", "#937860", "#d080b0")
"""Of things without an order."""

INK, LINE, WAITING, WHITE = "#1f2430", "#8a8f98", "#d9dce1", "#ffffff"
COMMUNICATION, LAST = LINE, INK
BETTER, WORSE = "#3a923a", "#c44e52"

README_WIDTH = 8.6
"""Inches that a page of text shows without making them smaller."""


class Picture(Figure):
    """A figure that a notebook shows, and that is saved as all are."""

    def save(self, file: Path) -> None:
        """Write it; the ending of the name says as what.

        Raises:
            OSError: it cannot be written.
        """
        with mpl.rc_context(STYLE):
            self.savefig(file)

    def _repr_png_(self) -> bytes:
        """Return it as PNG, which is what notebooks ask for."""
        data = BytesIO()
        with mpl.rc_context(STYLE):
            self.savefig(data, format="png")
        return data.getvalue()


def new_picture(height: float, width: float = README_WIDTH) -> Picture:
    """Return an empty figure of a size in inches, whose parts keep clear of each other."""
    return Picture(figsize=(width, height), layout="constrained")


def colors(count: int, *, ordered: bool) -> Sequence[Any]:
    """Return a colour for each of some things, from dark to light where they have an order."""
    if ordered:
        return list(mpl.colormaps["viridis"](np.linspace(0.0, 0.88, count)))
    return [CATEGORIES[place % len(CATEGORIES)] for place in range(count)]


def phase_colors(phases: Iterable[str]) -> dict[str, str]:
    """Return the color of each phase, by name: those that steps are in, the end, and idle last."""
    names = list(phases)
    own = dict(zip((n for n in names if n not in (IDLE, END)), cycle(PALETTE), strict=False))
    ends = {END: LAST, IDLE: WHITE}
    return own | {name: color for name, color in ends.items() if name in names}
