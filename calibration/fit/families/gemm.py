"""How matrix products are fitted: what a library may do, and constants that fit its kind.

What a library may do is known and not fitted: which tiles it has and how it chooses
(`hwmodels.costs.gemm_tiles`), whether it splits k, whether the op quantises its activations. Starts
are fits to the H200 tables (cost_model.md §2) or near them.
"""

from typing import Any

from calibration.fit.families import Bounds, CostModel
from calibration.rows import KernelRows
from hwmodels.chip import ChipSpec
from hwmodels.costs import GemmParameters

BLOCK_SCALED = ("fp8_block", "mxfp8", "nvfp4")

_RULES: dict[tuple[str, str], dict[str, Any]] = {
    ("trtllm", "fp8_block"): {"dispatch": "deepgemm-swapped"},
    ("sglang", "fp8_block"): {"dispatch": "deepgemm"},
    ("deepgemm", "fp8_block"): {"dispatch": "deepgemm"},
    ("deepgemm", "fp8_block_contiguous"): {"dispatch": "deepgemm"},
    ("deepgemm", "fp8_block_masked"): {"dispatch": "deepgemm"},
    ("sglang", "fp8"): {"dispatch": "cutlass-rows"},
}
"""Structure by library and family; all others are autotuned (cuBLASLt)."""
_TUNED: dict[str, Any] = {"split_k": True, "swap_ab": True}

_RANGES: Bounds = {
    "launch_s": (0.5e-6, 20e-6),
    "tensor_efficiency": (0.4, 1.09),
    "hbm_efficiency": (0.7, 0.95),
    "l2_bytes_per_clock": (15.0, 128.0),
    "iteration_floor_cycles": (1.0, 600.0),
    "tile_overhead_cycles": (1.0, 8000.0),
    "sm_hbm_bytes_per_clock": (8.0, 120.0),
    "overlap_exponent": (1.3, 12.0),
    "wave_quantisation": (0.001, 1.0),
    "sustained_fraction": (0.4, 1.0),
}
_SPLIT: Bounds = {"split_fixup_s": (0.2e-6, 12e-6)}
_QUANTISE: Bounds = {"quantise_bytes": (0.01, 20.0)}
_BLOCKS: Bounds = {"promotion_cycles": (0.001, 4.0), "ragged_cycles": (0.01, 40.0)}
"""Constants of DeepGEMM's kernels for chips that do not scale blocks themselves."""


def cost_model(rows: KernelRows, chip: ChipSpec) -> CostModel:
    """Return structure and starts of a library's products of one format."""
    library = rows.setting.library
    structure = _RULES.get((library, rows.family), _TUNED)
    # InferSim times DeepGEMM's kernel alone; in serving libraries the op quantises first, but for
    # operands that are BF16 there is nothing to quantise (also absorption's: `mla_absorb`).
    quantises = rows.shape["tensor_family"] != "bf16" and library not in ("deepgemm", "pytorch")
    start = GemmParameters(**structure, contains_quantise=quantises, **_START)
    free = dict(_RANGES)
    if start.split_k:
        free |= _SPLIT
    if quantises:
        free |= _QUANTISE
        start = start.model_copy(update={"quantise_bytes": 7.0, "launch_s": 4e-6})
    if start.dispatch.startswith("deepgemm"):
        free |= _BLOCKS
        start = start.model_copy(update=_DEEPGEMM)
    return CostModel((start,), free)


_START = {
    "launch_s": 1.7e-6,
    "tensor_efficiency": 0.93,
    "hbm_efficiency": 0.84,
    "l2_bytes_per_clock": 100.0,
    "iteration_floor_cycles": 146.0,
    "tile_overhead_cycles": 2070.0,
    "sm_hbm_bytes_per_clock": 21.0,
    "overlap_exponent": 2.5,
    "wave_quantisation": 0.07,
    "sustained_fraction": 0.77,
}
_DEEPGEMM = {
    "tensor_efficiency": 1.0,
    "hbm_efficiency": 0.92,
    "sm_hbm_bytes_per_clock": 70.0,
    "overlap_exponent": 1.5,
    "wave_quantisation": 0.4,
    "sustained_fraction": 0.9,
    "promotion_cycles": 1.0,
    "ragged_cycles": 6.0,
}
