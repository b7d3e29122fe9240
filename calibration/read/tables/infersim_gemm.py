"""DeepGEMM's FP8 products with block scales on H800 and H20: the benchmarks of InferSim."""

from calibration.read.settings import Columns, parts
from calibration.read.tables import Rows
from calibration.read.tables.gemm import products
from calibration.rows import Setting

COLUMNS = frozenset({"m", "k", "n", "latency_us", "mfu", "system"})

SOURCE = "Alibaba InferSim bench_data (alibaba/InferSim @f2293dab)"


def rows(columns: Columns, source: str) -> Rows:
    """Return the products of a table, those of one system together.

    Raises:
        CalibrationError: a row without sizes or time.
    """
    return [
        products(
            part, Setting(part.chip(), "deepgemm", "infersim"), "fp8_block", "fp8_1x128",
            part.seconds("latency_us"),
        )
        for part in parts(columns, ("system",), source)
    ]  # fmt: skip
