"""The links of one plane as matrices: a row a switch, a column each switch above it.

What thousands of lines between two rows of switches no longer show.
"""

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap

from hwmodels.arrays import Floats, Ints, Mask
from simulator.tell.style import INK, LINE, WAITING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hwmodels.fabrics.topology import Topology

LINES_MAX = 200
"""Lines of a plane that can still be told apart."""

TIERS = (("leaf", "spine"), ("spine of all pods", "core above it"))


def draw_matrices(
    axes: "Axes",
    topology: "Topology",
    lines: Ints,
    busy: Floats | None,
    gone: Mask,
    colors: ListedColormap,
) -> None:
    """Draw how busy lines between switches are, leaves to spines, then spines to cores.

    Args:
        lines: (lines, 2) the lower and the upper switch of each, in order.
        busy: (lines,) 1 is all the time; None where nothing ran.
        gone: (lines,) whether all cables of a line are down.
    """
    axes.axis("off")
    tier = topology.switch_tier[lines[:, 0] - topology.endpoints]
    tiers = np.unique(tier).tolist()
    for place, low in enumerate(tiers):
        of_tier = tier == low
        share = 1 / len(tiers)
        part = axes.inset_axes((place * share, 0.0, share - 0.14 * (len(tiers) > 1), 1.0))
        _draw(part, lines[of_tier], None if busy is None else busy[of_tier], gone[of_tier], colors)
        lower, upper = TIERS[low]
        if low == 0 and topology.clos.pods > 1:
            upper = "spine of its pod"
        part.set_xlabel(upper, fontsize=8, color=INK)
        part.set_ylabel(lower, fontsize=8, color=INK)


def _draw(
    axes: "Axes", lines: Ints, busy: Floats | None, gone: Mask, colors: ListedColormap
) -> None:
    rows, columns = places(lines)
    shape = rows.max() + 1, columns.max() + 1
    shown = np.full(shape, np.nan)
    shown[rows, columns] = np.zeros(len(lines)) if busy is None else busy
    look = ListedColormap([WAITING]) if busy is None else colors
    axes.imshow(
        np.ma.masked_invalid(shown), cmap=look, norm=mpl.colors.Normalize(0, 1), aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    axes.scatter(columns[gone], rows[gone], s=6, marker="x", color=INK, linewidths=0.6)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=7, colors=LINE)
    for axis, count in ((axes.yaxis, shape[0]), (axes.xaxis, shape[1])):
        axis.set_ticks(range(0, count, max(1, -(-count // 5))))


def places(lines: Ints) -> tuple[Ints, Ints]:
    """Return (lines,) row and column of each line, in order: its lower switch, and which of those
    above that one it leads to.
    """
    _, first, row = np.unique(lines[:, 0], return_index=True, return_inverse=True)
    row = row.ravel()
    return np.asarray(row), np.asarray(np.arange(len(lines)) - first[row])
