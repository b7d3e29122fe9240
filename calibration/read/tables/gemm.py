"""Single products of a serving library on one GPU: the GEMM tables of AIConfigurator.

Rows of one format are a family. No cost function prices weights of 4 or 8 integer bits.
"""

from calibration.read.settings import WHERE, Columns, Part, parts
from calibration.read.tables import Rows
from calibration.rows import KernelRows, Setting, sites
from hwmodels.arrays import Floats
from hwmodels.formats import FORMATS

WORDS = (*WHERE, "gemm_dtype")
COLUMNS = frozenset((*WORDS, "m", "n", "k", "latency_ms"))

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), gemm"

_FAMILIES = {
    "bfloat16": ("bf16", "bf16"),
    "fp8": ("fp8", "fp8_e4m3"),
    "fp8_block": ("fp8_block", "fp8_1x128"),
    "mxfp8": ("mxfp8", "mxfp8"),
    "nvfp4": ("nvfp4", "nvfp4"),
}
"""Family and number format of the operands by the table's name."""


def rows(columns: Columns, source: str) -> Rows:
    """Return the products of a table, those of one system, library, version and format together.

    Raises:
        CalibrationError: a row without sizes or time.
    """
    found: Rows = []
    for part in parts(columns, WORDS, source):
        dtype = part.words["gemm_dtype"]
        if dtype in _FAMILIES:
            found.append(products(part, part.setting(), *_FAMILIES[dtype], part.seconds()))
        else:
            found.append(part.unpriced())
    return found


def products(
    part: Part, setting: Setting, family: str, operands: str, time_s: Floats
) -> KernelRows:
    """Return timed products of operands in one number format, with results in BF16.

    Raises:
        CalibrationError: a row without sizes.
    """
    m, n, k = part.sizes("m", "n", "k")
    shape = {
        "m": m, "n": n, "k": k,
        "tensor_family": FORMATS[operands].family,
        "element_bytes": FORMATS[operands].element_bytes,
        "output_bytes": FORMATS["bf16"].element_bytes,
    }  # fmt: skip
    return KernelRows(setting, "gemm", family, shape, time_s, sites(n, k), m, part.source)
