"""DeepGEMM's grouped FP8 products on H800 and H20: the benchmarks of InferSim.

Up, (t, H) @ (H, 2 I), and down, (t, I) @ (I, H), are timed apart for t tokens to each expert of a
rank. Experts are alike, so these are products of equal groups (kind `gemm`) and need no counts.
"""

from typing import Any

import numpy as np

from calibration.read.groups import groups, seconds
from calibration.read.tables import Columns
from calibration.rows import KernelRows, Setting, sites

COLUMNS = frozenset(
    ("system", "phase", "num_local_experts", "topk", "hidden_size", "intermediate_size",
     "tokens_per_gpu", "tokens_per_expert", "up_proj_us", "down_proj_us")
)  # fmt: skip

SOURCE = "Alibaba InferSim bench_data (alibaba/InferSim @f2293dab)"

_SITE = ("num_local_experts", "topk", "hidden_size", "intermediate_size", "tokens_per_gpu")
_LAYOUTS = {"prefill": "contiguous", "decode": "masked"}


def rows(columns: Columns, source: str) -> list[KernelRows]:
    """Return the products of each system, contiguous (prefill) and masked (decode) apart.

    Raises:
        CalibrationError: a row without a time.
    """
    found = []
    for (system, phase), part in groups(columns, ("system", "phase")):
        site = sites(*(part[name].tolist() for name in _SITE))
        up, down = _shapes(part)
        found.append(
            KernelRows(
                setting=Setting(system, "deepgemm", "infersim"),
                kind="gemm",
                family=f"fp8_block_{_LAYOUTS[phase]}",
                shape={name: np.concatenate([up[name], down[name]]) for name in up}
                | {"tensor_family": "fp8", "element_bytes": 1.0, "output_bytes": 2.0},
                time_s=np.concatenate(
                    [seconds(part, source, f"{name}_proj_us") for name in ("up", "down")]
                ),
                site=np.concatenate([site, site]),
                size=np.tile(part["tokens_per_expert"].astype(np.float64), 2),
                source=source,
            )
        )
    return found


def _shapes(part: Columns) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return m, n, k and groups of the up and the down products."""
    experts, tokens, width, inner = (
        part[name].astype(np.float64)
        for name in ("num_local_experts", "tokens_per_expert", "hidden_size", "intermediate_size")
    )
    alike = {"m": experts * tokens, "groups": experts}
    return alike | {"n": 2 * inner, "k": width}, alike | {"n": width, "k": inner}
