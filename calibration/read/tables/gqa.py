"""AIConfigurator `gqa_context` and `gqa_generation`: the core of grouped-query attention.

Both tables have the same columns: `isl` new tokens after `step` cached ones. One new token after
some is decoding, everything else is context. Context also puts its new keys and values in the
cache, which the op reads in BF16 and writes as they are stored.
"""

from typing import Any

from calibration.read.mla_shapes import BF16, cache_bytes, suffix
from calibration.read.settings import WHERE, Columns, Part, parts
from calibration.read.tables import Rows
from calibration.rows import KernelRows, sites

WORDS = (*WHERE, "attn_dtype", "kv_cache_dtype")
COLUMNS = frozenset(
    (*WORDS, "num_heads", "num_key_value_heads", "head_dim", "batch_size", "isl", "step",
     "latency_ms")
)  # fmt: skip

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), attention"
OUTPUT_BYTES = 2.0


def rows(columns: Columns, source: str) -> Rows:
    """Return the kernels of a table.

    Raises:
        CalibrationError: a chip or a format that is unknown, or no time.
    """
    found: Rows = []
    for part in parts(columns, WORDS, source):
        decodes = (part.columns["isl"] == 1) & (part.columns["step"] > 0)
        for chosen, is_decode in ((~decodes, False), (decodes, True)):
            if chosen.any():
                found.append(_rows(part.take(chosen), is_decode))
    return found


def _rows(part: Part, is_decode: bool) -> KernelRows:
    compute, cache = part.words["attn_dtype"], part.words["kv_cache_dtype"]
    heads, kv_heads, d_head, batch, isl = part.sizes(
        "num_heads", "num_key_value_heads", "head_dim", "batch_size", "isl"
    )
    (step,) = part.sizes("step", least=0)
    shape: dict[str, Any] = {
        "sequences": batch, "heads": heads, "kv_heads": kv_heads, "d_qk": d_head, "d_v": d_head,
        "kv_token_bytes": kv_heads * 2 * d_head * cache_bytes(cache),
        "tensor_family": "fp8" if compute == "fp8" else "bf16",
        "element_bytes": (cache_bytes(compute) + OUTPUT_BYTES) / 2,
    }  # fmt: skip
    if is_decode:
        shape["kv_length"] = isl + step
    else:
        given = kv_heads * 2 * d_head * BF16
        shape |= {"length": isl, "prefix": step, "passed_bytes": given + shape["kv_token_bytes"]}
    return KernelRows(
        setting=part.setting(),
        kind="decode_attention" if is_decode else "attention",
        family=("gqa_decode" if is_decode else "gqa_context") + suffix(compute, cache),
        shape=shape,
        time_s=part.seconds(),
        site=sites(heads, kv_heads, batch, isl, step),
        size=batch * (isl + step),
        source=part.source,
    )
