"""Quantisation of activations to FP8, timed alone: the AIConfigurator table `quantize`.

`scale_matrix` reads BF16 and writes FP8 by a scale it is given; `compute_scale` finds that scale,
and is the difference of two timings: where it comes out as nothing, as in nearly all rows of
SGLang, there is no time to price, and the rows are left out.
"""

from calibration.read.settings import WHERE, Columns, parts
from calibration.rows import KernelRows, sites

WORDS = (*WHERE, "op_name", "quant_dtype")
COLUMNS = frozenset((*WORDS, "kernel_source", "m", "k", "latency_ms"))

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), quantize"

NO_TIME_S = 0.5e-6
"""Below this a difference of timings is their noise: half of what the shortest kernel takes."""
LEAST_ROWS = 10

_BYTES = {"scale_matrix": 3.0, "compute_scale": 2.0}
_FAMILIES = {"scale_matrix": "quantize", "compute_scale": "quantize_scale"}


def rows(columns: Columns, source: str) -> list[KernelRows]:
    """Return the kernels of each library and step that have a time, where `LEAST_ROWS` have."""
    found = []
    timed = columns["latency_ms"] * 1e-3 >= NO_TIME_S
    kept = {name: values[timed] for name, values in columns.items()}
    for part in parts(kept, WORDS, source):
        op, target = part.words["op_name"], part.words["quant_dtype"]
        m, k = part.sizes("m", "k")
        if len(m) < LEAST_ROWS:
            continue
        found.append(
            KernelRows(
                setting=part.setting(),
                kind="memory_op",
                family=f"{_FAMILIES[op]}_{target}",
                shape={"moved_bytes": _BYTES[op] * m * k},
                time_s=part.seconds(),
                site=sites(m, k),
                size=m,
                source=source,
            )
        )
    return found
