"""A profile of the kernels themselves: constants fitted to rows of the day that timed the layer.

Those rows are of each kernel alone, on operands that have left the L2: of the layer's shapes and
of others. No time of the layer is among them. Memory-bound kernels are families of their own, with
the bytes that they count; the workload's families have the constants of one of them.
"""

from collections.abc import Mapping
from typing import TypeVar

from calibration.judge.cost_fits import fitted_parameters
from calibration.judge.folder import Day
from hwmodels.chip import ChipSpec
from hwmodels.costs import AttentionParameters, GemmParameters, MemoryParameters, Parameters
from hwmodels.library import LibrarySpec
from hwmodels.profile import KernelProfile
from workloads.ops import MemoryOp, Op

P = TypeVar("P", GemmParameters, AttentionParameters, MemoryParameters)

FAMILIES = {
    "bf16_gemm": ("bf16", "bf16_narrow", "bf16_narrow_wgrad"),
    "fp8_gemm": ("fp8",),
    "grouped_gemm": ("fp8_grouped",),
    "fp8_wgrad": ("fp8_wgrad",),
    "mla_prefill": ("attention_forward",),
    "mla_prefill_backward": ("attention_backward",),
    "quantize": ("cast", "low_rank"),
    "cast_transpose": ("transpose", "recast_transpose"),
    "rmsnorm": ("add_norm",),
    "rmsnorm_backward": ("norm_backward",),
    "swiglu": ("swiglu",),
    "moe_permute": ("permute",),
    "rope": ("rotary",),
    "probe_copy": ("copy", "elementwise"),
}
"""Families of the workload that a kernel's constants are taken for; a copy's for what the library
does.
"""


def own_profile(day: Day, chip: ChipSpec) -> KernelProfile | None:
    """Return the profile of a day's kernels, None where the day fits none.

    Launches of a row are in its time, so that there is no gap between kernels left to price.
    """
    fitted = fitted_parameters(day, chip)
    if not fitted:
        return None
    of_family = {
        family: fitted[kernel]
        for kernel, families in FAMILIES.items()
        if kernel in fitted
        for family in families
    }
    known: dict[str, Parameters] = {**_of(MemoryParameters, fitted), **of_family}
    return KernelProfile(
        name="of this day",
        chip=chip.name,
        library="moesim",
        version=str(day.record.get("versions", {}).get("triton", "")),
        launch_gap_s=0.0,
        gemm=_of(GemmParameters, known),
        attention=_of(AttentionParameters, known),
        memory_op=_of(MemoryParameters, known),
        interference=dict.fromkeys(known, 1.0),
        communication=LibrarySpec(name="none", version=""),
    )


def own_op(op: Op, kernel: str, counted_bytes: float | None, profile: KernelProfile) -> Op:
    """Return an op as its own profile prices it: a memory-bound kernel is a family by itself."""
    if not isinstance(op, MemoryOp) or counted_bytes is None or kernel not in profile.memory_op:
        return op
    return MemoryOp(op.name, kernel, counted_bytes, routed=op.routed)


def _of(kind: type[P], known: Mapping[str, Parameters]) -> dict[str, P]:
    return {name: each for name, each in known.items() if isinstance(each, kind)}
