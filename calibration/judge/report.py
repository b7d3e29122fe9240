"""What a fit achieved, family by family and held out, as plain lines for people."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from calibration.fit.interference import undisturbed_s
from calibration.fit.kernels import FitResult
from calibration.judge.score import Scores
from calibration.read.trace_rows import TraceData


@dataclass(frozen=True, slots=True)
class FamilyError:
    """One kernel family of a fit, over all layer pairs of the trace.

    Attributes:
        family: its name.
        time_s: seconds a layer pair spends in it, undisturbed.
        total: relative error of that time, signed.
        rows: time-weighted mean of |relative error| over ops and layers.
        slowdown: beside communication.
        identified: whether the trace itself shows the slowdown.
    """

    family: str
    time_s: float
    total: float
    rows: float
    slowdown: float
    identified: bool


def family_errors(data: TraceData, fit: FitResult) -> tuple[FamilyError, ...]:
    """Return every fitted family, the longest first."""
    layers = len({row.layer for row in data.rows})
    found = []
    for family in fit.families:
        rows = [row for row in data.rows if row.op.family == family]
        alone_s, miss = undisturbed_s(rows, fit.slowdowns), fit.predict_s(rows)
        miss = miss - alone_s
        total_s, factor = alone_s.sum(), fit.factors[family]
        found.append(
            FamilyError(
                family,
                float(total_s / layers),
                float(miss.sum() / total_s),
                float(np.abs(miss).sum() / total_s),
                factor.value,
                factor.identified,
            )
        )
    return tuple(sorted(found, key=lambda error: -error.time_s))


def report_lines(families: Iterable[FamilyError], scores: Scores) -> list[str]:
    """Return a table of the families and the held-out figures below it."""
    lines = [f"{'family':20}{'us/layer':>10}{'total':>8}{'|error|':>9}{'slowdown':>10}"]
    for error in families:
        mark = "" if error.identified else " (not from this trace)"
        lines.append(
            f"{error.family:20}{error.time_s * 1e6:10.0f}{error.total:+8.1%}{error.rows:9.1%}"
            f"{error.slowdown:10.3f}{mark}"
        )
    lines += [f"{name.replace('_', ' '):32}{value:+8.1%}" for name, value in scores.table().items()]
    return lines
