"""What kernels of attention over many keys share: parts of the keys, and a cache to be converted.

Too few work units leave SMs idle, so libraries give parts of a unit's keys to several SMs and
combine the partial outputs, which stay in L2 in FP32:

    t_combine = ts + 2 * 4 s outputs / (l2b SMs f)

Some kernels cannot read an FP8 cache. What surrounds them (SGLang 0.5.14 with FlashAttention-3 and
MLA: `.to(q.dtype)` on the cache) first writes all of it in BF16, a kernel that the SMs' conversion
rate limits and not memory: 1.0 byte per SM and clock on H200 *and* H100.
"""

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec

PARTS = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    12,
    14,
    16,
    18,
    20,
    24,
    28,
    32,
    40,
    48,
    56,
    64,
    80,
    96,
    112,
    128,
)
"""In how many parts a library may cut the keys of a unit."""

CONVERTED = 2.0
"""Bytes of a converted (BF16) element to one that is stored (FP8)."""


def parts(ndim: int) -> Floats:
    """Return `PARTS` along an axis before `ndim` others."""
    return np.array(PARTS, np.float64).reshape(-1, *(1,) * ndim)


def combine_s(
    chip: ChipSpec,
    split_s: float,
    l2_bytes_per_clock: float,
    count: Floats,
    outputs: Floats,
    sms: Floats,
) -> Floats:
    """Return the seconds that combining costs: nothing for one part.

    Args:
        split_s: ts, fixed cost.
        l2_bytes_per_clock: l2b, L2 to one SM.
        count: parts.
        outputs: elements of the whole output.
        sms: SMs that combine.
    """
    moved = 8 * count * outputs / (l2_bytes_per_clock * sms * chip.peak_clock_hz)
    return np.where(count > 1, split_s + moved, 0.0)


def conversion_s(
    chip: ChipSpec,
    launch_s: float,
    bytes_per_clock: float | None,
    stored_bytes: npt.ArrayLike,
    sms: Floats,
) -> Floats:
    """Return the seconds of converting a cache of `stored_bytes`; none where the rate is None."""
    if bytes_per_clock is None:
        return np.zeros(np.shape(stored_bytes))
    return launch_s + np.asarray(stored_bytes) / (bytes_per_clock * sms * chip.peak_clock_hz)
