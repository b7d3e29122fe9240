"""What our kernels should reach on an H100-class GPU, beside what they did."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calibration.judge.folder import Day
from calibration.judge.rates import Rate, rates

Measure = Callable[[Rate], float | None]
Fits = Callable[[dict[str, object]], bool]


@dataclass(frozen=True, slots=True)
class Target:
    """A rate to reach.

    Attributes:
        name: of the kernels and shapes; unit: of the rate.
        least: the rate.
        kernels, fits: whose rows count, and at which shapes.
        measure: the rate of a row, in the unit.
    """

    name: str
    unit: str
    least: float
    kernels: tuple[str, ...]
    measure: Measure
    fits: Fits = lambda shape: True


@dataclass(frozen=True, slots=True)
class Reached:
    """A target, and what was measured; None where nothing was."""

    target: Target
    rate: float | None
    shape: str

    @property
    def met(self) -> bool | None:
        """Whether it was reached; None where nothing was measured."""
        return None if self.rate is None else self.rate >= self.target.least


def _tflops(rate: Rate) -> float | None:
    return None if rate.flops_per_s is None else rate.flops_per_s / 1e12


def _of_copy(rate: Rate) -> float | None:
    return None if rate.of_copy is None else 100 * rate.of_copy


def _large(shape: dict[str, object]) -> bool:
    """The shapes of a layer that keep all SMs at work: 4,096 tokens and both sides wide."""
    return all(int(str(shape.get(side, 0))) >= 4096 for side in "mnk")


def _many_heads(shape: dict[str, object]) -> bool:
    return int(str(shape["heads"])) >= 128


def _few_heads(shape: dict[str, object]) -> bool:
    return int(str(shape["heads"])) <= 32


def _many_rows(shape: dict[str, object]) -> bool:
    """Enough rows that the traffic is not the L2's."""
    return max(int(str(shape.get(name, 0))) for name in ("m", "rows", "tokens")) >= 32768


COPIES = ("moe_permute", "moe_unpermute")
CASTS = ("quantize", "cast_transpose")
NORMS = ("rmsnorm", "rmsnorm_backward")

TARGETS = (
    Target("FP8 block-scaled product, largest", "TFLOPS", 1000, ("fp8_gemm",), _tflops, _large),
    Target("grouped FP8 product", "TFLOPS", 900, ("grouped_gemm",), _tflops),
    Target("permute and un-permute", "% of copy", 85, COPIES, _of_copy, _many_rows),
    Target("casts", "% of copy", 85, CASTS, _of_copy, _many_rows),
    Target("norms", "% of copy", 85, NORMS, _of_copy, _many_rows),
    Target("MLA decode, 128 heads", "TFLOPS", 400, ("mla_decode",), _tflops, _many_heads),
    Target("MLA decode, up to 32 heads", "% of copy", 80, ("mla_decode",), _of_copy, _few_heads),
    Target("MLA prefill", "TFLOPS", 400, ("mla_prefill",), _tflops),
)


def reached(day: Day) -> list[Reached]:
    """Return each target with the best rate among its rows."""
    found = rates(day)
    return [_best(target, found) for target in TARGETS]


def _best(target: Target, found: Sequence[Rate]) -> Reached:
    counted = [
        (rate, value)
        for rate in found
        if rate.kernel in target.kernels
        and target.fits(json.loads(rate.shape))
        and (value := target.measure(rate)) is not None
    ]
    if not counted:
        return Reached(target, None, "")
    best, value = max(counted, key=lambda pair: pair[1])
    return Reached(target, value, f"{best.kernel} {best.shape}")
