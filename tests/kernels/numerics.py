"""How close is close: one bound per number format, and a comparison that says what is wrong."""

import torch
from torch import Tensor

# Relative Frobenius error against float64. `fp8` is a product of already quantised operands, so
# only the bf16 rounding of its result remains; `fp8_cast` is the cast itself.
TOLERANCE = {
    "fp32": 1e-5,
    "fp8_fp32": 1e-3,  # FP8 product left in FP32: the tensor core keeps about 14 bits of a block
    "bf16": 4e-3,
    "bf16_gradient": 1e-2,  # probabilities and their gradients pass through bf16 on the way
    "fp8": 4e-3,
    "fp8_cast": 3.5e-2,
    "tensor_rate": 1e-2,  # FP8 sums of thousands of steps in the tensor core's own precision
    "exact": 0.0,
    "int32": 0.0,
}

POISON = float("nan")


def poison(*tensors: Tensor) -> None:
    """Fill outputs with NaN (or the most negative integer), so that an unwritten one is seen."""
    for tensor in tensors:
        if tensor.dtype == torch.float8_e4m3fn:
            tensor.view(torch.uint8).fill_(0x7F)
        elif tensor.is_floating_point():
            tensor.fill_(POISON)
        else:
            tensor.fill_(torch.iinfo(tensor.dtype).min)


def assert_close(out: Tensor, want: Tensor, format_: str, what: str = "output") -> None:
    """Fail unless shapes agree, `out` is finite and its error is within the format's bound."""
    assert out.shape == want.shape, f"{what}: shape {tuple(out.shape)}, not {tuple(want.shape)}"
    got, want = out.double(), want.double()
    bad = ~torch.isfinite(got) & torch.isfinite(want)
    assert not bad.any(), f"{what}: {int(bad.sum())} of {bad.numel()} not finite, {_worst(bad)}"
    error = (got - want).norm() / want.norm().clamp_min(1e-30)
    gap = (got - want).abs()
    at = _worst(gap)
    assert error <= TOLERANCE[format_], (
        f"{what}: relative error {error:.2e} over {TOLERANCE[format_]:.0e} ({format_}); "
        f"worst at {at}: {got[at].item():.6g}, not {want[at].item():.6g}"
    )


def _worst(gap: Tensor) -> tuple[int, ...]:
    flat = int(gap.reshape(-1).to(torch.float64).argmax())
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), gap.shape))
