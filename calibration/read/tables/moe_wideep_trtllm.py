"""Experts of one rank between all-to-alls, timed: the AIConfigurator table `moe_wideep_trtllm`.

TensorRT-LLM computes the tokens that its rank has experts for, `rank0_num_tokens`; its expert load
balancer keeps copies of the largest experts in `num_slots`.
"""

from calibration.read.expert_counts import expert_columns
from calibration.read.settings import WHERE, Columns, parts
from calibration.read.tables import Rows
from calibration.read.tables.moe import FORMATS, SITE, tensor_format
from calibration.rows import KernelRows, sites

WORDS = (*WHERE, "moe_kernel", "moe_dtype")
COLUMNS = frozenset(
    (*SITE, *WORDS, "distribution", "num_tokens", "rank0_num_tokens", "num_slots", "latency_ms")
)

SOURCE = (
    "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), wide expert-parallel moe"
)
_SITE = (*SITE, "num_slots", "num_tokens")


def rows(columns: Columns, source: str) -> Rows:
    """Return the modules of each version and format."""
    found: Rows = []
    for part in parts(columns, WORDS, source):
        kind = part.words["moe_dtype"]
        if kind not in FORMATS:
            found.append(part.unpriced())
            continue
        (own_tokens,) = part.sizes("rank0_num_tokens", least=0)
        found.append(
            KernelRows(
                setting=part.setting(),
                kind="fused_moe",
                family=f"moe_{FORMATS[kind]}_wide",
                shape=expert_columns(part.columns, own_tokens) | tensor_format(kind),
                time_s=part.seconds(),
                site=sites(*part.sizes(*_SITE)),
                size=part.columns["num_tokens"],
                source=source,
            )
        )
    return found
