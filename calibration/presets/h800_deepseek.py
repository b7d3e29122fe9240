"""The profile `h800-deepseek`: DeepSeek's training kernels on H800, from two kinds of evidence.

    compute kernels    fitted to the published DualPipe trace (`calibration.fit.kernels`), the
                       router's BF16 products among them
    BF16 GEMM          fitted to public H100 timings (`calibration.fit.gemm_table`)

Its communication is the library `deepep-h800` (`calibration.presets.deepep_h800`).

`profile_text` writes the preset that ships; running it again on the same files gives the same text.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from calibration.fit.gemm_table import FREE_CONSTANTS, GemmTableFit, fit_gemm_tables
from calibration.fit.kernels import FITTED_GEMMS, LAUNCH_FAMILIES, ROUTER_GEMMS, FitResult, fit_rows
from calibration.fit.members import CHIPS_DIFFER, MAD_TO_SIGMA
from calibration.fit.profile_document import ProfileDocument, Sourced
from calibration.judge.score import op_spreads, score_trace
from calibration.read.trace_rows import MODEL, read_trace_data
from hwmodels.chip import ChipSpec
from hwmodels.costs import GemmParameters, MemoryParameters
from hwmodels.costs.attention import AttentionParameters
from hwmodels.profile import PROFILES

NAME = "h800-deepseek"
TRACE = (
    "fitted to the DualPipe training trace of deepseek-ai/profile-data @4496024 "
    "(H800, EP64, 4 MoE layers, 112 compute SMs) by calibration.fit.kernels"
)
TABLES = (
    "fitted to BF16 rows of the AIConfigurator GEMM tables (ai-dynamo/aiconfigurator @095f58a5, "
    "H100 SXM, TensorRT-LLM 1.3.0rc20 and SGLang 0.5.14): same SM, clock and HBM as H800"
)
NOT_IDENTIFIED = (
    "default of GemmParameters: TensorRT-LLM BF16 on H200, AIConfigurator tables @095f58a5; "
    "0 and 1 where the family has no such term"
)
HEAD_RATE = (
    "AIConfigurator GEMM tables (ai-dynamo/aiconfigurator @095f58a5), H100 SXM BF16: lower of the "
    "two rows at m 4096, n 65536, k 8192 (719 TFLOPS of 989.5); p10 and p90 of all 228 rows with "
    "m >= 2048 and at least 4 TFLOP, TensorRT-LLM 1.3.0rc20 and SGLang 0.5.14. Measured on all 132 "
    "SMs; that 112 reach the same share of their own peak is an assumption: a clock free to rise "
    "would let them reach up to 132/112 of it"
)

PROMOTION_OF = "h200-trtllm"
PROMOTION = (
    f"as {PROMOTION_OF} has it, fitted to block-scaled products on the same SM: shapes tell "
    "promotion from the rate of the tensor core there, one tile in one trace does not; moves no "
    "price on H800"
)

NOT_IN_TRACE = {"loss": "elementwise"}
"""Memory-bound families of the head, and those they are taken to be like."""

_COMMENT = """Kernels of DeepSeek-V3's training run on H800. Written by
calibration.presets.h800_deepseek from the published trace and tables; do not edit, refit."""


def profile_text(
    trace: Path, gemm_tables: Sequence[Path], chip: ChipSpec, model: str = MODEL
) -> str:
    """Return the preset as TOML.

    Args:
        trace: DeepSeek's DualPipe training trace.
        gemm_tables: H100 SXM GEMM tables (parquet) with BF16 rows; without any, BF16 products stay
            as the preset that ships has them.
        chip: the H800.
        model: preset whose layer the kernels of the trace are joined with.

    Raises:
        CalibrationError: a file cannot be read or fitted.
        MachineError: reading parquet needs pyarrow.
    """
    data = read_trace_data(trace, model)
    fit = fit_rows(data, chip)
    table = fit_gemm_tables(gemm_tables, chip) if gemm_tables else _shipped_bf16()
    document = ProfileDocument(
        _COMMENT,
        {
            "chip": chip.name,
            "library": "deepseek-training",
            "version": "2025-02",
            "clock": "as in DeepSeek's training, which the trace does not record",
            "description": "Training kernels of DeepSeek-V3 (FP8 GEMMs with 128x128 tiles, glue, "
            "FlashAttention-3) on 112 of 132 SMs, with its all-to-all on the other 20.",
            "communication": "deepep-h800",
            "launch_gap_s": Sourced(fit.launch_gap_s, f"mean gap below 10 us; {TRACE}"),
        },
    )
    _add_gemms(document, fit)
    _add_bf16(document, table)
    _add_attention(document, fit)
    _add_memory(document, fit)
    _add_interference(document, fit)
    _add_spreads(document, op_spreads(data, chip), table)
    document.sources["errors"] = (
        "calibration.judge.score, calibration.fit.gemm_table; fractions of time"
    )
    document.tables["errors"] = score_trace(data, chip).table() | {
        "bf16_median_held_out_sites": table.error_median,
        "bf16_p90_held_out_sites": table.error_p90,
    }
    return document.text()


def _shipped_bf16() -> GemmTableFit:
    """Return the fit to the tables as the preset that ships keeps it, to the digits it keeps."""
    shipped = tomllib.loads((PROFILES.folder / f"{NAME}.toml").read_text(encoding="utf-8"))
    values, errors = dict(shipped["gemm"]["bf16"]), shipped["errors"]
    rate = values.pop("sustained_fraction")
    return GemmTableFit(
        GemmParameters(**values, sustained_fraction=rate["value"]),
        sustained_p10=rate["p10"],
        sustained_p90=rate["p90"],
        error_median=errors["bf16_median_held_out_sites"],
        error_p90=errors["bf16_p90_held_out_sites"],
    )


def _add_gemms(document: ProfileDocument, fit: FitResult) -> None:
    promotion = PROFILES.load(PROMOTION_OF).parameters("fp8_block")
    assert isinstance(promotion, GemmParameters), "products are priced as products"
    for family in (*FITTED_GEMMS, *ROUTER_GEMMS):
        found = fit.families[family]
        assert isinstance(found, GemmParameters), "the fit of a GEMM family is one"
        table = document.tables[f"gemm.{family}"] = found.model_dump(exclude_none=True)
        if family in FITTED_GEMMS:
            table["contained_promotion_cycles"] = promotion.promotion_cycles
            document.assumed[f"gemm.{family}.contained_promotion_cycles"] = PROMOTION
        document.sources[f"gemm.{family}"] = NOT_IDENTIFIED
        for name in ("tensor_efficiency", "tile_overhead_cycles"):
            document.sources[f"gemm.{family}.{name}"] = TRACE
        document.assumed[f"gemm.{family}.wave_quantisation"] = (
            "full: a persistent kernel with one tile size cannot escape its waves"
        )
        document.sources[f"gemm.{family}.tile"] = "128x128: times in the trace step with its waves"
        document.assumed[f"gemm.{family}.overlap_exponent"] = (
            "TMA pipelines hide memory time; no GEMM of the trace is near the memory bound"
        )
    document.sources["gemm.fp8_block_grouped.tile_overhead_cycles"] = (
        "that of family fp8_block: four grouped ops do not identify their own"
    )
    document.sources["gemm.bf16_narrow_wgrad.tile_overhead_cycles"] = (
        "that of family fp8_block_wgrad, also added to in FP32: one op does not identify its own"
    )


def _add_bf16(document: ProfileDocument, table: GemmTableFit) -> None:
    found = table.parameters
    rate = Sourced(found.sustained_fraction, HEAD_RATE, table.sustained_p10, table.sustained_p90)
    values = found.model_dump(exclude_none=True)
    document.tables["gemm.bf16"] = values | {"sustained_fraction": rate}
    document.sources["gemm.bf16"] = NOT_IDENTIFIED
    for name in FREE_CONSTANTS:
        document.sources[f"gemm.bf16.{name}"] = TABLES
    document.sources["gemm.bf16.launch_s"] = "0: gaps between kernels are priced by launch_gap_s"


def _add_attention(document: ProfileDocument, fit: FitResult) -> None:
    for family in ("attention_forward", "attention_backward"):
        found = fit.families[family]
        assert isinstance(found, AttentionParameters), "the fit of an attention family is one"
        document.tables[f"attention.{family}"] = found.model_dump(exclude_none=True)
        document.sources[f"attention.{family}.tensor_efficiency"] = TRACE
        document.assumed[f"attention.{family}"] = (
            "one shape identifies one constant; overheads are in tensor_efficiency"
        )


def _add_memory(document: ProfileDocument, fit: FitResult) -> None:
    table = {}
    for family, found in sorted(fit.families.items()):
        if isinstance(found, MemoryParameters):
            table[family] = {
                "hbm_efficiency": found.hbm_efficiency,
                "launch_s": found.launch_s,
            }
    for family, sibling in NOT_IN_TRACE.items():
        table[family] = table[sibling] | {"traffic": 1.0}
        document.assumed[f"memory_op.{family}"] = (
            f"no kernel in the trace, which has no head: what family {sibling} achieves"
        )
    document.assumed["memory_op.loss.traffic"] = (
        "16 bytes a logit, as if what is easily fused were: between the 6 of one kernel for all "
        "(Liger-Kernel @02e90db) and the 36 of PyTorch's one by one"
    )
    document.tables["memory_op"] = table
    document.sources["memory_op"] = TRACE
    for family in LAUNCH_FAMILIES:
        document.assumed[f"memory_op.{family}.hbm_efficiency"] = (
            "their ops count no bytes: the launch is all there is"
        )


def _add_spreads(document: ProfileDocument, spreads: dict[str, float], table: GemmTableFit) -> None:
    """Add what the model does not know: of families by chip, of single shapes by ops left out."""
    attention = dict.fromkeys(("attention_forward", "attention_backward"), spreads["fp8_block"])
    head = {"bf16": MAD_TO_SIGMA * table.error_median}
    router = dict.fromkeys(ROUTER_GEMMS, spreads["fp8_block"])
    document.tables["factor"] = dict.fromkeys((*FITTED_GEMMS, *attention), CHIPS_DIFFER)
    document.tables["site_spread"] = dict(sorted((spreads | attention | router | head).items()))
    document.sources["site_spread"] = (
        "calibration.judge.score.op_spreads: ops of the trace left out of the fit one by one, "
        "weighted by time; products and memory-bound kernels have one figure each"
    )
    document.sources["site_spread.bf16"] = (
        "1.48 times the median error on sites left out; see errors"
    )
    for family in (*attention, *router):
        document.assumed[f"site_spread.{family}"] = (
            "that of the FP8 products: ops too few to leave one out"
        )


def _add_interference(document: ProfileDocument, fit: FitResult) -> None:
    document.tables["interference"] = {
        family: factor.value for family, factor in sorted(fit.factors.items())
    }
    for family, factor in fit.factors.items():
        notes = document.sources if factor.identified else document.assumed
        notes[f"interference.{family}"] = factor.source
