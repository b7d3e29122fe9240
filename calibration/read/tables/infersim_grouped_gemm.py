"""DeepGEMM's grouped FP8 products on H800 and H20: the benchmarks of InferSim.

Up, (t, H) @ (H, 2 I), and down, (t, I) @ (I, H), are timed apart for t tokens to each expert of a
rank. Experts are alike, so these are products of equal groups (kind `gemm`) and need no counts.
"""

from typing import Any

import numpy as np

from calibration.read.settings import Columns, Part, parts
from calibration.read.tables import Rows
from calibration.rows import KernelRows, Setting, sites
from hwmodels.errors import CalibrationError

COLUMNS = frozenset(
    ("system", "phase", "num_local_experts", "topk", "hidden_size", "intermediate_size",
     "tokens_per_gpu", "tokens_per_expert", "up_proj_us", "down_proj_us")
)  # fmt: skip

SOURCE = "Alibaba InferSim bench_data (alibaba/InferSim @f2293dab)"

_SITE = ("num_local_experts", "topk", "hidden_size", "intermediate_size", "tokens_per_gpu")
_LAYOUTS = {"prefill": "contiguous", "decode": "masked"}


def rows(columns: Columns, source: str) -> Rows:
    """Return the products of each system, contiguous (prefill) and masked (decode) apart.

    Raises:
        CalibrationError: a phase that is unknown, or a row without a time.
    """
    found: Rows = []
    for part in parts(columns, ("system", "phase"), source):
        phase = part.words["phase"]
        if phase not in _LAYOUTS:
            raise CalibrationError(f"{source}: phase {phase!r}: must be decode or prefill")
        site = sites(*part.sizes(*_SITE))
        up, down = _shapes(part)
        found.append(
            KernelRows(
                setting=Setting(part.chip(), "deepgemm", "infersim"),
                kind="gemm",
                family=f"fp8_block_{_LAYOUTS[phase]}",
                shape={name: np.concatenate([up[name], down[name]]) for name in up}
                | {"tensor_family": "fp8", "element_bytes": 1.0, "output_bytes": 2.0},
                time_s=np.concatenate([part.seconds(f"{name}_proj_us") for name in ("up", "down")]),
                site=np.concatenate([site, site]),
                size=np.tile(part.columns["tokens_per_expert"], 2),
                source=source,
            )
        )
    return found


def _shapes(part: Part) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return m, n, k and groups of the up and the down products."""
    experts, tokens, width, inner = part.sizes(
        "num_local_experts", "tokens_per_expert", "hidden_size", "intermediate_size"
    )
    alike = {"m": experts * tokens, "groups": experts}
    return alike | {"n": 2 * inner, "k": width}, alike | {"n": width, "k": inner}
