"""What an op of the host computes, from the sizes that the profiler recorded of its arguments.

A product is a @ b with a of (m, k) and b of (k, n), or as many at once as both begin with. Groups
stand in b where rows of a are dealt to experts, and in neither where the depth is dealt, a weight
gradient; how many each gets are values, which no trace has, so they count as dealt evenly. Which
arguments of an attention core say what is as in the schemas of `torch.ops`; keys and values follow
the query.
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from calibration.read.trace_events import HostOp


class TracedShape(NamedTuple):
    """One shape of one family.

    Attributes:
        kind, family: see `calibration.rows.KernelRows`.
        numbers: keywords of the cost function that differ from row to row.
        alike: those that are alike in all rows of the family.
        site: what is left out as one.
        size: rows of a product, tokens of an attention.
    """

    kind: str
    family: str
    numbers: Mapping[str, float]
    alike: Mapping[str, float | str]
    site: tuple[float, ...]
    size: float


class _Format(NamedTuple):
    family: str
    tensor_family: str
    element_bytes: float

    @property
    def keywords(self) -> dict[str, float | str]:
        return {"tensor_family": self.tensor_family, "element_bytes": self.element_bytes}


class _Core(NamedTuple):
    """Which argument the query of an attention op is, its axes, and which says what is masked."""

    query: int
    heads_axis: int
    length_axis: int
    causal: int


FORMATS: Mapping[str, _Format] = {
    "c10::BFloat16": _Format("bf16", "bf16", 2.0),
    "c10::Half": _Format("fp16", "bf16", 2.0),
    "c10::Float8_e4m3fn": _Format("fp8", "fp8", 1.0),
    "c10::Float8_e5m2": _Format("fp8", "fp8", 1.0),
}
"""Of tensor cores; FP16 runs at the rate of BF16, and FP32 on none unless it is cut to TF32."""
OUTPUT_BYTES = 2.0

PRODUCTS: Mapping[str, int] = {
    "aten::mm": 0,
    "aten::addmm": 1,
    "aten::bmm": 0,
    "aten::baddbmm": 1,
    "aten::_scaled_mm": 0,
    "aten::_grouped_mm": 0,
    "aten::_scaled_grouped_mm": 0,
}
"""Ops that are products, and which argument the first factor is."""
OFFSETS: Mapping[str, int] = {"aten::_grouped_mm": 2, "aten::_scaled_grouped_mm": 4}
"""Those of groups, and the argument that says where each group ends."""
SCALES: Mapping[str, int] = {"aten::_scaled_mm": 2}
"""Those that may be scaled block by block, and the argument that has the scales of the first."""

CORES: Mapping[str, _Core] = {
    "aten::_flash_attention_forward": _Core(0, 2, 1, 8),
    "aten::_flash_attention_backward": _Core(1, 2, 1, 11),
    "aten::_scaled_dot_product_flash_attention": _Core(0, 1, 2, 4),
    "aten::_scaled_dot_product_flash_attention_backward": _Core(1, 1, 2, 11),
    "aten::_cudnn_attention_forward": _Core(0, 1, 2, 10),
    "aten::_scaled_dot_product_cudnn_attention": _Core(0, 1, 2, 6),
    "aten::_scaled_dot_product_cudnn_attention_backward": _Core(1, 1, 2, 14),
    "aten::_efficient_attention_forward": _Core(0, 2, 1, 9),
    "aten::_efficient_attention_backward": _Core(1, 2, 1, 14),
    "aten::_scaled_dot_product_efficient_attention": _Core(0, 1, 2, 6),
    "aten::_scaled_dot_product_efficient_attention_backward": _Core(1, 1, 2, 11),
    "flash_attn::_flash_attn_forward": _Core(0, 2, 1, 5),
    "flash_attn::_flash_attn_backward": _Core(1, 2, 1, 11),
}
"""Ops that are attention cores, of sequences of one length."""
CAUSAL: Mapping[str, bool] = {"True": True, "1": True, "2": True, "False": False, "0": False}
"""By the words of a flag, or of the number of a mask of `_efficient_attention`."""


@cache
def traced_shape(op: HostOp) -> TracedShape | None:
    """Return what an op computes; None where that is not known or no tensor core computes it."""
    if op.name in PRODUCTS:
        return _product(op, PRODUCTS[op.name])
    if op.name in CORES:
        return _attention(op, CORES[op.name])
    return None


def _product(op: HostOp, first: int) -> TracedShape | None:
    number = _format(op, first)
    sizes = _product_sizes(op, first)
    if number is None or sizes is None or min(sizes) <= 0:
        return None
    m, n, k, groups = sizes
    scales = _argument(op, SCALES.get(op.name, -1))
    scaled = "_block" if len(scales) == 2 and scales[-1] > 1 else ""
    grouped = "_grouped" if op.name in OFFSETS else ""
    return TracedShape(
        kind="gemm",
        family=f"{number.family}{scaled}{grouped}",
        numbers={"m": m, "n": n, "k": k, "groups": groups},
        alike=number.keywords | {"output_bytes": OUTPUT_BYTES},
        site=(n, k),
        size=m,
    )


def _product_sizes(op: HostOp, first: int) -> tuple[float, float, float, float] | None:
    """Return m, n, k and groups as `gemm_time_s` counts them: m of all groups, k of one."""
    offsets = _argument(op, OFFSETS.get(op.name, -1))
    match _argument(op, first), _argument(op, first + 1), offsets:
        case (m, k), (depth, n), () if k == depth:
            return m, n, k, 1
        case (groups, m, k), (others, depth, n), () if (groups, k) == (others, depth):
            return groups * m, n, k, groups
        case (m, k), (groups, depth, n), _ if k == depth:
            return m, n, k, groups
        case (m, k), (depth, n), (groups,) if k == depth and groups > 0:
            return groups * m, n, k / groups, groups
    return None


def _attention(op: HostOp, core: _Core) -> TracedShape | None:
    number = _format(op, core.query)
    q, k, v = (_argument(op, core.query + place) for place in range(3))
    causal = CAUSAL.get(op.inputs[core.causal]) if core.causal < len(op.inputs) else None
    if number is None or causal is None or not len(q) == len(k) == len(v) == 4:
        return None
    heads, length, kv_heads = q[core.heads_axis], q[core.length_axis], k[core.heads_axis]
    if k[core.length_axis] != length or min(*q, *k, *v) <= 0:
        return None
    backward = op.name.endswith("_backward")
    return TracedShape(
        kind="attention",
        family="attention_backward" if backward else "attention_forward",
        numbers={
            "sequences": q[0],
            "length": length,
            "heads": heads,
            "kv_heads": kv_heads,
            "d_qk": q[3],
            "d_v": v[3],
            "causal": causal,
        },
        alike=number.keywords | {"backward": backward},
        site=(q[0], heads, kv_heads, q[3], v[3]),
        size=q[0] * length,
    )


def _argument(op: HostOp, place: int) -> tuple[int, ...]:
    """Return the sizes of an argument, () where there is none."""
    return op.sizes[place] if 0 <= place < len(op.sizes) else ()


def _format(op: HostOp, place: int) -> _Format | None:
    return FORMATS.get(op.types[place]) if place < len(op.types) else None
