"""One door to the cost functions: the type of the parameters says which one prices a family."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from hwmodels.chip import ChipSpec
from hwmodels.costs.attention import AttentionParameters, attention_time_s
from hwmodels.costs.decode_attention import (
    DecodeAttentionParameters,
    decode_attention_time_s,
)
from hwmodels.costs.gemm import GemmParameters, gemm_time_s
from hwmodels.costs.kernel_time import KernelTime
from hwmodels.costs.memory_op import MemoryParameters, memory_op_time_s

Parameters = GemmParameters | AttentionParameters | DecodeAttentionParameters | MemoryParameters

_FUNCTIONS: dict[type, Callable[..., KernelTime]] = {
    GemmParameters: gemm_time_s,
    AttentionParameters: attention_time_s,
    DecodeAttentionParameters: decode_attention_time_s,
    MemoryParameters: memory_op_time_s,
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
    return _FUNCTIONS[type(parameters)](chip, parameters, **shape, sms=sms)
