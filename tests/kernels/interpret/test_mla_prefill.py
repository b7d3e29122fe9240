"""MLA training attention against float64: forward and backward, ragged lengths."""

import pytest
import torch

from calibration.measure.numerics import poison
from kernels import mla_prefill, mla_prefill_backward
from tests.kernels.numerics import assert_close

SHAPES = [(1, 64, 1), (2, 37, 2), (1, 200, 1), (1, 1, 2)]


@pytest.mark.parametrize("config", mla_prefill.CONFIGS)
@pytest.mark.parametrize(("batch", "length", "heads"), SHAPES)
def test_forward(batch: int, length: int, heads: int, config: mla_prefill.Config) -> None:
    shape = {"batch": batch, "length": length, "heads": heads}
    args = mla_prefill.inputs(shape, "cpu", seed=length)
    out = (torch.empty_like(args["v"]), torch.empty(batch, heads, length))
    poison(*out)
    mla_prefill.launch(**args, out=out, config=config)
    want = mla_prefill.reference(**args)
    assert_close(out[0], want[0], "bf16", "o")
    assert_close(out[1], want[1], "fp32", "lse")


def test_large_scores_do_not_overflow() -> None:
    args = mla_prefill.inputs({"batch": 1, "length": 40, "heads": 1}, "cpu")
    args["q"] *= 100
    assert_close(mla_prefill.launch(**args)[0], mla_prefill.reference(**args)[0], "bf16")


def test_bad_input_is_refused() -> None:
    args = mla_prefill.inputs({"batch": 1, "length": 8, "heads": 2}, "cpu")
    with pytest.raises(ValueError, match="k: shape"):
        mla_prefill.launch(args["q"], args["v"], args["v"])
    with pytest.raises(ValueError, match="contiguous"):
        mla_prefill.launch(
            args["q"], args["k"].transpose(1, 2).contiguous().transpose(1, 2), args["v"]
        )


@pytest.mark.parametrize(
    "config",
    [mla_prefill_backward.Config(), mla_prefill_backward.Config(inner_dkv=32, outer_dq=64)],
)
@pytest.mark.parametrize(("batch", "length", "heads"), SHAPES)
def test_backward(batch: int, length: int, heads: int, config: mla_prefill_backward.Config) -> None:
    shape = {"batch": batch, "length": length, "heads": heads}
    args = mla_prefill_backward.inputs(shape, "cpu", seed=length)
    out = tuple(torch.empty_like(args[name]) for name in ("q", "k", "v"))
    poison(*out)
    mla_prefill_backward.launch(**args, out=out, config=config)
    want = mla_prefill_backward.reference(**args)
    for name, got, right in zip(("dq", "dk", "dv"), out, want, strict=True):
        if length > 1 or name == "dv":  # one key: its probability is 1, dq and dk are rounding
            assert_close(got, right, mla_prefill_backward.FORMAT, name)
