"""How wide a simulated number is, and which inputs make it so: statistics over draws.

Intervals are the P10, median and P90 of a number over the draws. Shares of its variance come from
an additive model, fitted by least squares to the n draws:

    y = a + sum_j f_j(x_j) + e,    f_j(x) = b_j+ max(x - value_j, 0) + b_j- min(x - value_j, 0)
    share_j = cov(f_j, y) / var(y) - m_j / (n - 1) * s2 / var(y)

with two slopes an input (m_j = 1 where it reaches to one side only) because a step may care about a
slower link and not about a faster one. For independent inputs cov(f_j, y) is var(f_j), the
first-order index of Sobol for this model; over a finite sample the covariances sum to R^2 exactly.
The second term takes away what m_j slopes fit of pure noise, s2 being the residual variance, so
that the shares sum to the adjusted R^2 and an input without effect gets none on average. Shares
below zero are noise and become zero. The rest is `CHANCE`: what the run draws by itself (expert
loads), inputs that act together, and curvature that two slopes miss.

Caveats: inputs are taken as independent; a share speaks of the ranges that were given, a wide range
of a harmless input may outweigh a narrow one of an important input; below `DRAWS_PER_SLOPE` draws a
slope, shares are noise and left out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.arrays import Floats, Ints
from hwmodels.spec import Spec

CHANCE = "chance and interactions"
DRAWS_PER_SLOPE = 4
ROUNDING = 1e-10
"""Relative spread below which a number is constant: sums of floats in another order."""


class Interval(Spec):
    """Spread of one number over the draws.

    Attributes:
        variance_shares: by input path, largest first, and `CHANCE` last; they sum to 1. Empty where
            the number does not vary or the draws are too few to tell.
    """

    p10: float
    median: float
    p90: float
    variance_shares: dict[str, float] = Field(default_factory=dict)


def quantiles(values: npt.ArrayLike) -> tuple[float, float, float]:
    """Return P10, median and P90 of `values`, linear between order statistics."""
    p10, median, p90 = np.quantile(np.asarray(values, dtype=np.float64), [0.1, 0.5, 0.9])
    return float(p10), float(median), float(p90)


def intervals(
    samples: Mapping[str, Sequence[float]], paths: Sequence[str], deviations: Floats
) -> dict[str, Interval]:
    """Return the interval of each sampled number.

    Args:
        samples: each number by draw.
        paths: inputs, as the columns of `deviations`.
        deviations: input minus its own value, [draw, input].
    """
    outputs = np.array(list(samples.values()), dtype=np.float64)
    enough = len(deviations) >= draws_needed(deviations)
    shares = variance_shares(outputs, deviations) if enough else None
    found = {}
    for row, (name, values) in enumerate(zip(samples, outputs, strict=True)):
        p10, median, p90 = quantiles(values)
        named = {} if shares is None or is_constant(values) else _named(paths, shares[row])
        found[name] = Interval(p10=p10, median=median, p90=p90, variance_shares=named)
    return found


def draws_needed(deviations: Floats) -> int:
    """Return how many draws it takes to tell the inputs' shares of the variance."""
    hinges, _ = _hinges(deviations)
    return DRAWS_PER_SLOPE * int(hinges.shape[1])


def variance_shares(outputs: Floats, deviations: Floats) -> Floats:
    """Return each input's share of the variance of each output, [output, input]; see the module.

    Args:
        outputs: [output, draw].
        deviations: [draw, input].
    """
    hinges, owner = _hinges(deviations)
    draws, slopes = hinges.shape
    y = (outputs - outputs.mean(axis=1, keepdims=True)).T
    projections = hinges.T @ y
    slope = np.linalg.pinv(hinges.T @ hinges, rcond=1e-10, hermitian=True) @ projections
    total = np.square(y).sum(axis=0)
    residual = np.square(y - hinges @ slope).sum(axis=0) / max(draws - slopes - 1, 1)
    by_slope = (slope * projections - residual).T
    shares = np.zeros((len(outputs), deviations.shape[1]))
    np.add.at(shares.T, owner, by_slope.T)
    shares = (shares / np.where(total > 0, total, 1)[:, None]).clip(min=0)
    result: Floats = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)
    return result


def is_constant(values: Floats) -> bool:
    """Return whether `values` differ by no more than rounding."""
    return bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def _hinges(deviations: Floats) -> tuple[Floats, Ints]:
    """Return the columns that slopes are fitted to, centred and of unit size, [draw, slope], and
    the input each belongs to. A side that an input never reaches has no slope.
    """
    sides = np.concatenate([deviations.clip(min=0), deviations.clip(max=0)], axis=1)
    owner = np.tile(np.arange(deviations.shape[1]), 2)
    sides = sides - sides.mean(axis=0)
    size = np.sqrt(np.square(sides).sum(axis=0))
    used = size > 0
    return sides[:, used] / size[used], owner[used]


def _named(paths: Sequence[str], shares: Floats) -> dict[str, float]:
    order = np.argsort(-shares, kind="stable")
    named = {paths[index]: float(shares[index]) for index in order}
    return named | {CHANCE: max(0.0, 1.0 - sum(named.values()))}
