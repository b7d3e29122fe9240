"""Fit the BF16 GEMM family to public tables of single-GEMM timings.

The LM head of a training step is a BF16 GEMM of a size the training trace does not contain, so its
rate comes from elsewhere: H100 SXM rows (the SM, clock and HBM of an H800) of the AIConfigurator
tables, TensorRT-LLM and SGLang, both of which call cuBLASLt through PyTorch.

Two things are taken from them: the sustained rate of large GEMMs with its spread, and the other
constants from a sample of half of the (n, k) sites, scored on the other half. The tables' launch
time is fitted and then left out of the profile, where gaps between kernels are priced apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from calibration.fit.constants import GEMM_RANGES, fit_constants
from calibration.read.tables import read_table
from calibration.rows import KernelRows, sites
from hwmodels.chip import ChipSpec
from hwmodels.costs import GemmParameters
from hwmodels.errors import CalibrationError

HEAD_SHAPE = (4096, 65536, 8192)
"""m, n, k of the tables' row nearest to the LM head, (4096, 129280, 7168)."""
LARGE_FLOPS, LARGE_ROWS = 4e12, 2048
"""Rows that set the spread of the sustained rate: FLOPs and m at least these."""

FREE_CONSTANTS = tuple(GEMM_RANGES)
"""Constants the tables set; the sustained rate is read off them directly."""
_START = GemmParameters(split_k=True, swap_ab=True, launch_s=1.7e-6, wave_quantisation=0.07)
_SAMPLE = 800


@dataclass(frozen=True, slots=True)
class GemmTableFit:
    """BF16 constants from tables.

    Attributes:
        parameters: without launch time.
        sustained_p10, sustained_p90: spread of the sustained fraction.
        error_median, error_p90: of |log predicted / measured| on sites not fitted.
    """

    parameters: GemmParameters
    sustained_p10: float
    sustained_p90: float
    error_median: float
    error_p90: float


def read_gemm_tables(paths: Sequence[Path], family: str = "bf16") -> KernelRows:
    """Return the products of one family in several tables, whatever timed them.

    Raises:
        MachineError: reading parquet needs pyarrow.
        CalibrationError: a file is no such table, or none has such rows.
    """
    found = [rows for path in paths for rows in read_table(path).priced if rows.family == family]
    if not found:
        raise CalibrationError(f"{paths[0]}: no usable {family} rows")
    sizes = {name: np.concatenate([rows.shape[name] for rows in found]) for name in ("m", "n", "k")}
    return replace(
        found[0],
        shape={**found[0].shape, **sizes},
        time_s=np.concatenate([rows.time_s for rows in found]),
        site=sites(sizes["n"], sizes["k"]),
        size=sizes["m"],
    )


def fit_gemm_tables(paths: Sequence[Path], chip: ChipSpec) -> GemmTableFit:
    """Return the BF16 constants of tables measured on a sibling of `chip`.

    Raises:
        MachineError, CalibrationError: see `read_gemm_tables`.
    """
    rows = read_gemm_tables(paths)
    m, n, k = (rows.shape[name] for name in ("m", "n", "k"))
    flops = 2 * m * n * k
    fraction = flops / rows.time_s / chip.tensor_flops_per_s("bf16")
    is_head = (m == HEAD_SHAPE[0]) & (n == HEAD_SHAPE[1]) & (k == HEAD_SHAPE[2])
    is_large = (flops >= LARGE_FLOPS) & (m >= LARGE_ROWS)
    if not is_head.any() or not is_large.any():
        raise CalibrationError(f"{paths[0]}: no row of shape {HEAD_SHAPE}, or no large ones")
    p10, p90 = np.percentile(fraction[is_large], [10, 90])
    start = _START.model_copy(update={"sustained_fraction": float(fraction[is_head].min())})
    pool = np.flatnonzero(rows.site % 2 == 0)
    picked = np.sort(np.random.default_rng(0).permutation(pool)[:_SAMPLE])
    seen = rows.take(picked)
    parameters = fit_constants(start, GEMM_RANGES, lambda found: seen.log_error(chip, found))
    error = np.abs(rows.take(rows.site % 2 == 1).log_error(chip, parameters))
    return GemmTableFit(
        parameters.model_copy(update={"launch_s": 0.0}),
        float(p10),
        float(p90),
        float(np.median(error)),
        float(np.percentile(error, 90)),
    )
