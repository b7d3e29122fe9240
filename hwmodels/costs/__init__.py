"""What work costs on a chip: pure, vectorised functions (shapes, ChipSpec, parameters) -> seconds.

    gemm          tiles over SMs in waves, a memory term, a sustained-rate cap
    attention     blocks of the softmax square or triangle over SMs
    decode_attention  blocks of a cache that few queries see, over SMs
    fused_moe     both grouped products of a rank's experts, by the tokens of each
    memory_op     bytes over an achieved bandwidth, plus a fixed time per launch
    interference  how much slower each of them runs beside a communication kernel
    exchange      dispatch and combine of experts: channels of SMs, NIC and NVLink bytes
    low_latency   the same where every copy goes straight to its GPU

Nothing here knows where a shape came from or which measurement set a parameter: shapes come from
`workloads`, parameters from a `KernelProfile`.
"""

from hwmodels.costs.attention import AttentionParameters, attention_time_s
from hwmodels.costs.decode_attention import (
    DecodeAttentionParameters,
    decode_attention_time_s,
)
from hwmodels.costs.fused_moe import FusedMoeParameters, expert_load, fused_moe_time_s
from hwmodels.costs.gemm import GemmParameters, gemm_time_s
from hwmodels.costs.interference import slowdown, work_share
from hwmodels.costs.kernel import Parameters, kernel_time_s
from hwmodels.costs.kernel_time import BOUNDS, KernelTime
from hwmodels.costs.memory_op import MemoryParameters, memory_op_time_s

__all__ = [
    "GemmParameters",
    "gemm_time_s",
    "AttentionParameters",
    "attention_time_s",
    "DecodeAttentionParameters",
    "decode_attention_time_s",
    "FusedMoeParameters",
    "fused_moe_time_s",
    "expert_load",
    "MemoryParameters",
    "memory_op_time_s",
    "Parameters",
    "kernel_time_s",
    "slowdown",
    "work_share",
    "KernelTime",
    "BOUNDS",
]
