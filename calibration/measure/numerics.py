"""Whether a kernel computes what its reference says, on this machine: poisoned outputs, float64.

A kernel that is wrong has no speed worth measuring. Each number format has one bound on the
relative Frobenius error; quantised outputs are compared together with their scales; rows that the
reference leaves NaN belong to nobody.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels import load
from kernels._device import FP8
from kernels._numerics import dequantize_rows

# `fp8` is a product of already quantised operands, so only the bf16 rounding of its result remains;
# `fp8_cast` is the cast itself.
TOLERANCE = {
    "fp32": 1e-5,
    "fp8_fp32": 1e-3,  # FP8 product left in FP32: the tensor core keeps about 14 bits of a block
    "bf16": 4e-3,
    "bf16_gradient": 1e-2,  # probabilities and their gradients pass through bf16 on the way
    "fp8": 4e-3,
    "fp8_cast": 3.5e-2,
    "tensor_rate": 1e-2,  # FP8 sums of several blocks in the tensor core's own precision
    "exact": 0.0,
    "int32": 0.0,
}

HEADS_MAX = 8
"""Of training attention: its float64 reference holds whole score matrices."""

ROUTED_ALIKE = 0.999
"""Share of tokens that must have the same experts: two scores within an ulp may change places, as
the GPU's exponential is not torch's."""

IN_PLACE = frozenset({"fp8_wgrad", "probe_launch"})
"""Kernels one of whose outputs is an input too, and cannot be poisoned."""


@dataclass(frozen=True, slots=True)
class Closeness:
    """How near one output came.

    Attributes:
        output: which one.
        error: relative Frobenius error against float64, infinite where nothing can be compared.
        bound: the largest allowed.
        note: where it is worst, or why it cannot be compared.
    """

    output: str
    error: float
    bound: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the output is right."""
        return self.error <= self.bound


def checked_shape(op: str, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Return a shape whose reference fits on the device."""
    if op.startswith("mla_prefill"):
        return {**shape, "heads": min(shape["heads"], HEADS_MAX)}
    return dict(shape)


def check(
    op: str, shape: Mapping[str, Any], device: Any, *, seed: int = 0, **options: Any
) -> list[Closeness]:
    """Run our kernel on fresh inputs into poisoned outputs and compare them with the reference.

    Args:
        options: of the launch, such as `config` or `sms`.
    """
    module = load(op)
    args = module.inputs(checked_shape(op, shape), device, seed=seed)
    want = as_tuple(module.reference(**args))
    return list(compare(op, run_poisoned(op, args, **options), want))


def run_poisoned(op: str, args: dict[str, Any], **options: Any) -> tuple[Tensor, ...]:
    """Launch once to learn the outputs, poison them, and launch again into them."""
    module = load(op)
    if op in IN_PLACE:
        return as_tuple(module.launch(**args, **options))
    out = module.launch(**args, **options)
    poison(*as_tuple(out))
    for flag in ("stop", "started"):
        if flag in args:
            args[flag].zero_()
    if "out" in inspect.signature(module.launch).parameters:
        options["out"] = out
    return as_tuple(module.launch(**args, **options))


def compare(op: str, out: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> Iterator[Closeness]:
    """Yield how near each output is to the reference's; a quantised one with its scales."""
    format_ = load(op).FORMAT
    if op == "router":
        yield from _compare_routes(out, want, format_)
        return
    quantised = [i for i, tensor in enumerate(want) if tensor.dtype == FP8]
    for i in quantised:
        got, right = dequantize_rows(*out[i : i + 2]), dequantize_rows(*want[i : i + 2])
        yield closeness(got, right, "fp8", f"output {i}")
    if quantised:
        return
    for i, (got, right) in enumerate(zip(out, want, strict=False)):
        if not right.is_floating_point():
            same = torch.equal(got.int(), right.int())
            yield Closeness(
                f"output {i}", 0.0 if same else torch.inf, 0.0, "" if same else "unlike"
            )
            continue
        used = ~right.double().isnan()
        yield closeness(got.double()[used], right.double()[used], format_, f"output {i}")


def _compare_routes(
    out: tuple[Tensor, ...], want: tuple[Tensor, ...], format_: str
) -> Iterator[Closeness]:
    same = (out[0] == want[0]).all(1)
    yield Closeness("experts", float(1 - same.float().mean()), 1 - ROUTED_ALIKE)
    yield closeness(out[1][same], want[1][same], format_, "weights")


def closeness(got: Tensor, want: Tensor, format_: str, output: str = "output") -> Closeness:
    """Return how near `got` is to `want`, within the bound of a format."""
    bound = TOLERANCE[format_]
    if got.shape != want.shape:
        note = f"shape {tuple(got.shape)}, not {tuple(want.shape)}"
        return Closeness(output, torch.inf, bound, note)
    got, want = got.double(), want.double()
    bad = ~torch.isfinite(got) & torch.isfinite(want)
    if bad.any():
        note = f"{int(bad.sum())} of {bad.numel()} not finite, first at {_worst(bad)}"
        return Closeness(output, torch.inf, bound, note)
    # An infinity that is meant, such as the lse of no keys, is no error.
    gap = (got - want).masked_fill(got == want, 0.0)
    error = float(gap.norm() / want[torch.isfinite(want)].norm().clamp_min(1e-30))
    if error <= bound:
        return Closeness(output, error, bound)
    at = _worst(gap.abs())
    note = f"({format_}) worst at {at}: {got[at].item():.6g}, not {want[at].item():.6g}"
    return Closeness(output, error, bound, note)


def poison(*tensors: Tensor) -> None:
    """Fill outputs with NaN (or the most negative integer), so that an unwritten one is seen."""
    for tensor in tensors:
        if tensor.dtype == FP8:
            tensor.view(torch.uint8).fill_(0x7F)
        elif tensor.is_floating_point():
            tensor.fill_(torch.nan)
        else:
            tensor.fill_(torch.iinfo(tensor.dtype).min)


def as_tuple(out: Any) -> tuple[Tensor, ...]:
    """Return one output or several as a tuple."""
    return tuple(out) if isinstance(out, tuple | list) else (out,)


def _worst(gap: Tensor) -> tuple[int, ...]:
    flat = int(gap.reshape(-1).to(torch.float64).argmax())
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), gap.shape))
