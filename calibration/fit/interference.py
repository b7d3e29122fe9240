"""Estimate how much each kernel family slows beside the all-to-all, from one overlapped trace.

The same op runs in every layer, now beside a transfer, now not. For each family

    log(time / load) = level(op) - log(1 - p + p / factor)

with p the share of its *time* beside a transfer, one level per op and one factor per family; the
factor minimises the time-weighted squares. Where p hardly varies between layers the data cannot
tell, and the factor is taken from a sibling family or from published ranges. The notify kernels
that precede a transfer do not count as one, though their blocks sit on SMs too: norms feel them
(their grid no longer fits), so the factor of the norms is against a level that contains such
waits: 1.4, where idle SMs as level give 1.6-1.7.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from calibration.read.trace_rows import TraceRow, time_s
from hwmodels.arrays import Floats, Ints

IDENTIFIED_SPREAD = 0.2
"""Standard deviation of p within ops above which a family's factor is estimated."""
MAX_FACTOR = 3.0

SIBLINGS = {
    "attention_forward": ("fp8_block", "tensor-core kernel: the factor of the FP8 GEMMs"),
    "attention_backward": ("fp8_block", "tensor-core kernel: the factor of the FP8 GEMMs"),
    "bf16": ("fp8_block", "tensor-core kernel: the factor of the FP8 GEMMs"),
    "bf16_narrow": ("fp8_block", "tensor-core kernel: the factor of the FP8 GEMMs"),
    "bf16_narrow_wgrad": ("fp8_block_wgrad", "tensor-core kernel: the factor of the FP8 GEMMs"),
    "e5m6_cast": ("cast", "streaming kernel: the factor of the 1x128 casts"),
    "expert_map": ("small", "few small blocks: the factor of the small kernels"),
    "loss": ("elementwise", "streaming kernel: the factor of the elementwise ones"),
}
"""Families whose factor the trace does not show, and whose they take. `bf16` and `loss` price the
LM head and have no kernel in the trace."""

RANGES = {
    "fp8_block": 1.055,
    "fp8_block_grouped": 1.055,
    "fp8_block_wgrad": 1.04,
    "small": 1.4,
    "low_rank": 1.4,
    "add_norm": 1.65,
    "norm_backward": 1.65,
}
"""Middle of the ranges of table4_chain.md §1; streaming families not listed take `STREAMING`."""
STREAMING = 1.175


@dataclass(frozen=True, slots=True)
class Factor:
    """Slowdown of one family.

    Attributes:
        value: time beside communication / time alone.
        spread: time-weighted standard deviation of p within ops.
        source: where the value comes from.
        identified: whether the trace itself shows it.
    """

    value: float
    spread: float
    source: str
    identified: bool


def interference_factors(rows: Sequence[TraceRow]) -> dict[str, Factor]:
    """Return the factor of every family in `rows`, and of those that take theirs."""
    families: dict[str, list[TraceRow]] = {}
    for row in rows:
        families.setdefault(row.op.family, []).append(row)
    found = {
        family: _estimate(family, members)
        for family, members in families.items()
        if family not in SIBLINGS
    }
    for family, (sibling, why) in SIBLINGS.items():
        if sibling in found:
            found[family] = Factor(found[sibling].value, 0.0, why, identified=False)
    return found


def undisturbed_s(rows: Sequence[TraceRow], factors: Mapping[str, float]) -> Floats:
    """(rows,) measured time / slowdown: what each op would have taken alone.

    `beside` is a share of time; the work done in it is that share / factor.
    """
    factor = np.array([factors[row.op.family] for row in rows])
    beside = np.array([row.beside for row in rows])
    return time_s(rows) * _alone(beside, factor)


def _alone(beside: Floats, factor: Floats | float) -> Floats:
    """Time alone / time measured, for a share of the measured time beside communication."""
    return np.asarray(1 - beside + beside / factor)


def _estimate(family: str, rows: Sequence[TraceRow]) -> Factor:
    keys = {key: number for number, key in enumerate(sorted({row.key for row in rows}))}
    beside = Beside(
        level=np.array([keys[row.key] for row in rows]),
        time_s=time_s(rows),
        load=np.array([row.load for row in rows]),
        share=np.array([row.beside for row in rows]),
    )
    if beside.spread < IDENTIFIED_SPREAD:
        value = RANGES.get(family, STREAMING)
        why = "p hardly varies between layers: middle of the range a study of the trace gives"
        return Factor(value, beside.spread, why, identified=False)
    why = "regression of the trace's layers on their overlap, one level per op"
    return Factor(beside.factor(), beside.spread, why, identified=True)


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """Kernels of one family that run beside communication for different shares of their time.

    Attributes:
        level: (rows,) number of what each would take alone; rows of one number take the same.
        time_s: (rows,) measured, more than 0.
        load: (rows,) work relative to that of the level.
        share: (rows,) p, of the time beside communication.
    """

    level: Ints
    time_s: Floats
    load: Floats
    share: Floats

    @property
    def spread(self) -> float:
        """Time-weighted standard deviation of p within levels."""
        weight = self.time_s
        return float(np.sqrt((weight * self._centred(self.share) ** 2).sum() / weight.sum()))

    def factor(self) -> float:
        """Return the factor with the least time-weighted squares of log time."""
        log_time = np.log(self.time_s / self.load)

        def squares(factor: float) -> float:
            rest = self._centred(log_time + np.log(_alone(self.share, factor)))
            return float((self.time_s * rest**2).sum())

        return float(minimize_scalar(squares, bounds=(1.0, MAX_FACTOR), method="bounded").x)

    def _centred(self, values: Floats) -> Floats:
        total = np.bincount(self.level, self.time_s * values)
        mean = total / np.maximum(np.bincount(self.level, self.time_s), np.finfo(float).tiny)
        return np.asarray(values - mean[self.level])
