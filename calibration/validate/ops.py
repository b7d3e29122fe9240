"""What a kernel of a layer is to the workload: an op, whose family and shape say what it is priced
as and which op of the workload it is.

Bytes are those of `workloads.ops`: tensors once, FP8 scales left out. Kernels of the library are
told by their name and shape, as `calibration.stack` records them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from calibration.stack.dimensions import D_NOPE, D_ROPE, D_V, Dimensions
from hwmodels.errors import CalibrationError, suggestion
from hwmodels.formats import FORMATS
from workloads.ops import Attention, DecodeAttention, Gemm, MemoryOp, Op

Shape = Mapping[str, Any]
BF16, FP8 = FORMATS["bf16"], FORMATS["fp8_1x128"]


def op_of(name: str, kernel: str, shape: Shape, d: Dimensions) -> Op:
    """Return the op that a kernel is at a shape, in a layer of these dimensions.

    Raises:
        CalibrationError: no such kernel, or the shape is that of another.
    """
    if kernel not in _OPS:
        raise CalibrationError(f"{name}: no kernel {kernel!r}{suggestion(kernel, _OPS)}")
    try:
        return _OPS[kernel](name, shape, d)
    except (KeyError, TypeError) as error:
        raise CalibrationError(f"{name}: is no shape of {kernel}: {error!r}") from None


def _plain_product(name: str, s: Shape, d: Dimensions) -> Op:
    """A weight gradient sums over tokens, which no other product here does."""
    summed = (s["m"], s["k"]) == (d.experts, d.tokens)
    return Gemm(name, s["m"], s["n"], s["k"], BF16, "wgrad" if summed else "fprop")


def _product(name: str, s: Shape, _: Dimensions) -> Op:
    return Gemm(name, s["m"], s["n"], s["k"], FP8)


def _grouped(name: str, s: Shape, _: Dimensions) -> Op:
    counts = s["counts"]
    return Gemm(name, sum(counts), s["n"], s["k"], FP8, groups=len(counts), routed=True)


def _weight_gradient(name: str, s: Shape, d: Dimensions) -> Op:
    """Of experts, ours has the wider side as its rows, the workload the side of the input."""
    counts, m, n = s["counts"], s["m"], s["n"]
    routed = len(counts) > 1
    if routed and n == d.expert_width:
        m, n = n, m
    return Gemm(name, m, n, sum(counts), FP8, "wgrad", groups=len(counts), routed=routed)


def _bmm(name: str, s: Shape, _: Dimensions) -> Op:
    """A product of each head with a matrix of its own."""
    return Gemm(name, s["batch"] * s["m"], s["n"], s["k"], BF16, groups=s["batch"])


def _attention(name: str, s: Shape, *, backward: bool) -> Op:
    heads = s["heads"]
    return Attention(
        name, s["batch"], s["length"], heads, heads, D_NOPE + D_ROPE, D_V, backward=backward
    )


def _decode_attention(name: str, s: Shape, d: Dimensions) -> Op:
    return DecodeAttention(name, s["batch"], s["length"], s["heads"], d.kv_latent, d.kv_rank)


def _cast(name: str, s: Shape, d: Dimensions) -> Op:
    family = "low_rank" if _is_narrow(s, d) else "cast"
    return MemoryOp(name, family, s["m"] * s["k"] * 3, routed=_is_routed(s["m"], d))


def _cast_transpose(name: str, s: Shape, d: Dimensions) -> Op:
    """From FP8 it writes one copy, from BF16 two."""
    again, routed = bool(s["from_fp8"]), _is_routed(s["m"], d)
    family = "recast_transpose" if again and routed else "transpose"
    size = s["m"] * s["k"] * (2 if again else 4)
    return MemoryOp(name, "low_rank" if _is_narrow(s, d) else family, size, routed=routed)


def _norm(name: str, s: Shape, d: Dimensions) -> Op:
    family = "low_rank" if _is_narrow(s, d) else "add_norm"
    return MemoryOp(name, family, s["m"] * s["k"] * (8 if s["residual"] else 4))


def _norm_backward(name: str, s: Shape, _: Dimensions) -> Op:
    size = s["m"] * s["k"] * (8 if s["residual"] else 6)
    return MemoryOp(name, "norm_backward", size, launches=2)


def _swiglu(name: str, s: Shape, d: Dimensions) -> Op:
    routed = _is_routed(s["rows"], d)
    size = s["rows"] * s["width"] * (5 if s["quantize"] else 6)
    return MemoryOp(name, "swiglu" if routed else "cast", size, routed=routed)


def _swiglu_backward(name: str, s: Shape, d: Dimensions) -> Op:
    size = s["rows"] * s["width"] * (12 if s["recompute"] else 10)
    return MemoryOp(name, "swiglu", size, routed=_is_routed(s["rows"], d))


def _permute(name: str, s: Shape, _: Dimensions) -> Op:
    size = (s["tokens"] + s["rows"]) * s["hidden"] * (1 if s["fp8"] else 2)
    return MemoryOp(name, "permute", size, launches=2, routed=True)


def _unpermute(name: str, s: Shape, _: Dimensions) -> Op:
    size = (s["tokens"] + s["rows"]) * s["hidden"] * 2
    return MemoryOp(name, "permute", size, routed=True)


def _rotary(name: str, s: Shape, _: Dimensions) -> Op:
    return MemoryOp(name, "rotary", s["tokens"] * s["heads"] * s["dim"] * 4)


def _router(name: str, s: Shape, _: Dimensions) -> Op:
    """It reads a logit for each expert, and writes index and weight of those it chose."""
    return MemoryOp(name, "small", s["tokens"] * (s["experts"] * 4 + s["top_k"] * 8))


def _copy(name: str, s: Shape, _: Dimensions) -> Op:
    """What has the depth of a position is one key written for all heads, and is read once."""
    spread = s["dim"] == D_ROPE
    size = s["tokens"] * s["heads"] * s["dim"] * (2 if spread else 4)
    return MemoryOp(name, "rotary" if spread else "copy", size)


def _each(family: str, element_bytes: int) -> Callable[[str, Shape, Dimensions], Op]:
    """Return the op of a kernel that moves so many bytes for each of (m, k)."""
    return lambda name, s, _: MemoryOp(name, family, s["m"] * s["k"] * element_bytes)


def _is_narrow(s: Shape, d: Dimensions) -> bool:
    """Return whether rows are those of a latent."""
    return s["k"] in (d.q_rank, d.kv_rank, d.kv_latent)


def _is_routed(rows: int, d: Dimensions) -> bool:
    return rows in (sum(d.counts), sum(d.decode_counts))


_OPS: Mapping[str, Callable[[str, Shape, Dimensions], Op]] = {
    "bf16_gemm": _plain_product,
    "fp8_gemm": _product,
    "grouped_gemm": _grouped,
    "fp8_wgrad": _weight_gradient,
    "mla_prefill": lambda name, s, _: _attention(name, s, backward=False),
    "mla_prefill_backward": lambda name, s, _: _attention(name, s, backward=True),
    "mla_decode": _decode_attention,
    "quantize": _cast,
    "cast_transpose": _cast_transpose,
    "rmsnorm": _norm,
    "rmsnorm_backward": _norm_backward,
    "swiglu": _swiglu,
    "swiglu_backward": _swiglu_backward,
    "moe_map": lambda name, _s, _d: MemoryOp(name, "expert_map", 0, launches=2),
    "moe_permute": _permute,
    "moe_unpermute": _unpermute,
    "rope": _rotary,
    "router": _router,
    "torch.add": _each("elementwise", 6),
    "torch.bmm": _bmm,
    "torch.cast": _each("elementwise", 6),
    "torch.copy": _copy,
    "torch.index_copy": lambda name, s, _: MemoryOp(name, "copy", s["tokens"] * s["dim"] * 4),
    "torch.sum": lambda name, s, _: MemoryOp(
        name, "rotary", s["tokens"] * s["heads"] * s["dim"] * 2
    ),
    "torch.transpose": _each("copy", 4),
}
