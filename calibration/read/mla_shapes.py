"""The core of multi-head latent attention as keywords of cost functions, in its two forms.

A latent of 512 and a rotary key of 64 are cached for each token. *Absorbed*, queries are multiplied
into the latent, which is then one key-value head of all query heads: 576 deep, 512 wide.
*Expanded*, every head has its own key of 128 + 64 and value of 128, made of the latent by a product
that is not part of the core. Which one a library runs is structure and never fitted: over prompts,
TensorRT-LLM expands and SGLang absorbs (cost_model.md §5: the other form has a 90th percentile of
86 % instead of 14).
"""

from typing import Any

from hwmodels.arrays import Floats
from hwmodels.errors import CalibrationError, listed

LATENT, ROTARY, NOPE, VALUE = 512, 64, 128, 128
HIDDEN, QUERY_LATENT = 7168, 1536
"""Of the block around it: a token, and the latent that queries come from (DeepSeek-V3)."""
ABSORBS_PROMPTS = {"trtllm": False, "flash-attention-3": False, "sglang": True}
"""Libraries whose prefill is known; decoding, all absorb."""

CACHE_BYTES = {"bfloat16": 2.0, "fp8": 1.0}
"""Bytes of a cached element."""


def prefill_shape(
    library: str, heads: Floats, sequences: Floats, length: Floats, prefix: Floats, cache: str
) -> dict[str, Any]:
    """Return keywords of `attention_time_s`.

    Args:
        length, prefix: new tokens of a sequence, and those cached before them.
        cache: key of `CACHE_BYTES`. Expanded keys and values are BF16 whatever the cache is.

    Raises:
        CalibrationError: nobody knows the library's form, or the format.
    """
    if library not in ABSORBS_PROMPTS:
        known = listed(ABSORBS_PROMPTS)
        raise CalibrationError(f"MLA prefill: library {library!r}: form unknown, known: {known}")
    sizes = {"sequences": sequences, "length": length, "prefix": prefix, "heads": heads}
    if ABSORBS_PROMPTS[library]:
        return sizes | _latent(cache)
    return sizes | {"kv_heads": heads, "d_qk": NOPE + ROTARY, "d_v": VALUE}


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
