"""Name the kernels of DeepSeek's published DualPipe trace after the ops they compute.

The trace (deepseek-ai/profile-data @4496024, H800) is a forward chunk overlapped with a backward
chunk over 4 MoE layers. Host ranges name its blocks (`attn(F)`, `mlp(B)`, `dispatch(F)` ...), one
of each per layer pair; within a block every layer launches the same kernels in the same order.
So a block is a list of `(op, kernel pattern, count)` in launch order. The pattern only proves that
reader and trace have not drifted apart: a kernel that does not match is an error, not a guess.
`dualpipe_ops` has the family and the shapes of each op, by which it is joined with the workload.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from calibration.read.torch_trace import TraceKernel, overlap_s
from hwmodels.errors import CalibrationError

COMPUTE_STREAM = 7
COMMUNICATION_STREAM = 27
COMPUTE_SMS = 112
"""Blocks of the persistent GEMMs; the other 20 of 132 SMs run dispatch and combine."""

Run = tuple[str, str, int]

_NORM, _COPY, _FILL = "ln_fwd_kernel", "direct_copy_kernel", "FillFunctor"
_CAST, _UNCAST = "per_token_cast_to_fp8_with_channels", "cast_back_impl"
_SCALES, _TRANSPOSE = "utils::transpose<", "batched_transpose<"
_CHANNEL = "per_channel_cast_and_transpose<"
_GEMM, _GROUPED, _WGRAD = "cuda::fp8_ptp128c::", "m_grouped_fp8_ptp128c::", "fp8_dptp128c_acc::"
_ROTARY, _ADD = "rotary_kernel", "CUDAFunctor_add<c10::BFloat16>"
_SCALES_F, _SCALES_M, _SCALES_B = (
    "FP8 scale transposes (5)",
    "FP8 scale transposes/scale mul",
    "FP8 scale transposes (7)",
)
_TRANSPOSES = "weight transposes (o,q_b,kv_b,kv_a,q_a)"
_SMALL_CHANNEL = "per-channel cast+transpose small (kv,q lora, kv_a,q_a)"
_LOW_RANK, _LORA_BWD = "recompute norms/casts q_lora kv_lora", "lora norm bwd + slice fill/copy"
_HIDDEN_X2, _SHARED_X2 = (
    "per-channel cast+transpose hidden x2",
    "per-channel cast+transpose (shared x2)",
)
_BIG_CHANNEL = "per-channel cast+transpose dKV,dQ"
_ANY = ""

TENSOR_MAPS = "fill tensor maps"
"""A kernel of 1-3 us that some layers launch and others do not; part of no op."""
_STRAY = {"fill_tensormaps_kernel": TENSOR_MAPS}

BLOCKS: dict[str, tuple[Run, ...]] = {
    "attn(F)": (
        ("add+rmsnorm hidden", _NORM, 1),
        ("cast 1x128 hidden (q_a input)", _CAST, 1),
        (_SCALES_F, _SCALES, 1),
        ("q_a_proj", _GEMM, 1),
        ("cast 1x128 hidden (kv_a input)", _CAST, 1),
        (_SCALES_F, _SCALES, 1),
        ("kv_a_proj", _GEMM, 1),
        ("arange etc.", "arange_cuda_out", 2),
        ("rmsnorm q_lora", _NORM, 1),
        ("rmsnorm kv_lora + slice copies", _COPY, 1),
        ("rmsnorm kv_lora + slice copies", _NORM, 1),
        ("rmsnorm kv_lora + slice copies", _COPY, 1),
        ("cast q_lora", _CAST, 1),
        (_SCALES_F, _SCALES, 1),
        ("q_b_proj", _GEMM, 1),
        ("cast kv_lora", _CAST, 1),
        (_SCALES_F, _SCALES, 1),
        ("kv_b_proj", _GEMM, 1),
        ("rotary k", _ROTARY, 1),
        ("K assembly: copy k_nope", "_copy_tensor_kernel", 1),
        ("K assembly: expand k_rope", _COPY, 1),
        ("rotary q", _ROTARY, 1),
        ("flash attention fwd (causal,192/128)", "flash::compute_attn_ws<", 1),
        ("cast attn out to E5M6-like", "cast_to_fp8_with_fp8_special_fmt", 1),
        ("cast attn out to FP8", _CAST, 1),
        (_SCALES_F, _SCALES, 1),
        ("o_proj", _GEMM, 1),
        ("scale hidden (elementwise)", "MulFunctor", 1),
        ("add+rmsnorm hidden (2)", _NORM, 1),
        ("router gate", "gemm_bf16", 1),
        ("router select: sigmoid/topk/aux loss (37 kernels)", _ANY, 37),
        ("cast hidden for dispatch", _CAST, 1),
    ),
    "mlp(F)": (
        (_SCALES_M, _SCALES, 1),
        ("shared expert up+gate", _GEMM, 1),
        ("expert count + fused mapping", "clean_and_count_expert", 1),
        ("expert count + fused mapping", "get_fused_mapping", 1),
        ("expand_to_fused (permute, FP8)", "expand_to_fused_with_scales", 1),
        ("weight transpose up (4 experts)", _TRANSPOSE, 1),
        (_SCALES_M, _COPY, 1),
        ("routed up+gate (grouped)", _GROUPED, 1),
        (_SCALES_M, "MulFunctor", 1),
        ("swiglu + weight + cast (routed)", "swiglu_forward_with_weight", 1),
        ("weight transpose down (4 experts)", _TRANSPOSE, 1),
        (_SCALES_M, _COPY, 1),
        ("routed down (grouped)", _GROUPED, 1),
        ("reduce_fused (unpermute, BF16)", "reduce_fused_impl", 1),
        ("swiglu + cast (shared)", "swiglu_forward_with_weight", 1),
        (_SCALES_M, _SCALES, 1),
        ("shared expert down", _GEMM, 1),
        ("cast swiglu input to FP8 (routed, saved)", _CAST, 1),
        ("cast swiglu input to FP8 (shared, saved)", _CAST, 1),
    ),
    "mlp(B)": (
        ("cast_back swiglu input (shared)", _UNCAST, 1),
        ("weight transpose down (shared)", _TRANSPOSE, 1),
        (_SCALES_M, _SCALES, 1),
        ("shared down dgrad", _GEMM, 1),
        ("per-channel cast+transpose dY (shared)", _CHANNEL, 1),
        ("swiglu + per-channel cast+transpose (shared)", "swiglu_and_per_channel_cast", 1),
        ("swiglu backward (shared)", "swiglu_backward<", 1),
        ("cast_back swiglu input (routed)", _UNCAST, 1),
        ("expand_to_fused dY (permute, FP8)", "expand_to_fused_with_scales", 1),
        (_SCALES_M, _COPY, 1),
        ("routed down dgrad (grouped)", _GROUPED, 1),
        ("swiglu fwd+bwd with weight (routed)", "swiglu_forward_backward_with_weight", 1),
        ("swiglu weight grad (routed)", "swiglu_weight_backward_with_weight", 1),
        ("per-channel cast+transpose act (routed)", _CHANNEL, 1),
        (_SCALES_M, "MulFunctor", 1),
        ("rmsnorm recompute hidden", _NORM, 1),
        ("cast hidden recompute", _CAST, 1),
        ("cast d(swiglu in) 1x128 (routed)", _CAST, 1),
        (_SCALES_M, _COPY, 1),
        ("routed up dgrad (grouped)", _GROUPED, 1),
        ("reduce_fused dX (unpermute, BF16)", "reduce_fused_impl", 1),
        ("per-channel cast+transpose d(swiglu in) (routed)", _CHANNEL, 1),
        ("cast_back (shared,2)", _UNCAST, 1),
        ("weight transpose up (shared)", _TRANSPOSE, 1),
        ("cast d(swiglu in) (shared)", _CAST, 1),
        (_SCALES_M, _SCALES, 1),
        ("shared up dgrad", _GEMM, 1),
        (_SHARED_X2, _CHANNEL, 2),
    ),
    "mlp(W)": (
        ("shared down wgrad", _WGRAD, 1),
        ("per-channel recast+transpose dY (routed)", _CHANNEL, 1),
        ("routed down wgrad (4 experts, 2 streams)", _WGRAD, 4),
        ("per-channel recast+transpose X (routed)", _CHANNEL, 1),
        ("routed up wgrad (4 experts, 2 streams)", _WGRAD, 4),
        ("shared up wgrad", _WGRAD, 1),
    ),
    "attn(B)": (
        ("router/aux-loss backward (26 kernels)", _ANY, 26),
        ("router gate dgrad", "gemm_bf16", 1),
        ("router gate wgrad", "gemm_bf16", 1),
        ("add dX", _ADD, 1),
        ("rmsnorm bwd hidden", "ln_bwd_kernel", 1),
        ("rmsnorm bwd hidden", "ln_bwd_finalize_kernel", 1),
        ("rmsnorm bwd hidden", "CUDAFunctor_add<float>", 1),
        ("scale hidden (elementwise)", "MulFunctor", 1),
        ("cast_back E5M6-like attn out", "cast_back_special_fmt", 1),
        ("cast dY 1x128 (o)", _CAST, 1),
        (_TRANSPOSES, _TRANSPOSE, 1),
        (_SCALES_B, _SCALES, 1),
        ("o dgrad", _GEMM, 1),
        ("per-channel cast+transpose attn out", _CHANNEL, 1),
        ("per-channel cast+transpose dY (o)", _CHANNEL, 1),
        (_LOW_RANK, _NORM, 1),
        (_LOW_RANK, _COPY, 1),
        (_LOW_RANK, _NORM, 1),
        (_LOW_RANK, _CAST, 1),
        (_SCALES_B, _SCALES, 1),
        ("q_b recompute", _GEMM, 1),
        (_LOW_RANK, _CAST, 1),
        (_SCALES_B, _SCALES, 1),
        ("kv_b recompute", _GEMM, 1),
        ("rotary q,k (recompute)", _ROTARY, 1),
        ("K assembly: copy k_nope (recompute)", "_copy_tensor_kernel", 1),
        ("K assembly: expand k_rope (recompute)", _COPY, 1),
        ("rotary q,k (recompute)", _ROTARY, 1),
        ("FA bwd preprocess", "FlashAttnBwdPreprocess", 1),
        ("flash attention bwd (causal,192/128)", "flash::FlashAttnBwd<", 1),
        ("FA bwd dQ convert", "FlashAttnBwdPostprocessConvertdQ", 1),
        ("rotary bwd q,k", _ROTARY, 1),
        (_TRANSPOSES, _TRANSPOSE, 1),
        ("cast dQ 1x128", _CAST, 1),
        (_SCALES_B, _SCALES, 1),
        ("q_b dgrad", _GEMM, 1),
        ("reduce dk_rope over heads", "reduce_kernel", 1),
        ("rotary bwd q,k", _ROTARY, 1),
        ("dK/dV copies", "_copy_tensor_kernel", 2),
        (_TRANSPOSES, _TRANSPOSE, 1),
        ("cast dKV 1x128", _CAST, 1),
        (_SCALES_B, _SCALES, 1),
        ("kv_b dgrad", _GEMM, 1),
        (_BIG_CHANNEL, _CHANNEL, 1),
        (_SMALL_CHANNEL, _CHANNEL, 1),
        (_BIG_CHANNEL, _CHANNEL, 1),
        (_SMALL_CHANNEL, _CHANNEL, 1),
        (_LORA_BWD, "ln_bwd_kernel", 1),
        (_LORA_BWD, "ln_bwd_finalize_kernel", 1),
        (_LORA_BWD, "CUDAFunctor_add<float>", 1),
        (_LORA_BWD, "ln_bwd_kernel", 1),
        (_LORA_BWD, "ln_bwd_finalize_kernel", 1),
        (_LORA_BWD, "CUDAFunctor_add<float>", 1),
        (_LORA_BWD, _FILL, 1),
        (_LORA_BWD, _COPY, 1),
        (_LORA_BWD, _FILL, 1),
        (_LORA_BWD, _COPY, 1),
        (_LORA_BWD, _ADD, 1),
        ("rmsnorm recompute hidden", _NORM, 1),
        ("casts d(kv_a),d(q_a)", _CAST, 1),
        (_TRANSPOSES, _TRANSPOSE, 1),
        (_SCALES_B, _SCALES, 1),
        ("kv_a dgrad", _GEMM, 1),
        (_HIDDEN_X2, _CHANNEL, 1),
        (_SMALL_CHANNEL, _CHANNEL, 1),
        ("casts d(kv_a),d(q_a)", _CAST, 1),
        (_TRANSPOSES, _TRANSPOSE, 1),
        (_SCALES_B, _SCALES, 1),
        ("q_a dgrad", _GEMM, 1),
        (_HIDDEN_X2, _CHANNEL, 1),
        (_SMALL_CHANNEL, _CHANNEL, 1),
        ("add dX (2)", _ADD, 1),
        ("rmsnorm bwd hidden (2)", "ln_bwd_kernel", 1),
        ("rmsnorm bwd hidden (2)", "ln_bwd_finalize_kernel", 1),
        ("rmsnorm bwd hidden (2)", "CUDAFunctor_add<float>", 1),
    ),
    "attn(W)": (
        ("o wgrad", _WGRAD, 1),
        ("kv_b wgrad", _WGRAD, 1),
        ("q_b wgrad", _WGRAD, 1),
        ("kv_a wgrad", _WGRAD, 1),
        ("q_a wgrad", _WGRAD, 1),
    ),
    "dispatch(F)": (
        ("layout count", "get_dispatch_layout", 1),
        ("notify (barrier wait on peers)", "notify_dispatch", 1),
        ("dispatch FP8 (uncached)", "internode::dispatch<", 1),
    ),
    "combine(F)": (
        ("notify (barrier wait on peers)", "cached_notify", 1),
        ("combine BF16", "internode::combine<", 1),
    ),
    "combine(B)": (
        ("cast 1x128 before cached dispatch", _CAST, 1),
        ("notify (barrier wait on peers)", "cached_notify", 1),
        ("combine backward = dispatch FP8 (cached layout)", "internode::dispatch<", 1),
    ),
    "dispatch(B)": (
        ("notify (barrier wait on peers)", "cached_notify", 1),
        ("dispatch backward = combine BF16", "internode::combine<", 1),
    ),
}

TRANSFER_OPS = (
    "dispatch FP8 (uncached)",
    "combine backward = dispatch FP8 (cached layout)",
    "combine BF16",
    "dispatch backward = combine BF16",
)
"""The two dispatch kernels, then the two combine kernels, without their wait for peers."""
_TRANSFERS = ("internode::dispatch<", "internode::combine<")
_ROWS_PER_BLOCK = 16
"""Rows that one block of the permute kernel handles: how routed rows are read off its grid."""


@dataclass(frozen=True, slots=True)
class MeasuredOp:
    """One op of one layer pair in the trace.

    Attributes:
        layer: layer pair, from 0 in the order of the trace.
        phase: block it belongs to, such as `attn(F)`.
        name: op name, as in `BLOCKS`.
        time_s: sum of its kernels; from first start to last end where they run on two streams.
        beside: share of that time during which a dispatch or combine kernel (not its wait for
            peers) ran on the communication stream.
        rows: routed rows of the rank in this layer and direction, padded to 128 per expert.
        kernels: how many.
    """

    layer: int
    phase: str
    name: str
    time_s: float
    beside: float
    rows: int
    kernels: int


def is_dualpipe(annotations: Iterable[str]) -> bool:
    """Return whether a trace has every block of this one among its ranges."""
    return set(BLOCKS) <= set(annotations)


def label(kernels: Iterable[TraceKernel]) -> tuple[MeasuredOp, ...]:
    """Return the ops of every layer pair, all kernels of the trace accounted for.

    Raises:
        CalibrationError: a kernel is not the expected one.
    """
    blocks: dict[tuple[str, int], list[TraceKernel]] = defaultdict(list)
    transfers = []
    for kernel in kernels:
        blocks[kernel.annotation, kernel.occurrence].append(kernel)
        if any(pattern in kernel.name for pattern in _TRANSFERS):
            transfers.append(kernel)
    found: list[MeasuredOp] = []
    layers = 1 + max(occurrence for _, occurrence in blocks)
    for layer in range(layers):
        ops = {phase: _assign(phase, layer, blocks.pop((phase, layer), [])) for phase in BLOCKS}
        rows = {direction: _routed_rows(ops[f"mlp({direction})"]) for direction in "FB"}
        for phase, members in ops.items():
            routed = rows["F" if phase.endswith("(F)") else "B"]
            found += [
                _measured(phase, name, run, transfers, routed) for name, run in members.items()
            ]
    if blocks:
        phase, layer = next(iter(blocks))
        raise CalibrationError(f"trace: {phase or 'no range'} of layer {layer}: unknown block")
    return tuple(found)


def _assign(phase: str, layer: int, kernels: list[TraceKernel]) -> dict[str, list[TraceKernel]]:
    """Return the kernels of each op of one block."""
    ops: dict[str, list[TraceKernel]] = defaultdict(list)
    for pattern, name in _STRAY.items():
        strays = [kernel for kernel in kernels if pattern in kernel.name]
        if strays:
            ops[name] = strays
    rest = [k for k in kernels if not any(pattern in k.name for pattern in _STRAY)]
    expected = [(name, pattern) for name, pattern, count in BLOCKS[phase] for _ in range(count)]
    where = f"trace: {phase} of layer {layer}"
    if len(rest) != len(expected):
        raise CalibrationError(f"{where}: expected {len(expected)} kernels, got {len(rest)}")
    for number, (kernel, (name, pattern)) in enumerate(zip(rest, expected, strict=True)):
        if pattern not in kernel.name:
            raise CalibrationError(
                f"{where}: kernel {number}: expected {pattern!r} of {name!r}, got {kernel.name!r}"
            )
        ops[name].append(kernel)
    return ops


def _routed_rows(ops: Mapping[str, list[TraceKernel]]) -> int:
    """Return the routed rows of one direction, from the grid of its permute kernel."""
    permute = next(run[0] for name, run in ops.items() if name.startswith("expand_to_fused"))
    return permute.grid[0] * _ROWS_PER_BLOCK


def _measured(
    phase: str, name: str, run: list[TraceKernel], transfers: list[TraceKernel], rows: int
) -> MeasuredOp:
    busy = sum(kernel.duration_s for kernel in run)
    shared = sum(overlap_s(kernel, transfers) for kernel in run)
    time_s = busy
    if len({kernel.stream for kernel in run}) > 1:
        time_s = max(kernel.end_s for kernel in run) - min(kernel.start_s for kernel in run)
    beside = shared / busy if busy else 0.0
    return MeasuredOp(run[0].occurrence, phase, name, time_s, beside, rows, len(run))
