"""BF16 product and probes against plain torch, and every op's manners."""

import dataclasses

import pytest
import torch

from calibration.measure.numerics import TOLERANCE, poison
from kernels import (
    bf16_gemm,
    load,
    names,
    occupy,
    probe_copy,
    probe_launch,
    probe_tensor_rate,
)
from tests.kernels.numerics import assert_close


@pytest.mark.parametrize("config", [None, *bf16_gemm.CONFIGS])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 8), (150, 264, 200), (70, 40, 64)])
def test_bf16_gemm(m: int, n: int, k: int, config: bf16_gemm.Config | None) -> None:
    args = bf16_gemm.inputs({"m": m, "n": n, "k": k}, "cpu", seed=m)
    out = torch.empty(m, n, dtype=torch.bfloat16)
    poison(out)
    assert_close(
        bf16_gemm.launch(**args, out=out, config=config), bf16_gemm.reference(**args), "bf16"
    )


@pytest.mark.parametrize("config", [None, *bf16_gemm.CONFIGS])
def test_bf16_gemm_into_fp32(config: bf16_gemm.Config | None) -> None:
    args = bf16_gemm.inputs({"m": 33, "n": 16, "k": 72}, "cpu")
    out = torch.empty(33, 16)
    poison(out)
    assert_close(
        bf16_gemm.launch(**args, out=out, config=config), bf16_gemm.reference(**args), "fp32"
    )


def test_bf16_gemm_that_the_compiler_would_not_specialise_is_refused() -> None:
    with pytest.raises(ValueError, match="specialize: block_m=128, warps=8"):
        bf16_gemm.Config(flatten=False, specialize=True)


@pytest.mark.parametrize("bytes_", [4, 4096 * 4, 70_004])
def test_copy(bytes_: int) -> None:
    args = probe_copy.inputs({"bytes": bytes_}, "cpu")
    out = torch.empty_like(args["x"])
    poison(out)
    assert torch.equal(probe_copy.launch(**args, out=out, sms=1), args["x"])


@pytest.mark.parametrize("format_", ["bf16", "fp8"])
def test_tensor_rate(format_: str) -> None:
    args = probe_tensor_rate.inputs({"format": format_, "programs": 2, "steps": 3}, "cpu")
    assert_close(probe_tensor_rate.launch(**args), probe_tensor_rate.reference(**args), "fp32")


def test_launch_counts() -> None:
    args = probe_launch.inputs({"launches": 7}, "cpu", seed=5)
    assert probe_launch.launch(**args).item() == 12


def test_occupy_copies_and_counts_its_programs() -> None:
    args = occupy.inputs({"sms": 2, "bytes": 3 * occupy.TILE * 4 - 400, "rounds": 2}, "cpu")
    out = torch.empty_like(args["x"])
    poison(out)
    assert torch.equal(occupy.launch(**args, out=out), args["x"])
    assert args["started"].item() == 2


def test_occupy_stops_when_told() -> None:
    args = occupy.inputs({"sms": 1, "bytes": 0, "rounds": 1_000_000}, "cpu")
    args["stop"].fill_(1)
    occupy.launch(**args)
    assert args["started"].item() == 1


@pytest.mark.parametrize("op", names())
def test_every_op_has_what_a_bench_needs(op: str) -> None:
    module = load(op)
    assert module.__doc__.splitlines()[0].endswith((".", ":", "?")) or module.__doc__.strip()
    assert module.PROVIDERS["moesim"] is module.launch
    assert module.FORMAT in TOLERANCE
    assert module.SHAPES
    for shape in module.SHAPES:
        flops, bytes_ = module.work(shape)
        assert flops >= 0
        assert bytes_ >= 0
    for config in getattr(module, "CONFIGS", ()):
        assert dataclasses.is_dataclass(config)


def test_unknown_op_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'fp8_gemm'"):
        load("fp8_gem")
