"""The least that kernels do: FLOPs of tensor cores and bytes of HBM, and the roofline over them.

A roofline is what a cost model has to beat. It knows no tile, no launch and no efficiency. Shapes
are the keywords of the cost functions.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec


class Work(NamedTuple):
    """FLOPs on tensor cores of a format family, multiply-adds counted as two, and bytes that are
    read or written once; (rows,) each.
    """

    flops: Floats
    moved_bytes: Floats
    tensor_family: str


def roofline_s(chip: ChipSpec, work: Work) -> Floats:
    """Return the larger of FLOPs over peak and bytes over bandwidth, both of the datasheet.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    compute_s = work.flops / chip.tensor_flops_per_s(work.tensor_family)
    return np.asarray(np.maximum(compute_s, work.moved_bytes / chip.hbm_bytes_per_s))


def gemm_work(
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    groups: npt.ArrayLike = 1,
    *,
    tensor_family: str,
    element_bytes: float,
    output_bytes: float,
    operand_bytes: tuple[float, float] | None = None,
    quantised: bool = False,
) -> Work:
    """Return the work of `gemm_time_s`; quantising is no work of the product."""
    rows, cols, depth, count = _columns(m, n, k, groups)
    of_a, of_b = operand_bytes or (element_bytes, element_bytes)
    operands = (rows * of_a + count * cols * of_b) * depth
    return Work(2 * rows * cols * depth, operands + rows * cols * output_bytes, tensor_family)


def attention_work(
    sequences: npt.ArrayLike,
    length: npt.ArrayLike,
    heads: npt.ArrayLike,
    kv_heads: npt.ArrayLike,
    d_qk: npt.ArrayLike,
    d_v: npt.ArrayLike,
    *,
    causal: npt.ArrayLike = True,
    backward: npt.ArrayLike = False,
    prefix: npt.ArrayLike = 0,
    window: npt.ArrayLike = np.inf,
    kv_token_bytes: npt.ArrayLike | None = None,
    passed_bytes: npt.ArrayLike = 0,
    tensor_family: str = "bf16",
    element_bytes: float = 2.0,
) -> Work:
    """Return the work of `attention_time_s`."""
    count, new, n_head, n_kv, qk, v, before, width = _columns(
        sequences, length, heads, kv_heads, d_qk, d_v, prefix, window
    )
    is_backward = np.asarray(backward, bool)
    seen = np.where(np.asarray(causal, bool), _seen(new, before, width), new * (before + new))
    depth = np.where(is_backward, 3 * qk + 2 * v, qk + v)
    token = n_kv * (qk + v) * element_bytes if kv_token_bytes is None else kv_token_bytes
    kept = np.minimum(before + new, width + new)
    moved = count * (new * n_head * (qk + v) * element_bytes + kept * np.asarray(token))
    moved = moved + count * new * np.asarray(passed_bytes)
    flops = 2 * count * n_head * seen * depth
    return Work(flops, np.where(is_backward, 2.0, 1.0) * moved, tensor_family)


def decode_attention_work(
    sequences: npt.ArrayLike,
    kv_length: npt.ArrayLike,
    heads: npt.ArrayLike,
    kv_heads: npt.ArrayLike,
    d_qk: npt.ArrayLike,
    d_v: npt.ArrayLike,
    *,
    queries: npt.ArrayLike = 1,
    window: npt.ArrayLike = np.inf,
    kv_token_bytes: npt.ArrayLike | None = None,
    tensor_family: str = "bf16",
    element_bytes: float = 2.0,
) -> Work:
    """Return the work of `decode_attention_time_s`."""
    (new,) = _columns(queries)
    return attention_work(
        sequences, new, heads, kv_heads, d_qk, d_v, prefix=np.asarray(kv_length, np.float64) - new,
        window=window, kv_token_bytes=kv_token_bytes, tensor_family=tensor_family,
        element_bytes=element_bytes,
    )  # fmt: skip


def fused_moe_work(
    load: npt.ArrayLike,
    hidden: npt.ArrayLike,
    intermediate: npt.ArrayLike,
    tokens: npt.ArrayLike,
    experts: npt.ArrayLike,
    *,
    tensor_family: str,
    element_bytes: float,
) -> Work:
    """Return the work of `fused_moe_time_s`: weights of experts with tokens, tokens in and out."""
    pairs, active = np.moveaxis(np.asarray(load, np.float64), -1, 0)[:2]
    wide, inner, count, _ = _columns(hidden, intermediate, tokens, experts)
    weights = active * 3 * wide * inner * element_bytes
    return Work(6 * pairs * wide * inner, weights + count * wide * 4.0, tensor_family)


def memory_op_work(moved_bytes: npt.ArrayLike, launches: npt.ArrayLike = 1) -> Work:
    """Return the work of `memory_op_time_s`."""
    moved, _ = _columns(moved_bytes, launches)
    return Work(np.zeros_like(moved), moved, "bf16")


def _columns(*sizes: npt.ArrayLike) -> tuple[Floats, ...]:
    return np.broadcast_arrays(*(np.asarray(size, np.float64) for size in sizes))


def _seen(new: Floats, before: Floats, window: Floats) -> Floats:
    """Return the keys that the queries of one head see: query i has i keys before it, itself
    included, and those of the prefix, and of these the last `window`.
    """
    rising = np.clip(window - before, 0, new)  # queries that see all there is
    return np.asarray(
        rising * before + rising * (rising + 1) / 2 + (new - rising) * _finite(window)
    )


def _finite(window: Floats) -> Floats:
    """Return the window; where there is none no query is beyond it."""
    return np.where(np.isfinite(window), window, 0.0)
