"""How prefill attention is fitted.

TensorRT-LLM's kernels walk one head in blocks of 128 x 128. FlashAttention-3, which SGLang calls,
packs the heads that share keys into the rows of a unit and splits keys where units are few; on
absorbed MLA (576 + 512) its blocks are 64 x 64. SGLang converts an FP8 latent cache to BF16 first.
Rows say what passes there are before the core.
"""

from calibration.fit.families import CostModel
from calibration.rows import KernelRows
from hwmodels.chip import ChipSpec
from hwmodels.costs import AttentionParameters

PACKING = ("sglang", "flash-attention-3", "vllm")
"""Libraries whose prefill is FlashAttention-3."""

STARTS = (
    {"tensor_efficiency": 0.7, "block_overhead_cycles": 300.0, "unit_overhead_cycles": 2000.0,
     "row_cycles": 20.0, "imbalance": 0.3, "overlap_exponent": 3.0, "sustained_fraction": 0.8},
    {"tensor_efficiency": 0.5, "block_overhead_cycles": 800.0, "unit_overhead_cycles": 5000.0,
     "row_cycles": 5.0, "imbalance": 0.8, "overlap_exponent": 2.0, "sustained_fraction": 0.65},
)  # fmt: skip

FREE = {
    "launch_s": (0.5e-6, 30e-6),
    "tensor_efficiency": (0.1, 1.09),
    "block_overhead_cycles": (1.0, 4000.0),
    "unit_overhead_cycles": (1.0, 20000.0),
    "row_cycles": (0.01, 200.0),
    "imbalance": (0.001, 1.5),
    "hbm_efficiency": (0.7, 0.95),
    "overlap_exponent": (1.3, 12.0),
    "sustained_fraction": (0.4, 1.0),
}
SPLITTING = {"split_s": (0.2e-6, 12e-6), "l2_bytes_per_clock": (15.0, 128.0)}
PASSING = {"pass_efficiency": (0.1, 1.0)}
CONVERTING = {"convert_s": (0.5e-6, 15e-6), "convert_bytes_per_clock": (0.2, 20.0)}


def cost_model(rows: KernelRows, chip: ChipSpec) -> CostModel:
    """Return how rows of prefill attention are fitted."""
    packs = rows.setting.library in PACKING
    absorbed = packs and rows.family.startswith("mla")
    converts = rows.setting.library == "sglang" and rows.family.startswith("mla_prefill_fp8kv")
    structure = AttentionParameters(
        block_rows=64 if absorbed else 128,
        block_keys=64 if absorbed else 128,
        packs_heads=packs,
        splits_keys=packs,
        tensor_efficiency=0.7,
        hbm_efficiency=0.9,
        split_s=3e-6,
        launch_s=8e-6,
        convert_s=5e-6 if converts else 0.0,
        convert_bytes_per_clock=1.45 if converts else None,
    )
    free = FREE | (SPLITTING if packs else {}) | (CONVERTING if converts else {})
    free |= PASSING if "passed_bytes" in rows.shape else {}
    return CostModel(tuple(structure.model_copy(update=start) for start in STARTS), free)
