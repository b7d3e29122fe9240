"""Fused modules of experts, timed whole: the AIConfigurator tables `moe_*_sxm`.

One rank's module is timed: routing, expansion of tokens to pairs, both grouped products with the
activation, and the sum of pairs. `num_tokens` enter the whole expert-parallel group, and all of
them enter the module; the Triton kernels of SGLang and vLLM keep a row for every expert a token
has, of whatever rank. `moe_tp_size` cuts the width of an expert, `moe_ep_size` deals out experts.
"""

from calibration.read.expert_counts import expert_columns
from calibration.read.settings import WHERE, Columns, parts
from calibration.read.tables import Rows
from calibration.rows import KernelRows, sites

SITE = ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
WORDS = (*WHERE, "kernel_source", "moe_dtype")
COLUMNS = frozenset((*SITE, *WORDS, "distribution", "num_tokens", "latency_ms"))

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), moe"

FORMATS = {"bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block"}
"""Part of a family's name by `moe_dtype`."""


def rows(columns: Columns, source: str) -> Rows:
    """Return the modules of each library and format; those without a tensor rate have no price."""
    found: Rows = []
    for part in parts(columns, WORDS, source):
        kernel, kind = part.words["kernel_source"], part.words["moe_dtype"]
        if kind not in FORMATS:
            found.append(part.unpriced())
            continue
        tokens, topk = part.sizes("num_tokens", "topk")
        shape = expert_columns(part.columns, tokens * (topk if "triton" in kernel else 1))
        found.append(
            KernelRows(
                setting=part.setting(),
                kind="fused_moe",
                family=f"moe_{FORMATS[kind]}{'_flashinfer' if 'flashinfer' in kernel else ''}",
                shape=shape | tensor_format(kind),
                time_s=part.seconds(),
                site=sites(*part.sizes(*SITE)),
                size=tokens,
                source=source,
            )
        )
    return found


def tensor_format(kind: str) -> dict[str, str | float]:
    """Return the tensor rate and bytes of an element of a `moe_dtype`."""
    is_bf16 = FORMATS[kind] == "bf16"
    return {"tensor_family": "bf16" if is_bf16 else "fp8", "element_bytes": 2.0 if is_bf16 else 1.0}
