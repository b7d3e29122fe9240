"""How much slower a kernel runs beside a communication kernel.

    slowdown = 1 + (factor - 1) * fraction

`factor` is the measured ratio of the time of an op that runs wholly beside a transfer to the time
of the same op alone on the same SMs; `fraction` is the share of the op's own (undisturbed) work
that is done beside one. It is linear because a kernel here is a long row of equal tiles or rows:
those that meet the transfer take `factor` times as long, the others do not.

Why measured factors and not a fair share of HBM: beside the same all-to-all a GEMM loses 4-7 %,
a streaming kernel 15-20 % and a norm 60-70 %, although all of them share the same memory with the
same neighbour. A norm suffers because its grid (132 or 396 blocks) no longer fits the SMs left and
takes a second wave. A bandwidth-sharing model gives every memory-bound kernel the same loss.
"""

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats


def work_share(factor: npt.ArrayLike, beside: npt.ArrayLike) -> Floats:
    """Return the share of an op's undisturbed work that ran beside communication.

    Of measured time `beside` was shared; of the work it is less, as shared work takes `factor` as
    long: `beside / (factor - beside (factor - 1))`.
    """
    f, b = np.asarray(factor, np.float64), np.asarray(beside, np.float64)
    return np.asarray(b / (f - b * (f - 1.0)))


def slowdown(factor: npt.ArrayLike, fraction: npt.ArrayLike) -> Floats:
    """Return by how much an op slows when `fraction` of it runs beside communication.

    Args:
        factor: slowdown when all of it does, >= 1.
        fraction: share of the op beside communication, 0 to 1; broadcasts with `factor`.
    """
    return np.asarray(
        1.0 + (np.asarray(factor, np.float64) - 1.0) * np.asarray(fraction, np.float64)
    )
