"""Fit constants of a cost model to timed kernels: robust, bounded, pulled weakly to a prior.

minimise  sum soft_l1(log(predicted / measured)) + the squares of the pull
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.optimize import least_squares

from hwmodels.arrays import Floats
from hwmodels.spec import Spec

Constants = TypeVar("Constants", bound=Spec)

LAUNCH_S = (0.5e-6, 20e-6)
GEMM_RANGES = {
    "launch_s": LAUNCH_S,
    "tensor_efficiency": (0.4, 1.09),
    "iteration_floor_cycles": (1.0, 600.0),
    "tile_overhead_cycles": (1.0, 8000.0),
    "l2_bytes_per_clock": (15.0, 128.0),
    "overlap_exponent": (1.3, 12.0),
    "wave_quantisation": (0.001, 1.0),
}
"""Least and largest of the constants of `GemmParameters` that timings of single products set."""

AT_BOUND = 0.01
"""Of the range of a constant: so near its end, the end set it and not the rows."""

STIRRED, UNMOVED = 0.1, 0.005
"""Where a constant changes by the one and no price by more than the other, no row tells it."""

_PRIOR_WEIGHT, _ERROR_SCALE = 0.1, 0.1
_INSIDE = 1e-3
"""Share of its range by which a constant is moved off a bound, where a logistic map has no end."""

LogError = Callable[[Constants], Floats]
Bounds = Mapping[str, tuple[float, float]]


class _Range(NamedTuple):
    """The free constants as unbounded numbers: `low + (high - low) / (1 + exp(-position))`."""

    names: tuple[str, ...]
    low: Floats
    high: Floats

    def position(self, constants: Spec) -> Floats:
        values = np.array([getattr(constants, name) for name in self.names], np.float64)
        share = np.clip((values - self.low) / (self.high - self.low), _INSIDE, 1 - _INSIDE)
        return np.asarray(np.log(share / (1 - share)))

    def build(self, start: Constants, position: Floats) -> Constants:
        values = self.low + (self.high - self.low) / (1 + np.exp(-position))
        return start.model_copy(update=dict(zip(self.names, map(float, values), strict=True)))


def fit_constants(
    start: Constants, free: Bounds, log_error: LogError[Constants], prior: Constants | None = None
) -> Constants:
    """Return `start` with its free constants fitted.

    Args:
        start: all constants; those that are free and at a bound start a little inside.
        free: lowest and highest value by name.
        log_error: (rows,) of log(predicted / measured).
        prior: constants that the free ones are pulled to, `start` by default.
    """
    return _fit(start, free, log_error, prior or start)[0]


def fit_from_starts(
    starts: Sequence[Constants],
    free: Bounds,
    log_error: LogError[Constants],
    prior: Constants | None = None,
) -> Constants:
    """Return the best of the fits from several starts.

    Args:
        prior: constants that all fits are pulled to; without it each to the first of the starts.
    """
    pull = prior or starts[0]
    fits = [_fit(start, free, log_error, pull) for start in starts]
    return min(fits, key=lambda fit: fit[1])[0]


def _fit(
    start: Constants, free: Bounds, log_error: LogError[Constants], prior: Constants
) -> tuple[Constants, float]:
    """Return fitted constants and what is left of the loss."""
    low, high = (np.array(side) for side in zip(*free.values(), strict=True))
    scale = _Range(tuple(free), low, high)
    origin = scale.position(prior)

    def residual(position: Floats) -> Floats:
        pull = _PRIOR_WEIGHT * (position - origin)
        return np.concatenate([log_error(scale.build(start, position)), pull])

    # The minimum over candidate tiles is not smooth: coarse steps first, then finer ones.
    position, cost = scale.position(start), np.inf
    for step in (3e-2, 5e-3):
        found = least_squares(
            residual, position, loss="soft_l1", f_scale=_ERROR_SCALE, diff_step=[step], max_nfev=25
        )
        position, cost = found.x, float(found.cost)
    return scale.build(start, position), cost


def at_bound(fitted: Spec, free: Bounds) -> tuple[str, ...]:
    """Return the constants that ended at the end of their range."""
    return tuple(
        name
        for name, (low, high) in free.items()
        if not AT_BOUND < (getattr(fitted, name) - low) / (high - low) < 1 - AT_BOUND
    )


def not_identified(
    fitted: Constants, free: Bounds, log_error: LogError[Constants]
) -> tuple[str, ...]:
    """Return the constants with which no price moves, be it only one way."""
    errors = log_error(fitted)

    def moved(name: str) -> float:
        low, high = free[name]
        most = 0.0
        for factor in (1 - STIRRED, 1 + STIRRED):
            value = min(high, max(low, factor * getattr(fitted, name)))
            stirred = fitted.model_copy(update={name: value})
            most = max(most, float(np.abs(log_error(stirred) - errors).max()))
        return most

    return tuple(name for name in free if moved(name) <= UNMOVED)
