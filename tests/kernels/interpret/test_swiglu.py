"""SwiGLU, forward (plain and quantised) and backward, against float64."""

import pytest
import torch

from calibration.measure.numerics import poison
from kernels import quantize, swiglu, swiglu_backward
from kernels._numerics import dequantize_rows
from tests.kernels.numerics import assert_close

SIZES = [(1, 128), (37, 200), (9, 5), (16, 520)]


@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_forward(rows: int, width: int) -> None:
    args = swiglu.inputs({"rows": rows, "width": width, "quantize": 0}, "cpu", seed=rows)
    out = torch.empty(rows, width, dtype=torch.bfloat16)
    poison(out)
    assert_close(swiglu.launch(**args, out=out), swiglu.reference(**args), "bf16")


@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_quantised(rows: int, width: int) -> None:
    args = swiglu.inputs({"rows": rows, "width": width, "quantize": 1}, "cpu", seed=rows)
    out = quantize.empty_quantized(rows, width, torch.device("cpu"))
    poison(*out)
    swiglu.launch(**args, out=out)
    values, scale = swiglu.reference(**args)
    assert_close(out[1], scale, "fp32", "scale")
    assert_close(dequantize_rows(*out), dequantize_rows(values, scale), "bf16")


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # inf is meant: g / inf = 0
def test_large_gates_do_not_overflow() -> None:
    h = torch.tensor([[-200.0, 200.0, 1.0, 1.0]], dtype=torch.bfloat16)
    assert_close(swiglu.launch(h), swiglu.reference(h), "bf16")


@pytest.mark.parametrize("recompute", [0, 1])
@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_backward(rows: int, width: int, recompute: int) -> None:
    shape = {"rows": rows, "width": width, "recompute": recompute}
    args = swiglu_backward.inputs(shape, "cpu", seed=rows)
    out = torch.empty_like(args["h"])
    poison(out, *([args["y"]] if recompute else []))
    assert_close(swiglu_backward.launch(**args, out=out), swiglu_backward.reference(**args), "bf16")
    if recompute:
        assert_close(args["y"], swiglu.reference(args["h"]), "bf16", "recomputed output")


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="h: shape"):
        swiglu.launch(torch.zeros(2, 7, dtype=torch.bfloat16))
    h = torch.zeros(2, 8, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="dy: shape"):
        swiglu_backward.launch(h, torch.zeros(2, 8, dtype=torch.bfloat16))
