"""Fused modules of experts, timed whole: the AIConfigurator tables `moe_*_sxm`.

One rank's module is timed: routing, expansion of tokens to pairs, both grouped products with the
activation, and the sum of pairs. `num_tokens` enter the whole expert-parallel group, and all of
them enter the module; the Triton kernels of SGLang and vLLM keep a row for every expert a token
has, of whatever rank. `moe_tp_size` cuts the width of an expert, `moe_ep_size` deals out experts.
"""

import numpy as np

from calibration.read.expert_counts import expert_columns
from calibration.read.groups import groups, seconds, setting
from calibration.read.tables import Columns
from calibration.rows import KernelRows, sites

SITE = ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
GROUP = ("system", "framework", "fw_version", "kernel_source", "moe_dtype")
COLUMNS = frozenset((*SITE, *GROUP, "distribution", "num_tokens", "latency_ms"))

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), moe"

FORMATS = {"bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block"}
"""Part of a family's name by `moe_dtype`."""


def rows(columns: Columns, source: str) -> list[KernelRows]:
    """Return the modules of each library and format; formats without a tensor rate are left out."""
    found = []
    for (system, library, version, kernel, kind), part in groups(columns, GROUP):
        if kind not in FORMATS:
            continue
        moved = part["num_tokens"].astype(np.float64) * (part["topk"] if "triton" in kernel else 1)
        shape = expert_columns(part, moved)
        found.append(
            KernelRows(
                setting=setting(system, library, version),
                kind="fused_moe",
                family=f"moe_{FORMATS[kind]}{'_flashinfer' if 'flashinfer' in kernel else ''}",
                shape=shape | tensor_format(kind),
                time_s=seconds(part, source),
                site=sites(*(part[name].tolist() for name in SITE)),
                size=part["num_tokens"].astype(np.float64),
                source=source,
            )
        )
    return found


def tensor_format(kind: str) -> dict[str, str | float]:
    """Return the tensor rate and bytes of an element of a `moe_dtype`."""
    is_bf16 = FORMATS[kind] == "bf16"
    return {"tensor_family": "bf16" if is_bf16 else "fp8", "element_bytes": 2.0 if is_bf16 else 1.0}
