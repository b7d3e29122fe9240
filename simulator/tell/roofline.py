"""Where the kernels of a run stand below the roofs of its chip: the tensor cores' and memory's."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from hwmodels.arrays import Floats, Mask
from simulator.lower.played import Played
from simulator.tell.style import INK, LINE, WAITING, Picture, colors, new_picture

FAMILIES_TOLD = 8
AREA = 2500.0
"""Of a kernel that takes all of the time, in square points."""


@dataclass(frozen=True, eq=False)
class KernelPoints:
    """Kernels of a pipeline at balanced load, op by op; launch gaps count as time.

    Attributes:
        family: of each.
        flops, moved_bytes, seconds: (ops,) of all its runs.
    """

    family: tuple[str, ...]
    flops: Floats
    moved_bytes: Floats
    seconds: Floats


def kernel_points(played: Played) -> KernelPoints:
    """Return what the kernels of what was played do, and how long they take."""
    runs = played.lowered.compute_runs.sum(axis=0)
    timed = played.op_seconds
    return KernelPoints(
        tuple(each.op.family for each in timed),
        runs * np.array([each.op.flops for each in timed]),
        runs * np.array([each.op.bytes for each in timed]),
        np.array([each.seconds for each in timed]),
    )


def roofline(played: Played) -> Picture:
    """Return the figure: kernels that multiply below the roofs of each format, the others below
    memory's; the area of a mark is its share of the compute time.
    """
    points = kernel_points(played)
    picture = new_picture(4.6, 10.0)
    left, right = picture.subplots(1, 2, width_ratios=(3, 2))
    totals: dict[str, float] = {}
    for family, seconds in zip(points.family, points.seconds.tolist(), strict=True):
        totals[family] = totals.get(family, 0.0) + seconds
    largest = sorted(totals, key=lambda family: -totals[family])[:FAMILIES_TOLD]
    color_of = dict(zip(largest, colors(len(largest), ordered=False), strict=True))
    with_flops = (points.flops > 0) & (points.seconds > 0)
    without = (points.flops == 0) & (points.moved_bytes > 0) & (points.seconds > 0)
    _draw_flops(left, played, points, with_flops, color_of)
    _draw_bytes(right, played, points, without, color_of)
    whole = points.seconds.sum()
    handles = [
        Line2D([], [], color=color, marker="o", linestyle="none",
               label=f"{family.replace('_', ' ')}, {totals[family] / whole:.0%}")
        for family, color in color_of.items()
    ]  # fmt: skip
    if len(totals) > len(largest):
        handles.append(Line2D([], [], color=LINE, marker="o", linestyle="none", label="others"))
    picture.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=9)
    share = points.seconds[with_flops].sum() / whole
    picture.suptitle(
        f"{played.experiment.name}: {share:.0%} of the compute time multiplies, at "
        f"{points.flops.sum() / points.seconds[with_flops].sum() / 1e12:,.0f} TFLOP/s in the mean",
        x=0.01, ha="left", fontsize=11, color=INK,
    )  # fmt: skip
    return picture


def _draw_flops(
    axes: Axes, played: Played, points: KernelPoints, chosen: Mask, color_of: dict[str, str]
) -> None:
    chip = played.experiment.cluster.node.chip
    flops, moved = points.flops[chosen], points.moved_bytes[chosen]
    _marks(axes, flops / moved, flops / points.seconds[chosen] / 1e12, points, chosen, color_of)
    ends = np.array([min(10.0, (flops / moved).min()), max(1e4, (flops / moved).max())])
    for name, peak in chip.tensor.items():
        ridge = peak / chip.hbm_bytes_per_s
        over = np.array([ends[0], ridge, max(ends[1], ridge)])
        axes.plot(over, np.minimum(peak, over * chip.hbm_bytes_per_s) / 1e12, color=LINE,
                  linewidth=0.9, zorder=0)  # fmt: skip
        axes.annotate(name, (over[-1], peak / 1e12), (3, 0), textcoords="offset points",
                      va="center", fontsize=8, color=INK)  # fmt: skip
    axes.set(xlabel="FLOP per byte", ylabel="TFLOP/s, achieved")


def _draw_bytes(
    axes: Axes, played: Played, points: KernelPoints, chosen: Mask, color_of: dict[str, str]
) -> None:
    """Draw kernels that multiply nothing: how fast they move their bytes."""
    runs = played.lowered.compute_runs.sum(axis=0)[chosen]
    moved = points.moved_bytes[chosen]
    rate = moved / points.seconds[chosen] / 1e9
    _marks(axes, moved / runs / 1e6, rate, points, chosen, color_of)
    peak = played.experiment.cluster.node.chip.hbm_bytes_per_s / 1e9
    axes.axhline(peak, color=LINE, linewidth=0.9, zorder=0)
    axes.annotate("memory", (0.01, peak), (0, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", fontsize=8, color=INK)  # fmt: skip
    axes.set(yscale="linear", ylim=(0, 1.05 * max(peak, rate.max(initial=0.0))))
    axes.set(xlabel="MB a run", ylabel="GB/s, no tensor FLOPs")


def _marks(
    axes: Axes, x: Floats, y: Floats, points: KernelPoints, chosen: Mask,
    color_of: dict[str, str],
) -> None:  # fmt: skip
    share = points.seconds[chosen] / points.seconds.sum()
    families = [family for family, each in zip(points.family, chosen, strict=True) if each]
    axes.scatter(
        x, y, s=AREA * share + 2, c=[color_of.get(family, LINE) for family in families],
        alpha=0.7, linewidths=0,
    )  # fmt: skip
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(color=WAITING, linewidth=0.6)
    axes.set_axisbelow(True)
