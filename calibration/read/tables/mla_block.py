"""AIConfigurator `mla_module` and `mla_wideep`: MLA blocks of DeepSeek-V3, timed whole.

A block is projections down to the latents, up to the heads and out of them, the core of attention,
and absorption where the core works on latents. Those of TensorRT-LLM are priced as the sum of these
kernels, which other tables time alone. Nothing is fitted to blocks: they judge those. Norms, rotary
embedding and appends to the cache have no table of their own and are left out, so that a price is
expected to be low.

No table times the kernels of the other libraries alone: absorption of SGLang and vLLM, and all of
vLLM's attention. SGLang's wide expert-parallel rows do not even have the form of its `mla_context`
(prompts take half of what the absorbed form would, small ones seven times as long). They have no
price.
"""

from typing import Any

import numpy as np

from calibration.read.mla_shapes import (
    HIDDEN,
    LATENT,
    NOPE,
    QUERY_LATENT,
    ROTARY,
    VALUE,
    decode_shape,
    prefill_shape,
    suffix,
)
from calibration.read.settings import WHERE, Columns, Part, parts
from calibration.read.tables import Rows
from calibration.rows import BlockRows, Kernel
from hwmodels.arrays import Floats
from hwmodels.formats import FORMATS

WORDS = (*WHERE, "op_name", "kernel_source", "gemm_type", "mla_dtype", "kv_cache_dtype")
COLUMNS = frozenset((*WORDS, "num_heads", "batch_size", "isl", "step", "latency_ms"))

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), mla module"

LIBRARIES = ("trtllm",)
"""Whose kernels tables time alone; over prompts, they expand."""

_PRODUCTS = {
    "bfloat16": ("bf16", "mla_absorb", "bf16"),
    "fp8_block": ("fp8_block", "mla_absorb_fp8_block", "fp8_1x128"),
}
"""Families of the projections and of the absorption, and the format of what they multiply."""


def rows(columns: Columns, source: str) -> Rows:
    """Return the blocks of a table, prompts and decoding apart.

    Raises:
        CalibrationError: a chip or a format of the cache that is unknown, or no time.
    """
    found: Rows = []
    for part in parts(columns, WORDS, source):
        read = _OPS.get(part.words["op_name"])
        if part.setting().library not in LIBRARIES:
            found.append(part.unpriced("no table times its kernels alone"))
        elif read is None or part.words["gemm_type"] not in _PRODUCTS:
            found.append(part.unpriced())
        else:
            found.append(read(part))
    return found


def _decode(part: Part) -> BlockRows:
    heads, sequences, new = part.sizes("num_heads", "batch_size", "isl")
    (before,) = part.sizes("step", least=0)
    cache = part.words["kv_cache_dtype"]
    core = Kernel(
        "mla_decode" + suffix(part.words["mla_dtype"], cache),
        decode_shape(heads, sequences, new + before, cache),
    )
    kernels = _projections(part, heads, sequences) + _absorption(part, heads, sequences)
    return _block(part, (*kernels, core), size=sequences * (new + before))


def _prefill(part: Part) -> BlockRows:
    heads, sequences, new = part.sizes("num_heads", "batch_size", "isl")
    (before,) = part.sizes("step", least=0)
    library, cache = part.setting().library, part.words["kv_cache_dtype"]
    core = Kernel(
        "mla_prefill" + suffix(part.words["mla_dtype"], cache),
        prefill_shape(library, heads, sequences, new, before, cache),
    )
    tokens, seen = sequences * new, sequences * (before + new)
    into_heads = _projection(part, seen, heads * (NOPE + VALUE), LATENT)
    return _block(part, (*_projections(part, heads, tokens), into_heads, core), size=tokens)


def _projections(part: Part, heads: Floats, tokens: Floats) -> list[Kernel]:
    """Return down to both latents at once, up to the queries of the heads, and out of them."""
    return [
        _projection(part, tokens, QUERY_LATENT + LATENT + ROTARY, HIDDEN),
        _projection(part, tokens, heads * (NOPE + ROTARY), QUERY_LATENT),
        _projection(part, tokens, HIDDEN, heads * VALUE),
    ]


def _projection(part: Part, tokens: Floats, n: Floats | int, k: Floats | int) -> Kernel:
    family, _, operands = _PRODUCTS[part.words["gemm_type"]]
    m, columns, depth = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (tokens, n, k)))
    return Kernel(family, {"m": m, "n": columns, "k": depth} | _formats(operands))


def _absorption(part: Part, heads: Floats, tokens: Floats) -> list[Kernel]:
    """Return the products of every head that put queries into the latent, and back."""
    _, family, operands = _PRODUCTS[part.words["gemm_type"]]
    alike = {"m": heads * tokens, "groups": heads} | _formats(operands)
    return [
        Kernel(family, alike | {"n": np.full_like(heads, n), "k": np.full_like(heads, k)})
        for n, k in ((LATENT, NOPE), (VALUE, LATENT))
    ]


def _formats(operands: str) -> dict[str, Any]:
    return {
        "tensor_family": FORMATS[operands].family,
        "element_bytes": FORMATS[operands].element_bytes,
        "output_bytes": FORMATS["bf16"].element_bytes,
    }


def _block(part: Part, kernels: tuple[Kernel, ...], size: Floats) -> BlockRows:
    family = f"{kernels[-1].family}+{_PRODUCTS[part.words['gemm_type']][0]}"
    return BlockRows(part.setting(), family, kernels, part.seconds(), size, part.source)


_OPS = {"mla_generation_module": _decode, "mla_context_module": _prefill}
