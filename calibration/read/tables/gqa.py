"""AIConfigurator `gqa_context` and `gqa_generation`: the core of grouped-query attention.

Both tables have the same columns: `isl` new tokens after `step` cached ones. One new token after
some is decoding, everything else is context.
"""

from typing import Any

from calibration.read.mla_shapes import cache_bytes, suffix
from calibration.read.settings import MS, Part, parts, seconds
from calibration.read.tables import Columns
from calibration.rows import KernelRows, sites
from hwmodels.arrays import Mask

WORDS = ("system", "framework", "fw_version", "attn_dtype", "kv_cache_dtype")
COLUMNS = frozenset(
    (*WORDS, "num_heads", "num_key_value_heads", "head_dim", "batch_size", "isl", "step",
     "latency_ms")
)  # fmt: skip

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), attention"
OUTPUT_BYTES = 2.0


def rows(columns: Columns, source: str) -> list[KernelRows]:
    """Return the kernels of a table.

    Raises:
        CalibrationError: a chip or a format that is unknown, or no time.
    """
    found = []
    for part in parts(columns, WORDS):
        decodes = (part.numbers["isl"] == 1) & (part.numbers["step"] > 0)
        for chosen, is_decode in ((~decodes, False), (decodes, True)):
            if chosen.any():
                found.append(_rows(part, chosen, is_decode, source))
    return found


def _rows(part: Part, chosen: Mask, is_decode: bool, source: str) -> KernelRows:
    compute, cache = part.words["attn_dtype"], part.words["kv_cache_dtype"]
    numbers = {name: column[chosen] for name, column in part.numbers.items()}
    heads, kv_heads, d_head, batch, isl, step = (
        numbers[name]
        for name in ("num_heads", "num_key_value_heads", "head_dim", "batch_size", "isl", "step")
    )
    shape: dict[str, Any] = {
        "sequences": batch, "heads": heads, "kv_heads": kv_heads, "d_qk": d_head, "d_v": d_head,
        "kv_token_bytes": kv_heads * 2 * d_head * cache_bytes(cache),
        "tensor_family": "fp8" if compute == "fp8" else "bf16",
        "element_bytes": (cache_bytes(compute) + OUTPUT_BYTES) / 2,
    }  # fmt: skip
    shape |= {"kv_length": isl + step} if is_decode else {"length": isl, "prefix": step}
    return KernelRows(
        setting=part.setting(source),
        kind="decode_attention" if is_decode else "attention",
        family=("gqa_decode" if is_decode else "gqa_context") + suffix(compute, cache),
        shape=shape,
        time_s=seconds(numbers["latency_ms"], MS, source),
        site=sites(heads, kv_heads, batch, isl, step),
        size=batch * (isl + step),
        source=source,
    )
