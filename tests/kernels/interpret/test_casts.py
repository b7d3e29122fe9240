"""Quantiser and cast with transpose: torch's values, on ragged shapes and extreme inputs."""

import pytest
import torch
from torch import Tensor

from calibration.measure.numerics import poison
from kernels import cast_transpose, fp8_wgrad, quantize
from kernels._numerics import dequantize_rows
from tests.kernels.numerics import assert_close

SIZES = [(1, 128), (33, 200), (130, 392), (5, 7), (128, 16)]


def same_cast(out: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor]) -> None:
    """Values and scales agree; here and there a division rounds the other way."""
    assert_close(out[1], want[1], "fp32", "scale")
    assert_close(dequantize_rows(*out), dequantize_rows(*want), "fp8", "values")
    differ = (out[0].float() != want[0].float()).float().mean()
    assert differ < 0.01


def matrix(m: int, k: int) -> Tensor:
    x = quantize.inputs({"m": m, "k": k}, "cpu", seed=m * k)["x"]
    x[0, : min(k, 128)] = 0  # a block of zeros
    x[-1] *= 2.0**40
    return x


@pytest.mark.parametrize(("m", "k"), SIZES)
@pytest.mark.parametrize("config", quantize.CONFIGS[:2])
def test_quantize(m: int, k: int, config: quantize.Config) -> None:
    x = matrix(m, k)
    out = quantize.empty_quantized(m, k, x.device)
    poison(*out)
    quantize.launch(x, out=out, config=config)
    same_cast(out, quantize.reference(x))


def test_quantize_is_as_close_as_the_format_allows() -> None:
    x = quantize.inputs({"m": 64, "k": 512}, "cpu")["x"]
    assert_close(dequantize_rows(*quantize.launch(x)), x, "fp8_cast")


def test_quantize_strided_rows() -> None:
    x = matrix(20, 600)[:, 16:272]
    same_cast(quantize.launch(x), quantize.reference(x))


@pytest.mark.parametrize(("m", "k"), SIZES)
def test_cast_transpose(m: int, k: int) -> None:
    x = matrix(m, k)
    out = cast_transpose.empty_outputs(m, k, x.device, from_fp8=False)
    poison(*out)
    cast_transpose.launch(x, out=out)
    want = cast_transpose.reference(x)
    same_cast(out[:2], want[:2])
    same_cast(out[2:], want[2:])


@pytest.mark.parametrize(("m", "k"), SIZES)
def test_transpose_from_fp8(m: int, k: int) -> None:
    x, scale = quantize.reference(matrix(m, k))
    out = cast_transpose.empty_outputs(m, k, x.device, from_fp8=True)
    poison(*out)
    cast_transpose.launch(x, scale, out=out)
    same_cast(out, cast_transpose.reference(x, scale))


def test_result_feeds_the_weight_gradient() -> None:
    dy, x = matrix(75, 64), matrix(75, 96)
    a, b = cast_transpose.launch(dy)[2:], cast_transpose.launch(x)[2:]
    one = {
        "starts": torch.tensor([0], dtype=torch.int32),
        "counts": torch.tensor([75], dtype=torch.int32),
        "out": torch.zeros(1, 64, 96),
    }
    want = fp8_wgrad.reference(*a, *b, **one)
    assert_close(fp8_wgrad.launch(*a, *b, **one), want, "fp32")


def test_no_rows() -> None:
    assert quantize.launch(torch.empty(0, 128, dtype=torch.bfloat16))[0].shape == (0, 128)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="x: 1 dimensions"):
        quantize.launch(torch.zeros(4, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"x: .*float64"):
        quantize.launch(torch.zeros(4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="contiguous"):
        quantize.launch(torch.zeros(4, 8, dtype=torch.bfloat16).t())
    with pytest.raises(ValueError, match="scale: shape"):
        cast_transpose.launch(torch.zeros(4, 8).to(torch.float8_e4m3fn), torch.zeros(4, 2))
