"""Single products of a serving library on one GPU: the GEMM tables of AIConfigurator.

Rows of one format are a family. A format that no cost function prices (weights of 4 or 8 integer
bits) is named in a warning and left out.
"""

import warnings
from typing import Any

import numpy as np

from calibration.read.tables import Columns
from calibration.rows import KernelRows, Setting, sites
from hwmodels.errors import CalibrationError
from hwmodels.formats import FORMATS

COLUMNS = frozenset(
    {"system", "framework", "fw_version", "gemm_dtype", "m", "n", "k", "latency_ms"}
)

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), gemm"

_FAMILIES = {
    "bfloat16": ("bf16", "bf16"),
    "fp8": ("fp8", "fp8_e4m3"),
    "fp8_block": ("fp8_block", "fp8_1x128"),
    "mxfp8": ("mxfp8", "mxfp8"),
    "nvfp4": ("nvfp4", "nvfp4"),
}
"""Family and number format of the operands by the table's name."""


def rows(columns: Columns, source: str) -> list[KernelRows]:
    """Return the products of a table, those of one system, library, version and format together.

    Raises:
        CalibrationError: a row without sizes or time.
    """
    names = ("system", "framework", "fw_version", "gemm_dtype")
    keys = np.stack([columns[name].astype(str) for name in names], axis=1)
    found = []
    for key in np.unique(keys, axis=0):
        system, library, version, dtype = map(str, key)
        index = (keys == key).all(axis=1)
        if dtype not in _FAMILIES:
            warnings.warn(f"{source}: no cost for {index.sum()} rows of {dtype}", stacklevel=2)
            continue
        m, n, k, latency_ms = (
            columns[name][index].astype(np.float64) for name in ("m", "n", "k", "latency_ms")
        )
        setting = Setting(system.removesuffix("_sxm"), library, version)
        found.append(products(setting, *_FAMILIES[dtype], m, n, k, latency_ms * 1e-3, SOURCE))
    return found


def products(
    setting: Setting, family: str, operands: str, m: Any, n: Any, k: Any, time_s: Any, source: str
) -> KernelRows:
    """Return timed products of operands in one number format, with results in BF16.

    Raises:
        CalibrationError: a row without sizes or time.
    """
    if not all((column > 0).all() and np.isfinite(column).all() for column in (m, n, k, time_s)):
        raise CalibrationError(f"{source}: {family}: sizes and times must be above 0")
    shape = {
        "m": m, "n": n, "k": k,
        "tensor_family": FORMATS[operands].family,
        "element_bytes": FORMATS[operands].element_bytes,
        "output_bytes": FORMATS["bf16"].element_bytes,
    }  # fmt: skip
    return KernelRows(setting, "gemm", family, shape, time_s, sites(n, k), m, source)
