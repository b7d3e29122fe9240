"""How fused modules of experts are fitted: what a library does, and which constants tables set."""

from calibration.fit.constants import Bounds
from calibration.fit.families import CostModel
from calibration.rows import KernelRows
from hwmodels.chip import ChipSpec
from hwmodels.costs import FusedMoeParameters

FREE: Bounds = {
    "launch_s": (0.5e-6, 400e-6),
    "tensor_efficiency": (0.2, 1.09),
    "hbm_efficiency": (0.5, 0.97),
    "l2_bytes_per_clock": (15.0, 128.0),
    "iteration_floor_cycles": (1.0, 900.0),
    "tile_overhead_cycles": (1.0, 12000.0),
    "sm_hbm_bytes_per_clock": (4.0, 120.0),
    "overlap_exponent": (1.2, 12.0),
    "sustained_fraction": (0.3, 1.0),
    "wave_quantisation": (0.001, 1.0),
    "row_bytes": (0.1, 60.0),
    "activation_bytes": (0.1, 90.0),
    "token_bytes": (0.1, 60.0),
}
_GRID = (1.0, 5000.0)
_FEW = ("launch_s", "hbm_efficiency", "tensor_efficiency", "sm_hbm_bytes_per_clock", "row_bytes")
"""What ten sites tell."""


def cost_model(rows: KernelRows, chip: ChipSpec) -> CostModel:
    """Block-scaled kernels launch blocks for all experts of a rank, with tokens or without."""
    start = FusedMoeParameters(sustained_fraction=0.75)
    if rows.family.endswith(("_prefill", "_decode")):
        deepgemm = start.model_copy(update={"row_bytes": 6.0, "token_bytes": 4.0})
        return CostModel((deepgemm,), {name: FREE[name] for name in _FEW})
    if "fp8_block" not in rows.family:
        return CostModel((start,), FREE)
    gridded = start.model_copy(update={"grid_cycles": 800.0, "row_bytes": 30.0})
    return CostModel((gridded,), {**FREE, "grid_cycles": _GRID})
