"""How memory-bound kernels are fitted: launch, HBM, SMs, and what of a tensor stays in L2."""

from calibration.fit.constants import Bounds
from calibration.fit.families import CostModel
from calibration.rows import KernelRows
from hwmodels.chip import ChipSpec
from hwmodels.costs import MemoryParameters

FREE: Bounds = {
    "launch_s": (0.5e-6, 20e-6),
    "hbm_efficiency": (0.02, 1.0),
    "sm_bytes_per_clock": (0.3, 100.0),
    "l2_usable": (0.05, 4.0),
    "overlap_exponent": (1.3, 12.0),
}


def cost_model(rows: KernelRows, chip: ChipSpec) -> CostModel:
    """Sizes on both sides of L2 tell the limit of the SMs from that of HBM."""
    start = MemoryParameters(
        launch_s=2e-6,
        hbm_efficiency=0.8,
        sm_bytes_per_clock=15.0,
        l2_usable=0.6,
        overlap_exponent=3.0,
    )
    slow = start.model_copy(update={"sm_bytes_per_clock": 2.0, "hbm_efficiency": 0.2})
    return CostModel((start, slow), FREE)
