"""DeepGEMM's FP8 products with block scales on H800 and H20: the benchmarks of InferSim."""

import numpy as np

from calibration.read.tables import Columns
from calibration.read.tables.gemm import products
from calibration.rows import KernelRows, Setting

COLUMNS = frozenset({"m", "k", "n", "latency_us", "mfu", "system"})

SOURCE = "Alibaba InferSim bench_data (alibaba/InferSim @f2293dab)"


def rows(columns: Columns, source: str) -> list[KernelRows]:
    """Return the products of a table, those of one system together.

    Raises:
        CalibrationError: a row without sizes or time.
    """
    found = []
    for system in np.unique(columns["system"]):
        index = columns["system"] == system
        m, n, k, latency_us = (
            columns[name][index].astype(np.float64) for name in ("m", "n", "k", "latency_us")
        )
        setting = Setting(str(system), "deepgemm", "infersim")
        found.append(
            products(setting, "fp8_block", "fp8_1x128", m, n, k, latency_us * 1e-6, SOURCE)
        )
    return found
