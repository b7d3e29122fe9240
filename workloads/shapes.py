"""Ops as the keywords of a cost function: columns of shapes at given expert loads.

Calibration and simulation both price ops through this file, so that what is fitted is what is
simulated.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwmodels.arrays import Floats
from workloads.ops import Attention, DecodeAttention, Gemm, MemoryOp, Op


def cost_shape(ops: Sequence[Op], load: Floats) -> dict[str, Any]:
    """Return the shape keywords of ops of one type, family and output format.

    Args:
        load: (ops, ...) expert load of each op relative to balanced, 1 where it is not routed.

    Returns:
        Columns that broadcast to the shape of `load`.
    """
    first = ops[0]
    if isinstance(first, Gemm):
        return _gemms(ops, first, load)
    if isinstance(first, Attention):
        names = (
            "sequences",
            "length",
            "heads",
            "kv_heads",
            "d_qk",
            "d_v",
            "causal",
            "backward",
            "prefix",
        )
        return {name: column(ops, name, load) for name in names}
    if isinstance(first, DecodeAttention):
        return {
            "kv_length": column(ops, "length", load),
            "kv_heads": 1,
            "kv_token_bytes": 2.0 * column(ops, "d_qk", load),
        } | {name: column(ops, name, load) for name in ("sequences", "heads", "d_qk", "d_v")}
    assert isinstance(first, MemoryOp), "the ops of this project are these four"
    return {
        "moved_bytes": column(ops, "bytes", load) * load,
        "launches": column(ops, "launches", load),
    }


def _gemms(ops: Sequence[Op], first: Gemm, load: Floats) -> dict[str, Any]:
    """Load scales the rows of a forward or dgrad product, and the depth of a weight gradient."""
    wgrad = column(ops, "role", load) == "wgrad"
    m, n, k, groups = (column(ops, name, load) for name in ("m", "n", "k", "groups"))
    in_memory = {"operand_bytes": first.in_memory} if first.in_memory else {}
    return in_memory | {
        "m": m * np.where(wgrad, groups, load),
        "n": n,
        "k": k * np.where(wgrad, load / groups, 1.0),
        "groups": groups,
        "tensor_family": first.format.family,
        "element_bytes": first.format.element_bytes,
        "output_bytes": first.output_bytes,
        "quantised": True,  # a recipe lists its casts as ops of their own
    }


def column(ops: Sequence[Op], name: str, load: Floats) -> NDArray[Any]:
    """Return one attribute of every op, shaped to broadcast against `load`."""
    values = np.array([getattr(op, name) for op in ops])
    return values.reshape(len(ops), *(1,) * (load.ndim - 1))
