"""Experts of one rank behind DeepEP, timed: the AIConfigurator table `moe_wideep_deepgemm`.

SGLang on DeepGEMM. Prefill scatters the tokens of all ranks to the rows of its experts and gathers
them again; its uniform loads are packed (`expert_counts`). Decode finds its rows laid out already,
and moves none. Versions differ by a quarter, so each is a setting of its own.
"""

import numpy as np

from calibration.read.expert_counts import expert_columns
from calibration.read.settings import WHERE, Columns, parts
from calibration.read.tables import Rows
from calibration.rows import KernelRows, sites

WORDS = (*WHERE, "op_name")
COLUMNS = frozenset(
    (*WORDS, "kernel_source", "moe_dtype", "hidden_size", "inter_size", "topk", "num_experts",
     "moe_tp_size", "moe_ep_size", "distribution", "num_tokens", "latency_ms")
)  # fmt: skip

SOURCE = (
    "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), wide expert-parallel moe"
)

FAMILIES = {"moe_context": "moe_fp8_block_prefill", "moe_generation": "moe_fp8_block_decode"}


def rows(columns: Columns, source: str) -> Rows:
    """Return the modules of each version, prefill and decode apart."""
    found: Rows = []
    for part in parts(columns, WORDS, source):
        op, load = part.words["op_name"], part.columns["distribution"]
        if op not in FAMILIES:
            found.append(part.unpriced())
            continue
        ranks, tokens = part.sizes("moe_ep_size", "num_tokens")
        if op == "moe_context":
            packed = np.where(load == "uniform", "packed", load)
            shape = expert_columns(part.columns | {"distribution": packed}, tokens)
        else:
            shape = expert_columns(part.columns, np.zeros_like(tokens))
        found.append(
            KernelRows(
                setting=part.setting(),
                kind="fused_moe",
                family=FAMILIES[op],
                shape=shape | {"tensor_family": "fp8", "element_bytes": 1.0},
                time_s=part.seconds(),
                site=sites(ranks, tokens),
                size=tokens,
                source=source,
            )
        )
    return found
