"""What our kernels should reach on an H100-class GPU, beside what they did.

A target names its shapes: the largest of DeepSeek-V3 for its kernel. It is judged by the slowest of
them, and met only where all of them were measured and the kernel's numbers are right.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibration.judge.folder import Day
from calibration.judge.rates import Rate, rates
from calibration.measure.measurement import shape_text

Shape = Mapping[str, Any]
Measure = Callable[[Rate], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    """A rate to reach.

    Attributes:
        name: for people; unit: of the rate.
        least: the rate.
        kernel, shapes: whose rows count.
        measure: the rate of a row in the unit; None where what it is measured by is missing.
        without: why it is None then.
    """

    name: str
    kernel: str
    shapes: tuple[Shape, ...]
    least: float
    unit: str
    measure: Measure
    without: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target beside what was measured.

    Attributes:
        rate: of the slowest shape measured, in the unit; None where none was.
        shape: that shape, as JSON; empty where none was.
        measured, shapes: how many of how many.
        met: whether the target was reached; None where the day cannot tell.
        why: it cannot, or what is missing; empty where all is there.
    """

    target: str
    kernel: str
    least: float
    unit: str
    rate: float | None
    shape: str
    measured: int
    shapes: int
    met: bool | None
    why: str


def _tflops(rate: Rate) -> float | None:
    return None if rate.flops_per_s is None else rate.flops_per_s / 1e12


def _of_copy(rate: Rate) -> float | None:
    return None if rate.of_copy is None else 100 * rate.of_copy


def _of_library(rate: Rate) -> float | None:
    return None if rate.of_library is None else 100 * rate.of_library


TFLOPS = ("TFLOPS", _tflops, "no FLOPs counted")
OF_COPY = ("% of copy", _of_copy, "no copy measured")
OF_LIBRARY = ("% of the best provider", _of_library, "no other provider measured")

GEMMS = tuple(
    {"m": 4096, "n": n, "k": k}
    for n, k in ((7168, 16384), (16384, 7168), (36864, 7168), (7168, 36864), (18432, 7168),
                 (7168, 18432))
)  # fmt: skip
"""Products of the training step of a TFLOP and more; the smaller ones have too few tiles."""

GROUPED = tuple(
    {"counts": (8192,) * 4, "n": n, "k": k, "masked": 0}
    for n, k in ((4096, 7168), (7168, 2048), (7168, 4096), (2048, 7168))
)
_DISPATCHED = {"tokens": 30720, "rows": 32768, "top_k": 8, "experts": 4, "hidden": 7168}
_LOCAL = {"tokens": 4096, "rows": 32768, "top_k": 8, "experts": 256, "hidden": 7168}

TARGETS = (
    Target("FP8 block-scaled product", "fp8_gemm", GEMMS, 1000, *TFLOPS),
    Target("grouped FP8 product", "grouped_gemm", GROUPED, 900, *TFLOPS),
    Target("grouped FP8 product, beside libraries", "grouped_gemm", GROUPED, 85, *OF_LIBRARY),
    Target(
        "permute", "moe_permute",
        ({**_DISPATCHED, "fp8": 1}, {**_DISPATCHED, "fp8": 0}, {**_LOCAL, "fp8": 1}), 85, *OF_COPY,
    ),
    Target(
        "un-permute", "moe_unpermute",
        ({**_DISPATCHED, "weighted": 1}, {**_DISPATCHED, "weighted": 0}, {**_LOCAL, "weighted": 1}),
        85, *OF_COPY,
    ),
    Target(
        "cast", "quantize", tuple({"m": 32768, "k": k} for k in (7168, 4096, 2048)), 85, *OF_COPY
    ),
    Target(
        "cast and transpose", "cast_transpose",
        ({"m": 32768, "k": 4096, "from_fp8": 0}, {"m": 32768, "k": 7168, "from_fp8": 1},
         {"m": 32768, "k": 2048, "from_fp8": 1}), 85, *OF_COPY,
    ),
    Target("norm", "rmsnorm", ({"m": 32768, "k": 7168, "residual": 1},), 85, *OF_COPY),
    Target(
        "norm backward", "rmsnorm_backward", ({"m": 32768, "k": 7168, "residual": 1},), 85, *OF_COPY
    ),
    Target(
        "MLA decode, 128 heads", "mla_decode",
        ({"batch": 128, "heads": 128, "length": 4096, "ragged": 0},
         {"batch": 64, "heads": 128, "length": 8192, "ragged": 0}), 400, *TFLOPS,
    ),
    Target(
        "MLA decode, up to 32 heads", "mla_decode",
        ({"batch": 128, "heads": 16, "length": 4096, "ragged": 0},
         {"batch": 32, "heads": 32, "length": 16384, "ragged": 0}), 80, *OF_COPY,
    ),
    Target(
        "MLA prefill", "mla_prefill",
        ({"batch": 1, "length": 4096, "heads": 128}, {"batch": 8, "length": 4096, "heads": 16},
         {"batch": 1, "length": 16384, "heads": 16}), 400, *TFLOPS,
    ),
)  # fmt: skip


def verdicts(day: Day) -> list[Verdict]:
    """Return each target with the rate of its slowest shape."""
    found = {(rate.kernel, rate.shape): rate for rate in rates(day)}
    return [_verdict(target, day, found) for target in TARGETS]


def _verdict(target: Target, day: Day, found: Mapping[tuple[str, str], Rate]) -> Verdict:
    shapes = [shape_text(shape) for shape in target.shapes]
    ran = [found[target.kernel, shape] for shape in shapes if (target.kernel, shape) in found]
    judged = [(value, rate.shape) for rate in ran if (value := target.measure(rate)) is not None]
    value, shape = min(judged, default=(None, ""))
    why = _why(target, day, len(ran), len(judged))
    met: bool | None
    if value is None or target.kernel not in day.checked:
        met = None
    elif value < target.least:
        met = False  # whatever the shapes that are missing would show
    else:
        met = True if len(judged) == len(shapes) else None
    return Verdict(
        target=target.name,
        kernel=target.kernel,
        least=target.least,
        unit=target.unit,
        rate=value,
        shape=shape,
        measured=len(judged),
        shapes=len(shapes),
        met=met,
        why=why,
    )


def _why(target: Target, day: Day, ran: int, judged: int) -> str:
    """Return what stands in the way of a verdict, or of a whole one."""
    wrong = [each for each in day.wrong if each.kernel == target.kernel and not each.config]
    if wrong:
        return f"numbers {wrong[0].verdict}: {wrong[0].note}"
    if ran and target.kernel not in day.checked:
        return "its numbers were not checked"
    if judged < ran:
        return target.without
    failed = _failed(day, target)
    if failed:
        return f"{len(failed)} of {len(target.shapes)} shapes failed: {failed[0]}"
    if ran < len(target.shapes):
        return f"{len(target.shapes) - ran} of {len(target.shapes)} shapes not measured"
    return ""


def _failed(day: Day, target: Target) -> Sequence[str]:
    shapes = {shape_text(shape) for shape in target.shapes}
    return [
        row.error
        for row in day.failed
        if row.kernel == target.kernel
        and row.shape in shapes
        and (row.provider, row.mode, row.config, row.sustained) == ("moesim", "isolated", "", 0)
    ]
