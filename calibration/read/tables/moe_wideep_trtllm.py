"""Experts of one rank between all-to-alls, timed: the AIConfigurator table `moe_wideep_trtllm`.

TensorRT-LLM computes the tokens that its rank has experts for, `rank0_num_tokens`; its expert load
balancer keeps copies of the largest experts in `num_slots`.
"""

import numpy as np

from calibration.read.expert_counts import expert_columns
from calibration.read.groups import groups, seconds, setting
from calibration.read.tables import Columns
from calibration.read.tables.moe import FORMATS, SITE, tensor_format
from calibration.rows import KernelRows, sites

GROUP = ("system", "framework", "fw_version", "moe_kernel", "moe_dtype")
COLUMNS = frozenset(
    (*SITE, *GROUP, "distribution", "num_tokens", "rank0_num_tokens", "num_slots", "latency_ms")
)

SOURCE = (
    "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), wide expert-parallel moe"
)
_SITE = (*SITE, "num_slots", "num_tokens")


def rows(columns: Columns, source: str) -> list[KernelRows]:
    """Return the modules of each version and format."""
    found = []
    for (system, library, version, _, kind), part in groups(columns, GROUP):
        tokens = part["rank0_num_tokens"].astype(np.float64)
        found.append(
            KernelRows(
                setting=setting(system, library, version),
                kind="fused_moe",
                family=f"moe_{FORMATS[kind]}_wide",
                shape=expert_columns(part, tokens) | tensor_format(kind),
                time_s=seconds(part, source),
                site=sites(*(part[name].tolist() for name in _SITE)),
                size=part["num_tokens"].astype(np.float64),
                source=source,
            )
        )
    return found
