"""Quantisation of activations to FP8, timed alone: the AIConfigurator table `quantize`.

`scale_matrix` reads BF16 and writes FP8 by a scale it is given; `compute_scale` finds that scale,
and is the difference of two timings: where it comes out as nothing, as in nearly all rows of
SGLang, there is no time to price.
"""

import numpy as np

from calibration.read.settings import WHERE, Columns, Part, parts
from calibration.read.tables import Rows
from calibration.rows import KernelRows, sites

WORDS = (*WHERE, "op_name", "quant_dtype")
COLUMNS = frozenset((*WORDS, "kernel_source", "m", "k", "latency_ms"))

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), quantize"

NO_TIME_S = 0.5e-6
"""Below this a difference of timings is their noise: half of what the shortest kernel takes."""
LEAST_ROWS = 10

_BYTES = {"scale_matrix": 3.0, "compute_scale": 2.0}
_FAMILIES = {"scale_matrix": "quantize", "compute_scale": "quantize_scale"}


def rows(columns: Columns, source: str) -> Rows:
    """Return the kernels of each library and step that have a time, where `LEAST_ROWS` have."""
    found: Rows = []
    for part in parts(columns, WORDS, source):
        if part.words["op_name"] not in _BYTES:
            found.append(part.unpriced())
            continue
        timed = part.columns["latency_ms"] * 1e-3 >= NO_TIME_S
        timed &= np.count_nonzero(timed) >= LEAST_ROWS
        if timed.any():
            found.append(_rows(part.take(timed)))
        if not timed.all():
            found.append(part.take(~timed).unpriced("too short to have a time"))
    return found


def _rows(part: Part) -> KernelRows:
    op, target = part.words["op_name"], part.words["quant_dtype"]
    m, k = part.sizes("m", "k")
    return KernelRows(
        setting=part.setting(),
        kind="memory_op",
        family=f"{_FAMILIES[op]}_{target}",
        shape={"moved_bytes": _BYTES[op] * m * k},
        time_s=part.seconds(),
        site=sites(m, k),
        size=m,
        source=part.source,
    )
