"""The core of multi-head latent attention as keywords of cost functions, in its two forms.

A latent of 512 and a rotary key of 64 are cached for each token. *Absorbed*, queries are multiplied
into the latent, which is then one key-value head of all query heads: 576 deep, 512 wide.
*Expanded*, every head has its own key of 128 + 64 and value of 128, made of the latent by a product
that is not part of the core. Which one a library runs is structure and never fitted: over prompts,
TensorRT-LLM expands and SGLang absorbs (cost_model.md §5: the other form has a 90th percentile of
86 % instead of 14).

Before the core of a prompt, a serving library's op reads the new latents and writes them to the
cache. TensorRT-LLM's also rotates the rotary part of queries and copies the rotary key to every
head; with an FP8 cache it then quantises queries, keys and values and runs the core in FP8
(`applyMLARopeAndAssignQKVKernelOptContext` and `quantizeCopyInputToFp8Kernel` of its mlaKernels.cu;
`mFP8ContextMLA` of its attention op on SM 90).
"""

from typing import Any

from hwmodels.arrays import Floats
from hwmodels.errors import CalibrationError, listed

LATENT, ROTARY, NOPE, VALUE = 512, 64, 128, 128
HIDDEN, QUERY_LATENT = 7168, 1536
"""Of the block around it: a token, and the latent that queries come from (DeepSeek-V3)."""
ABSORBS_PROMPTS = {"trtllm": False, "flash-attention-3": False, "sglang": True}
"""Libraries whose prefill is known; decoding, all absorb."""

KERNELS_ALONE = ("flash-attention-3",)
"""Those of them whose tables time the core alone."""

CACHE_BYTES = {"bfloat16": 2.0, "fp8": 1.0}
"""Bytes of a cached element."""
BF16 = CACHE_BYTES["bfloat16"]
EXPANDED = NOPE + ROTARY + VALUE
"""Elements of one head's key and value, and of its query and output."""
ROTARY_PASSES = 3
"""A head's rotary query is read and written, its rotary key is written."""


def prefill_shape(
    library: str, heads: Floats, sequences: Floats, length: Floats, prefix: Floats, cache: str
) -> dict[str, Any]:
    """Return keywords of `attention_time_s`.

    Args:
        length, prefix: new tokens of a sequence, and those cached before them.
        cache: key of `CACHE_BYTES`.

    Raises:
        CalibrationError: nobody knows the library's form, or the format.
    """
    if library not in ABSORBS_PROMPTS:
        known = listed(ABSORBS_PROMPTS)
        raise CalibrationError(f"MLA prefill: library {library!r}: form unknown, known: {known}")
    sizes: dict[str, Any] = {"sequences": sequences, "length": length, "prefix": prefix}
    sizes["heads"] = heads
    append = (LATENT + ROTARY) * (BF16 + cache_bytes(cache))
    if ABSORBS_PROMPTS[library]:
        return sizes | _latent(cache) | {"passed_bytes": append}
    sizes |= {"kv_heads": heads, "d_qk": NOPE + ROTARY, "d_v": VALUE}
    if library in KERNELS_ALONE:
        return sizes
    rotate = heads * ROTARY_PASSES * ROTARY * BF16
    if cache != "fp8":
        return sizes | {"passed_bytes": append + rotate}
    quantised = NOPE + ROTARY + EXPANDED
    return sizes | {
        "passed_bytes": append + rotate + heads * quantised * (BF16 + 1.0),
        "kv_token_bytes": heads * EXPANDED,
        "tensor_family": "fp8",
        "element_bytes": (NOPE + ROTARY + VALUE * BF16) / EXPANDED,
    }


def decode_shape(heads: Floats, sequences: Floats, kv_length: Floats, cache: str) -> dict[str, Any]:
    """Return keywords of `decode_attention_time_s`.

    Raises:
        CalibrationError: the cache's format is unknown.
    """
    return {"sequences": sequences, "kv_length": kv_length, "heads": heads} | _latent(cache)


def _latent(cache: str) -> dict[str, Any]:
    width = LATENT + ROTARY
    stored = width * cache_bytes(cache)
    return {"kv_heads": 1, "d_qk": width, "d_v": LATENT, "kv_token_bytes": stored}


def cache_bytes(cache: str) -> float:
    """Return bytes of a cached element.

    Raises:
        CalibrationError: the format is unknown.
    """
    if cache not in CACHE_BYTES:
        known = listed(CACHE_BYTES)
        raise CalibrationError(f"attention: cache format {cache!r}: unknown, known: {known}")
    return CACHE_BYTES[cache]


def suffix(compute: str, cache: str) -> str:
    """Return the end of a family's name: what is FP8, computation before the cache."""
    if compute == "fp8":
        return "_fp8"
    return "_fp8kv" if cache == "fp8" else ""
