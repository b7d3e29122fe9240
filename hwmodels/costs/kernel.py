"""One door to the cost functions: the type of the parameters says which one prices a family."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy.typing as npt

from hwmodels.chip import ChipSpec
from hwmodels.costs import attention, decode_attention, fused_moe, gemm, memory_op
from hwmodels.costs.attention import AttentionParameters
from hwmodels.costs.decode_attention import DecodeAttentionParameters
from hwmodels.costs.fused_moe import FusedMoeParameters
from hwmodels.costs.gemm import GemmParameters
from hwmodels.costs.kernel_time import KernelTime
from hwmodels.costs.memory_op import MemoryParameters
from hwmodels.costs.work import (
    Work,
    attention_work,
    decode_attention_work,
    fused_moe_work,
    gemm_work,
    memory_op_work,
)

Parameters = (
    GemmParameters
    | AttentionParameters
    | DecodeAttentionParameters
    | FusedMoeParameters
    | MemoryParameters
)


class Kind(NamedTuple):
    """One cost function, and what else is known of the shapes that it takes.

    Attributes:
        time_s: prices them.
        features: where they lie, for what measured rows add to a price.
        work: what they do at least, for a roofline.
    """

    time_s: Callable[..., KernelTime]
    features: Callable[..., npt.NDArray[Any]]
    work: Callable[..., Work]


_KINDS: dict[type, Kind] = {
    GemmParameters: Kind(gemm.gemm_time_s, gemm.features, gemm_work),
    AttentionParameters: Kind(attention.attention_time_s, attention.features, attention_work),
    DecodeAttentionParameters: Kind(
        decode_attention.decode_attention_time_s,
        decode_attention.features,
        decode_attention_work,
    ),
    FusedMoeParameters: Kind(fused_moe.fused_moe_time_s, fused_moe.features, fused_moe_work),
    MemoryParameters: Kind(memory_op.memory_op_time_s, memory_op.features, memory_op_work),
}


def kernel_time_s(
    chip: ChipSpec,
    parameters: Parameters,
    shape: Mapping[str, Any],
    *,
    sms: npt.ArrayLike | None = None,
) -> KernelTime:
    """Return the time of kernels of one family.

    Args:
        shape: the keywords of that family's cost function (`workloads.shapes` makes them of ops).
        sms: SMs the kernels may use, all of the chip by default.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    return _KINDS[type(parameters)].time_s(chip, parameters, **shape, sms=sms)


def kernel_features(
    chip: ChipSpec, parameters: Parameters, shape: Mapping[str, Any]
) -> npt.NDArray[Any]:
    """Return (rows, d) where kernels of one family lie, a distance of 1 being another shape."""
    return _KINDS[type(parameters)].features(chip, parameters, **shape)


def kernel_work(parameters: Parameters, shape: Mapping[str, Any]) -> Work:
    """Return the least that kernels of one family do."""
    return _KINDS[type(parameters)].work(**shape)
