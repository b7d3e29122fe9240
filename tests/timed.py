"""Timed kernels by hand: what a cost function says, as if measured."""

import numpy as np

from calibration.rows import KernelRows, Setting
from hwmodels.chip import CHIPS
from hwmodels.costs import MemoryParameters

STREAM = MemoryParameters(hbm_efficiency=0.5, launch_s=1e-6)


def stream_rows(count: int, per_site: int = 2) -> KernelRows:
    """Return casts that `STREAM` prices exactly."""
    moved = np.arange(1.0, count + 1) * 1e6
    chip = CHIPS.load("h100")
    return KernelRows(
        setting=Setting("h100", "none", "0"),
        kind="memory_op",
        family="cast",
        shape={"moved_bytes": moved, "launches": 1},
        time_s=1e-6 + moved / (0.5 * chip.hbm_bytes_per_s),
        site=np.arange(count) // per_site,
        size=moved,
        source="by hand",
    )
