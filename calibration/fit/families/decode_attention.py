"""How decode attention is fitted.

Rows of a unit are the query heads that share keys. SGLang converts an FP8 latent cache to BF16
first (its FlashAttention-3 has no FP8 kernel of MLA's depth).
"""

from calibration.fit.families import CostModel
from calibration.rows import KernelRows
from hwmodels.chip import ChipSpec
from hwmodels.costs import DecodeAttentionParameters

STARTS = (
    {"tensor_efficiency": 0.7, "sm_bytes_per_clock": 40.0, "block_overhead_cycles": 100.0,
     "unit_overhead_cycles": 4000.0, "row_cycles": 200.0, "wave_quantisation": 0.8},
    {"tensor_efficiency": 0.4, "sm_bytes_per_clock": 60.0, "block_overhead_cycles": 500.0,
     "unit_overhead_cycles": 8000.0, "row_cycles": 50.0, "wave_quantisation": 0.5},
    {"tensor_efficiency": 0.9, "sm_bytes_per_clock": 25.0, "block_overhead_cycles": 30.0,
     "unit_overhead_cycles": 2000.0, "row_cycles": 20.0, "wave_quantisation": 0.95},
)  # fmt: skip

FREE = {
    "launch_s": (0.5e-6, 20e-6),
    "tensor_efficiency": (0.1, 1.09),
    "block_overhead_cycles": (1.0, 2000.0),
    "unit_overhead_cycles": (1.0, 15000.0),
    "row_cycles": (0.01, 1000.0),
    "sm_bytes_per_clock": (8.0, 128.0),
    "wave_quantisation": (0.001, 1.0),
    "hbm_efficiency": (0.7, 0.97),
    "split_s": (0.2e-6, 12e-6),
    "l2_bytes_per_clock": (15.0, 128.0),
}
CONVERTING = {"convert_s": (0.5e-6, 15e-6), "convert_bytes_per_clock": (0.2, 20.0)}


def cost_model(rows: KernelRows, chip: ChipSpec) -> CostModel:
    """Return how rows of decode attention are fitted."""
    converts = rows.setting.library == "sglang" and rows.family.startswith("mla_decode_fp8kv")
    structure = DecodeAttentionParameters(
        block_rows=64 if rows.family.startswith("mla") else 128,
        block_keys=64 if rows.family.startswith("mla") else 128,
        tensor_efficiency=0.7,
        launch_s=7e-6,
        split_s=3e-6,
        convert_s=5e-6 if converts else 0.0,
        convert_bytes_per_clock=1.45 if converts else None,
    )
    free = FREE | (CONVERTING if converts else {})
    return CostModel(tuple(structure.model_copy(update=start) for start in STARTS), free)
