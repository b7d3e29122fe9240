"""Fit constants of a cost model to timed kernels: robust, bounded, pulled weakly to a start.

minimise  sum soft_l1(log(predicted / measured)) + the squares of the pull
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

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

_PRIOR_WEIGHT, _ERROR_SCALE = 0.1, 0.1


def fit_constants(
    start: Constants,
    free: Mapping[str, tuple[float, float]],
    log_error: Callable[[Constants], Floats],
) -> Constants:
    """Return `start` with its free constants fitted.

    Args:
        start: all constants; the free ones must lie inside their bounds.
        free: lowest and highest value by name.
        log_error: (rows,) of log(predicted / measured).
    """
    low, high = (np.array(side) for side in zip(*free.values(), strict=True))
    first = np.array([getattr(start, name) for name in free])
    origin = np.log((first - low) / (high - first))

    def build(position: Floats) -> Constants:
        values = low + (high - low) / (1 + np.exp(-position))
        return start.model_copy(update=dict(zip(free, map(float, values), strict=True)))

    def residual(position: Floats) -> Floats:
        prior = _PRIOR_WEIGHT * (position - origin)
        return np.concatenate([log_error(build(position)), prior])

    # The minimum over candidate tiles is not smooth: coarse steps first, then finer ones.
    position = origin
    for step in (3e-2, 5e-3):
        position = least_squares(
            residual, position, loss="soft_l1", f_scale=_ERROR_SCALE, diff_step=[step], max_nfev=25
        ).x
    return build(position)
