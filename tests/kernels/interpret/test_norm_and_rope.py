"""RMS norm (forward, backward) and rotary embedding against float64."""

import pytest
import torch

from calibration.measure.numerics import poison
from kernels import rmsnorm, rmsnorm_backward, rope
from tests.kernels.numerics import assert_close

SIZES = [(1, 128), (7, 200), (5, 1999), (40, 33)]


@pytest.mark.parametrize("residual", [0, 1])
@pytest.mark.parametrize(("m", "k"), SIZES)
def test_forward(m: int, k: int, residual: int) -> None:
    args = rmsnorm.inputs({"m": m, "k": k, "residual": residual}, "cpu", seed=k)
    out = tuple(torch.empty_like(t) for t in rmsnorm.launch(**args))
    poison(*out)
    rmsnorm.launch(**args, out=out)
    want = rmsnorm.reference(**args)
    assert len(out) == len(want) == 2 + residual
    for got, right, format_ in zip(out, want, ("bf16", "fp32", "bf16"), strict=False):
        assert_close(got, right, format_)


@pytest.mark.parametrize("residual", [0, 1])
@pytest.mark.parametrize(("m", "k"), SIZES)
def test_backward(m: int, k: int, residual: int) -> None:
    args = rmsnorm_backward.inputs({"m": m, "k": k, "residual": residual}, "cpu", seed=k)
    out = (torch.empty_like(args["s"]), torch.empty(k))
    poison(*out)
    rmsnorm_backward.launch(**args, out=out, sms=2)
    want = rmsnorm_backward.reference(**args)
    assert_close(out[0], want[0], "bf16", "dx")
    assert_close(out[1], want[1], "fp32", "dw")


def test_backward_is_the_gradient_of_forward() -> None:
    x = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    w = torch.randn(16, dtype=torch.float64, requires_grad=True)
    y, rstd = rmsnorm.reference(x, w)
    dy = torch.randn_like(y)
    y.backward(dy)
    dx, dw = rmsnorm_backward.reference(x.detach(), rstd.detach(), w.detach(), dy)
    assert_close(dx, x.grad, "fp32")
    assert_close(dw, w.grad, "fp32")


@pytest.mark.parametrize(
    ("tokens", "heads", "dim", "row"), [(5, 3, 64, 192), (40, 1, 64, 576), (3, 2, 6, 10)]
)
def test_rope(tokens: int, heads: int, dim: int, row: int) -> None:
    shape = {"tokens": tokens, "heads": heads, "dim": dim, "row": row}
    args = rope.inputs(shape, "cpu", seed=tokens)
    out = torch.empty(tokens, heads, dim, dtype=torch.bfloat16)
    poison(out)
    assert_close(rope.launch(**args, out=out), rope.reference(**args), "bf16")


def test_rope_in_place_touches_only_its_channels() -> None:
    args = rope.inputs({"tokens": 6, "heads": 2, "dim": 64, "row": 192}, "cpu")
    whole, want = args["x"]._base, rope.reference(**args)
    rest = whole[..., :128].clone()
    rope.launch(**args, out=args["x"])
    assert_close(args["x"], want, "bf16")
    assert torch.equal(whole[..., :128], rest)


def test_inverse_turns_back() -> None:
    args = rope.inputs({"tokens": 6, "heads": 2, "dim": 64, "row": 64}, "cpu")
    there = rope.launch(**args)
    back = rope.launch(there, args["cos"], args["sin"], inverse=True)
    assert_close(back, args["x"], "bf16")


def test_bad_input_is_refused() -> None:
    x, w = torch.zeros(4, 8, dtype=torch.bfloat16), torch.zeros(8, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="w: shape"):
        rmsnorm.launch(x, w[:4])
    with pytest.raises(ValueError, match="contiguous"):
        rmsnorm.launch(x.expand(4, 8).t(), w[:4])
    with pytest.raises(ValueError, match="cos: shape"):
        rope.launch(x[:, None], torch.zeros(4, 8), torch.zeros(4, 4))
