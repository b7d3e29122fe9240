"""Block-scaled FP8 product against float64, on ragged shapes."""

import pytest
import torch
from triton.runtime import _allocation

from calibration.measure.numerics import poison
from kernels import fp8_gemm
from kernels._device import with_scratch
from kernels.fp8_gemm import Config
from tests.kernels.numerics import assert_close


def run(m: int, n: int, k: int, config: Config | None = None, sms: int | None = None) -> None:
    args = fp8_gemm.inputs({"m": m, "n": n, "k": k}, "cpu", seed=m + n + k)
    out = torch.empty(m, n, dtype=torch.bfloat16)
    poison(out)
    fp8_gemm.launch(**args, out=out, config=config, sms=sms)
    assert_close(out, fp8_gemm.reference(**args), fp8_gemm.FORMAT)


@pytest.mark.parametrize(
    ("m", "n", "k"), [(128, 128, 128), (1, 8, 16), (200, 264, 400), (65, 392, 128), (300, 136, 272)]
)
def test_ragged(m: int, n: int, k: int) -> None:
    run(m, n, k)


# The last one spills on a GPU; its halves lie in different blocks of the weight's scales.
@pytest.mark.parametrize("config", [*fp8_gemm.CONFIGS, Config(block_n=128, halves=2)])
def test_every_config(config: Config) -> None:
    run(150, 328, 272, config)


@pytest.mark.parametrize("config", fp8_gemm.CONFIGS)
def test_every_config_with_one_step(config: Config) -> None:
    """A config that loads scales a step ahead has no next step here."""
    run(130, 136, 128, config)


@pytest.mark.parametrize("change", [{"block_m": 64}, {"warps": 8}, {"flatten": True}])
def test_specialising_what_the_compiler_cannot_is_refused(change: dict[str, int]) -> None:
    fits = {"block_m": 128, "warps": 4, "flatten": False, "specialize": True}
    Config(**fits)
    with pytest.raises(ValueError, match=r"specialize: .* are needed"):
        Config(**fits | change)


@pytest.mark.parametrize("split_k", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("k", [128, 272, 640])
def test_any_number_of_splits(k: int, split_k: int) -> None:
    """More splits than steps, splits of several steps, and a last one of fewer."""
    run(70, 136, k, Config(block_m=64, warps=4, flatten=False, scales_ahead=True, split_k=split_k))


def test_splits_add_up_in_the_same_way_on_any_number_of_sms() -> None:
    args = fp8_gemm.inputs({"m": 70, "n": 264, "k": 640}, "cpu")
    config = Config(block_m=64, warps=4, flatten=False, split_k=3)
    one, many = (fp8_gemm.launch(**args, config=config, sms=sms) for sms in (1, 7))
    assert torch.equal(one, many)


def test_splits_of_a_product_that_lies_in_a_larger_one() -> None:
    args = fp8_gemm.inputs({"m": 40, "n": 64, "k": 272}, "cpu")
    whole = torch.full((48, 80), 7.0, dtype=torch.bfloat16)
    config = Config(block_m=64, warps=4, flatten=False, split_k=2)
    out = fp8_gemm.launch(**args, out=whole[:40, :64], config=config)
    assert_close(out, fp8_gemm.reference(**args), "fp8")
    whole[:40, :64] = 7.0
    assert (whole == 7.0).all(), "stored outside"


def test_splits_that_the_compiler_cannot_flatten_are_refused() -> None:
    with pytest.raises(ValueError, match="split_k: flatten=True"):
        Config(split_k=2)
    with pytest.raises(ValueError, match=r"split_k: .* specialize=True"):
        Config(warps=4, flatten=False, specialize=True, split_k=2)
    with pytest.raises(ValueError, match="split_k: 0 given"):
        Config(split_k=0)


def test_scratch_leaves_the_callers_allocator_alone() -> None:
    seen = []
    before = _allocation._allocator.get()
    with_scratch(lambda: seen.append(_allocation._allocator.get()))
    assert seen[0] is not before
    assert _allocation._allocator.get() is before


def test_sms_change_nothing() -> None:
    run(300, 264, 144, sms=1)


def test_no_rows() -> None:
    args = fp8_gemm.inputs({"m": 1, "n": 128, "k": 128}, "cpu")
    args["a"], args["sa"] = args["a"][:0], args["sa"][:0]
    assert fp8_gemm.launch(**args).shape == (0, 128)


def test_scales_in_row_order() -> None:
    args = fp8_gemm.inputs({"m": 40, "n": 128, "k": 256}, "cpu")
    args["sa"] = args["sa"].contiguous()
    assert_close(fp8_gemm.launch(**args), fp8_gemm.reference(**args), "fp8")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("a", torch.zeros(4, 128), "float8"),
        ("sa", torch.zeros(4, 2), "shape"),
        ("b", torch.zeros(128, 64).to(torch.float8_e4m3fn), "shape"),
        ("out", torch.zeros(4, 128), "bfloat16"),
    ],
)
def test_bad_input_is_refused(name: str, value: torch.Tensor, says: str) -> None:
    args = fp8_gemm.inputs({"m": 4, "n": 128, "k": 128}, "cpu") | {name: value}
    with pytest.raises(ValueError, match=f"{name}: .*{says}"):
        fp8_gemm.launch(**args)


def test_unaligned_rows_are_refused() -> None:
    args = fp8_gemm.inputs({"m": 4, "n": 128, "k": 120}, "cpu")
    with pytest.raises(ValueError, match="16 bytes"):
        fp8_gemm.launch(**args)
