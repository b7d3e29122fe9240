"""A family of kernels in four pictures: how close prices are, over what, and to which ceiling."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hwmodels.arrays import Floats
from simulator.tell.calibration_family import FamilyReport
from simulator.tell.style import STYLE

DOTS: dict[str, Any] = {"s": 5, "alpha": 0.35, "linewidths": 0, "rasterized": True}
MEASURED, PRICED, CEILING = "#8a8f98", "#3b75af", "#1f2430"


def draw_family(family: FamilyReport) -> Figure:
    """Return the figure of one family."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 8), layout="constrained")
        (agreement, spread), (ceiling, left_over) = figure.subplots(2, 2)
        _agreement(agreement, family)
        _spread(spread, family)
        _ceiling(ceiling, family)
        _left_over(left_over, family)
        figure.suptitle(family.title, x=0.01, ha="left", fontweight="bold")
    return figure


def _error(family: FamilyReport) -> Floats:
    return np.asarray(100 * (family.priced_s / family.measured_s - 1))


def _agreement(axes: Axes, family: FamilyReport) -> None:
    measured, priced = 1e6 * family.measured_s, 1e6 * family.priced_s
    axes.scatter(measured, priced, color=PRICED, **DOTS)
    ends = [min(measured.min(), priced.min()), max(measured.max(), priced.max())]
    axes.plot(ends, ends, color=CEILING, linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="measured, us", ylabel="priced, us")
    axes.set_title("priced against measured")


def _spread(axes: Axes, family: FamilyReport) -> None:
    axes.hist(np.clip(_error(family), -50, 50), bins=list(range(-50, 51, 2)), color=PRICED)
    axes.axvline(0, color=CEILING, linewidth=0.8)
    axes.set(xlabel="price / measured - 1, %", ylabel="kernels")
    axes.set_title("errors; beyond 50 % at the ends")


def _ceiling(axes: Axes, family: FamilyReport) -> None:
    """FLOP/s over intensity below the datasheet's roofline; of what multiplies nothing, bytes/s."""
    if not family.flops.any():
        rate = family.moved_bytes / family.measured_s / 1e9
        axes.scatter(family.moved_bytes, rate, color=MEASURED, **DOTS)
        axes.axhline(family.bytes_per_s / 1e9, color=CEILING, linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="bytes", ylabel="measured, GB/s")
    else:
        intensity = family.flops / family.moved_bytes
        axes.scatter(intensity, family.flops / family.measured_s / 1e12, color=MEASURED, **DOTS)
        over = np.geomspace(intensity.min(), intensity.max(), 100)
        roof = np.minimum(family.peak_flops_per_s, over * family.bytes_per_s)
        axes.plot(over, roof / 1e12, color=CEILING, linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="FLOP/byte", ylabel="measured, TFLOP/s")
    axes.set_title("below the datasheet's roofline")


def _left_over(axes: Axes, family: FamilyReport) -> None:
    axes.scatter(family.size, np.clip(_error(family), -50, 50), color=PRICED, **DOTS)
    axes.axhline(0, color=CEILING, linewidth=0.8)
    axes.set(xscale="log", xlabel="rows or tokens", ylabel="price / measured - 1, %")
    axes.set_title("what is left over, by size")
