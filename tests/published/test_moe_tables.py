"""Measured MoE and quantisation tables: prices of sites that no constant was fitted to.

Bars are median and 90th percentile of |price / measured - 1| by constants alone, 5 folds of sites.
What does not meet its bar is not tested here: SGLang's Triton and vLLM's FlashInfer modules.
"""

from pathlib import Path

import numpy as np
import pytest

from calibration.fit.family import Errors, fitted_constants
from calibration.read.tables import read_table
from calibration.rows import KernelRows
from hwmodels.chip import CHIPS


def table(folder: Path, name: str) -> dict[tuple[str, str], KernelRows]:
    """Rows of one chip's table by library and family."""
    found = read_table(folder / "measured" / f"{name}.parquet").priced
    return {(rows.setting.library, rows.family): rows for rows in found}


def held_out(rows: KernelRows) -> Errors:
    chip, errors = CHIPS.load(rows.setting.chip), np.zeros(len(rows))
    for seen, unseen in rows.folds():
        constants = fitted_constants(seen, chip)
        errors[np.isin(rows.site, unseen.site)] = unseen.log_error(chip, constants)
    return Errors.of(errors)


@pytest.mark.parametrize(
    ("library", "family", "median", "p90"),
    [
        ("trtllm", "moe_bf16", 0.076, 0.15),
        ("trtllm", "moe_fp8", 0.065, 0.15),
        ("trtllm", "moe_fp8_block", 0.075, 0.17),
        ("vllm", "moe_fp8_block", 0.05, 0.10),
    ],
)
def test_modules_of_unseen_widths_on_h200(
    measured_data: Path, library: str, family: str, median: float, p90: float
) -> None:
    errors = held_out(table(measured_data, "moe_h200_sxm")[library, family])
    assert errors.median <= median
    assert errors.p90 <= p90
    assert abs(errors.bias) <= 0.03


@pytest.mark.parametrize("family", ["moe_bf16", "moe_fp8"])
def test_modules_on_h100_by_the_constants_of_h200(measured_data: Path, family: str) -> None:
    constants = fitted_constants(
        table(measured_data, "moe_h200_sxm")["trtllm", family], CHIPS.load("h200")
    )
    rows = table(measured_data, "moe_h100_sxm")["trtllm", family]
    errors = Errors.of(rows.log_error(CHIPS.load("h100"), constants))
    assert errors.median <= 0.06
    assert errors.p90 <= 0.17


def test_quantisation_of_unseen_tensors(measured_data: Path) -> None:
    every, _, without = read_table(measured_data / "measured" / "quantize.parquet")
    assert sum(len(rows) for rows in every) == 6 * 335
    assert {each.setting.library for each in without} == {"sglang"}
    assert sum(each.rows for each in without) == 670
    for rows in every:
        errors = held_out(rows)
        assert errors.median <= 0.10
        assert errors.p90 <= 0.25
        assert abs(errors.bias) <= 0.03


def test_grouped_products_are_both_of_every_row_in_si_units(measured_data: Path) -> None:
    """First row: 256 experts of 512 tokens, 7168 x 2048, up in 7,486 us and down in 3,760 us."""
    every = read_table(measured_data / "measured" / "infersim_grouped_gemm_fp8.parquet").priced
    assert sum(len(rows) for rows in every) == 2 * 89
    h800 = next(
        rows for rows in every if rows.setting.chip == "h800" and "contiguous" in rows.family
    )
    first, down = 0, len(h800) // 2
    sizes = [[h800.shape[name][row] for name in ("m", "n", "k", "groups")] for row in (first, down)]
    assert sizes == [[256 * 512, 4096, 7168, 256], [256 * 512, 7168, 2048, 256]]
    assert h800.time_s[first] == pytest.approx(7.486e-3)
    assert h800.time_s[down] == pytest.approx(3.760e-3)
