"""Score a fit on rows it did not see: other layers, or ops left out one at a time.

Errors are of undisturbed times (measured / slowdown) against prices, so that they say how good the
cost functions are and not how much communication happened to overlap. `gemm` is the time-weighted
mean of |error| over rows; `glue` is the error of the sum of all memory-bound kernels, signed.
The router's three BF16 products are in neither: they have as many constants.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.fit.interference import undisturbed_s
from calibration.fit.kernels import (
    FITTED_GEMMS,
    ROUTER_GEMMS,
    FitResult,
    families_without,
    fit_rows,
)
from calibration.fit.pricing import Pricer
from calibration.read.dualpipe_trace import COMPUTE_SMS
from calibration.read.trace_rows import LAYERS, TraceData, TraceRow
from calibration.rows import sites
from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec
from workloads.ops import Attention, Gemm, MemoryOp

HALVES = ((0, 1), (2, 3))
LONE_LAUNCHES = "small"
"""Family that prices an op whose own family has no other."""


@dataclass(frozen=True, slots=True)
class Score:
    """Relative errors, as fractions of measured time.

    Attributes:
        gemm: time-weighted |error| of FP8 GEMM rows.
        attention: error of the sum of attention cores, signed.
        glue: error of the sum of memory-bound kernels, signed.
    """

    gemm: float
    attention: float
    glue: float


@dataclass(frozen=True, slots=True)
class Scores:
    """All the ways a fit is judged.

    Attributes:
        all_layers: on what it was fitted on.
        held_out: fitted on the first two layers and tested on the last two, and the other way.
        leave_one_op_out: every op priced by a fit without it, all layers.
    """

    all_layers: Score
    held_out: tuple[Score, Score]
    leave_one_op_out: Score

    def table(self) -> dict[str, float]:
        """Return the figures a profile keeps: the worse of both held-out ways."""
        glue = max((score.glue for score in self.held_out), key=abs)
        attention = max((score.attention for score in self.held_out), key=abs)
        return {
            "gemm_all_layers": self.all_layers.gemm,
            "gemm_held_out_layers": max(score.gemm for score in self.held_out),
            "gemm_leave_one_op_out": self.leave_one_op_out.gemm,
            "glue_total_all_layers": self.all_layers.glue,
            "glue_total_held_out_layers": glue,
            "glue_total_leave_one_op_out": self.leave_one_op_out.glue,
            "attention_held_out_layers": attention,
        }


def score_rows(rows: Sequence[TraceRow], predicted_s: Floats, alone_s: Floats) -> Score:
    """Return the errors of predictions: all arrays (rows,) seconds."""
    is_gemm = np.array([row.op.family in FITTED_GEMMS for row in rows])
    is_attention = np.array([isinstance(row.op, Attention) for row in rows])
    is_glue = np.array([isinstance(row.op, MemoryOp) for row in rows])
    miss = predicted_s - alone_s

    def total(mask: Floats, values: Floats) -> float:
        return float(values[mask].sum() / alone_s[mask].sum()) if mask.any() else 0.0

    return Score(
        gemm=total(is_gemm, np.abs(miss)),
        attention=total(is_attention, miss),
        glue=total(is_glue, miss),
    )


def score_fit(fit: FitResult, rows: Sequence[TraceRow]) -> Score:
    """Return the errors of a fit on `rows` of the same trace."""
    return score_rows(rows, fit.predict_s(rows), undisturbed_s(rows, fit.slowdowns))


def score_trace(data: TraceData, chip: ChipSpec) -> Scores:
    """Fit and score one trace in every way."""
    held_out = []
    for seen, unseen in (HALVES, HALVES[::-1]):
        fit = fit_rows(data, chip, seen)
        held_out.append(score_fit(fit, [row for row in data.rows if row.layer in unseen]))
    whole = fit_rows(data, chip, LAYERS)
    alone_s = undisturbed_s(data.rows, whole.slowdowns)
    return Scores(
        score_fit(whole, data.rows),
        (held_out[0], held_out[1]),
        score_rows(data.rows, left_out_s(data, chip, whole), alone_s),
    )


def op_spreads(data: TraceData, chip: ChipSpec) -> dict[str, float]:
    """Return how far single ops are from prices that never saw them, by family: the standard
    deviation of log(price / measured) over ops, weighted by time.

    Families of a kind, products or memory-bound kernels, have one figure: single ones have too few
    ops. It is of ops that are not alone in their family, and not of the router's products and
    attention cores, for which nothing is left to judge by.
    """
    whole = fit_rows(data, chip, LAYERS)
    priced_s, alone_s = left_out_s(data, chip, whole), undisturbed_s(data.rows, whole.slowdowns)
    keys = {(row.op.family, row.key) for row in data.rows}
    many = {family for family, ops in Counter(family for family, _ in keys).items() if ops > 1}
    spreads: dict[str, float] = {}
    for kind in (Gemm, MemoryOp):
        of_kind = [n for n, row in enumerate(data.rows) if isinstance(row.op, kind)]
        rows = [n for n in of_kind if data.rows[n].op.family in many - {*ROUTER_GEMMS}]
        ops = sites([str(data.rows[n].key) for n in rows])
        measured_s, predicted_s = np.bincount(ops, alone_s[rows]), np.bincount(ops, priced_s[rows])
        spread = np.sqrt(np.average(np.log(predicted_s / measured_s) ** 2, weights=measured_s))
        spreads |= dict.fromkeys((data.rows[n].op.family for n in of_kind), float(spread))
    return spreads


def left_out_s(data: TraceData, chip: ChipSpec, whole: FitResult) -> Floats:
    """Return (rows,) prices by fits that never saw the op; slowdowns are those of the whole trace.

    Attention cores have one op a family, so they are priced by the whole fit and say nothing here;
    nor do the router's products.
    """
    rows = data.rows
    predicted_s = whole.predict_s(rows)
    judged = [row for row in rows if not isinstance(row.op, Attention)]
    for key in sorted({row.key for row in judged if row.op.family not in ROUTER_GEMMS}):
        index = [number for number, row in enumerate(rows) if row.key == key]
        family = rows[index[0]].op.family
        families = families_without(data, whole, key)
        if family not in families:  # it had no other op: the small kernels stand in for it
            families[family] = families[LONE_LAUNCHES]
        pricer = Pricer(chip, COMPUTE_SMS, families)
        predicted_s[index] = pricer.time_s([rows[number] for number in index])
    return predicted_s
