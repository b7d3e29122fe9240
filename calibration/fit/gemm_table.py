"""Fit the BF16 GEMM family to public tables of single-GEMM timings.

The LM head of a training step is a BF16 GEMM of a size the training trace does not contain, so its
rate comes from elsewhere: H100 SXM rows (the SM, clock and HBM of an H800) of the AIConfigurator
tables, TensorRT-LLM and SGLang, both of which call cuBLASLt through PyTorch.

Two things are taken from them: the sustained rate of large GEMMs with its spread, and the other
constants from a sample of half of the (n, k) sites, scored on the other half. The tables' launch
time is fitted and then left out of the profile, where gaps between kernels are priced apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.fit.constants import GEMM_RANGES, fit_constants
from calibration.read.parquet import read_columns
from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec
from hwmodels.costs import GemmParameters, gemm_time_s
from hwmodels.errors import CalibrationError

HEAD_SHAPE = (4096, 65536, 8192)
"""m, n, k of the tables' row nearest to the LM head, (4096, 129280, 7168)."""
LARGE_FLOPS, LARGE_ROWS = 4e12, 2048
"""Rows that set the spread of the sustained rate: FLOPs and m at least these."""

_COLUMNS = ("m", "n", "k", "latency_ms", "gemm_dtype")
FREE_CONSTANTS = tuple(GEMM_RANGES)
"""Constants the tables set; the sustained rate is read off them directly."""
_START = GemmParameters(split_k=True, swap_ab=True, launch_s=1.7e-6, wave_quantisation=0.07)
_SAMPLE = 800


@dataclass(frozen=True, slots=True)
class GemmRows:
    """Timed GEMMs as columns, all float64: `m n k` in elements, `time_s` in seconds."""

    m: Floats
    n: Floats
    k: Floats
    time_s: Floats

    @property
    def flops(self) -> Floats:
        """(rows,) 2 m n k."""
        return 2 * self.m * self.n * self.k

    def take(self, index: Any) -> "GemmRows":
        """Return the rows at `index` (positions or a mask)."""
        return GemmRows(self.m[index], self.n[index], self.k[index], self.time_s[index])


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


def read_gemm_tables(paths: Sequence[Path], gemm_format: str = "bfloat16") -> GemmRows:
    """Read the rows of one number format from parquet tables.

    Raises:
        MachineError: reading parquet needs pyarrow.
        CalibrationError: a file cannot be read, lacks a column or holds no such rows.
    """
    parts = []
    for path in paths:
        table = read_columns(path, _COLUMNS)
        keep = table["gemm_dtype"] == gemm_format
        parts.append(np.array([table[name] for name in _COLUMNS[:4]], np.float64)[:, keep])
    m, n, k, latency_ms = np.concatenate(parts, axis=1)
    if not m.size or not (latency_ms > 0).all():
        raise CalibrationError(f"{paths[0]}: no usable {gemm_format} rows")
    return GemmRows(m, n, k, latency_ms * 1e-3)


def fit_gemm_tables(paths: Sequence[Path], chip: ChipSpec) -> GemmTableFit:
    """Return the BF16 constants of tables measured on a sibling of `chip`.

    Raises:
        MachineError, CalibrationError: see `read_gemm_tables`.
    """
    rows = read_gemm_tables(paths)
    fraction = rows.flops / rows.time_s / chip.tensor_flops_per_s("bf16")
    is_head = (rows.m == HEAD_SHAPE[0]) & (rows.n == HEAD_SHAPE[1]) & (rows.k == HEAD_SHAPE[2])
    is_large = (rows.flops >= LARGE_FLOPS) & (rows.m >= LARGE_ROWS)
    if not is_head.any() or not is_large.any():
        raise CalibrationError(f"{paths[0]}: no row of shape {HEAD_SHAPE}, or no large ones")
    p10, p90 = np.percentile(fraction[is_large], [10, 90])
    start = _START.model_copy(update={"sustained_fraction": float(fraction[is_head].min())})
    sites = np.unique(rows.n * 1e6 + rows.k, return_inverse=True)[1]
    pool = np.flatnonzero(sites % 2 == 0)
    picked = np.sort(np.random.default_rng(0).permutation(pool)[:_SAMPLE])
    parameters = _fit(chip, rows.take(picked), start)
    error = np.abs(_log_error(chip, parameters, rows.take(sites % 2 == 1)))
    return GemmTableFit(
        parameters.model_copy(update={"launch_s": 0.0}),
        float(p10),
        float(p90),
        float(np.median(error)),
        float(np.percentile(error, 90)),
    )


def _log_error(chip: ChipSpec, parameters: GemmParameters, rows: GemmRows) -> Floats:
    times = gemm_time_s(
        chip,
        parameters,
        rows.m,
        rows.n,
        rows.k,
        tensor_family="bf16",
        element_bytes=2.0,
        output_bytes=2.0,
    )
    return np.asarray(np.log(times.time_s / rows.time_s))


def _fit(chip: ChipSpec, rows: GemmRows, start: GemmParameters) -> GemmParameters:
    return fit_constants(start, GEMM_RANGES, lambda parameters: _log_error(chip, parameters, rows))
