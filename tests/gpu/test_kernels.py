"""Every kernel on real shapes, fresh random inputs and poisoned outputs, against float64."""

import inspect
from typing import Any
from zlib import crc32

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch and Triton")
pytest.importorskip("triton", reason="needs PyTorch and Triton")

from torch import Tensor  # noqa: E402

from kernels import load, names  # noqa: E402
from kernels._numerics import dequantize_rows  # noqa: E402
from tests.kernels.numerics import assert_close, poison  # noqa: E402

HEADS_MAX = 8  # of training attention: its float64 reference holds whole score matrices
ACCUMULATING = {"fp8_wgrad", "probe_launch"}  # an output that is also an input cannot be poisoned
CASES = [(op, shape) for op in names() for shape in load(op).SHAPES]


def label(value: Any) -> str:
    return "-".join(str(v) for v in value.values()) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("op", "shape"), CASES, ids=label)
def test_against_float64(op: str, shape: dict[str, Any]) -> None:
    module = load(op)
    if op.startswith("mla_prefill"):
        shape = shape | {"heads": min(shape["heads"], HEADS_MAX)}
    args = module.inputs(shape, "cuda", seed=crc32(label(shape).encode()) % 1000)
    want = module.reference(**args)
    compare(module, run(module, args), want)


@pytest.mark.parametrize(
    ("op", "shape"),
    [(op, shape) for op, shape in CASES if hasattr(load(op), "CONFIGS")],
    ids=label,
)
def test_every_configuration_agrees(op: str, shape: dict[str, Any]) -> None:
    module = load(op)
    if op.startswith("mla_prefill"):
        shape = shape | {"heads": min(shape["heads"], HEADS_MAX)}
    for number, config in enumerate(module.CONFIGS):
        args = module.inputs(shape, "cuda", seed=number)
        want = module.reference(**args)
        compare(module, run(module, args, config=config), want)


@pytest.mark.parametrize("sms", [1, 20, 112])
@pytest.mark.parametrize(
    "op",
    [
        op
        for op in names()
        if "sms" in inspect.signature(load(op).launch).parameters and op != "occupy"
    ],
)
def test_fewer_sms_change_nothing(op: str, sms: int) -> None:
    module = load(op)
    args = module.inputs(module.SHAPES[-1], "cuda", seed=sms)
    want = module.reference(**args)
    compare(module, run(module, args, sms=sms), want)


@pytest.mark.parametrize(
    ("op", "shape", "provider"),
    [(op, shape, p) for op, shape in CASES for p in load(op).PROVIDERS if p != "moesim"],
    ids=label,
)
def test_providers_compute_the_same(op: str, shape: dict[str, Any], provider: str) -> None:
    module = load(op)
    if op.startswith("mla_prefill"):
        shape = shape | {"heads": min(shape["heads"], HEADS_MAX)}
    args = module.inputs(shape, "cuda")
    want = as_tuple(module.reference(**args))
    adapted = getattr(module, "ADAPT", {}).get(provider, lambda same: same)(args)
    try:
        out = as_tuple(module.PROVIDERS[provider](**adapted))
    except (NotImplementedError, RuntimeError, AttributeError, ValueError) as error:
        pytest.skip(f"{provider} does not offer this: {str(error).splitlines()[0]}")
    compare(module, out, want[: len(out)])


def test_two_runs_give_the_same_bits() -> None:
    """No kernel here sums in an order that depends on timing."""
    for op in ("mla_prefill_backward", "rmsnorm_backward", "moe_map", "grouped_gemm"):
        module = load(op)
        shape = module.SHAPES[-1]
        args = module.inputs(shape, "cuda")
        first, second = (as_tuple(module.launch(**args)) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a.nan_to_num(), b.nan_to_num()), op


def run(module: Any, args: dict[str, Any], **options: Any) -> tuple[Tensor, ...]:
    """Launch once to learn the outputs, poison them, and launch again into them."""
    name = module.__name__.split(".")[-1]
    if name in ACCUMULATING:
        return as_tuple(module.launch(**args, **options))
    out = module.launch(**args, **options)
    poison(*as_tuple(out))
    for extra in ("stop", "started"):
        if extra in args:
            args[extra].zero_()
    if "out" in inspect.signature(module.launch).parameters:
        out = module.launch(**args, **options, out=out)
    else:
        out = module.launch(**args, **options)
    torch.cuda.synchronize()
    return as_tuple(out)


def compare(module: Any, out: tuple[Tensor, ...], want: Any) -> None:
    """Compare each output; a quantised one together with its scales."""
    want = as_tuple(want)
    out = out[: len(want)]
    if module.__name__.endswith("router"):
        # Two scores within an ulp may change places: the GPU's exponential is not torch's.
        same = (out[0] == want[0]).all(1)
        assert same.float().mean() > 0.999
        assert_close(out[1][same], want[1][same], module.FORMAT, "weights")
        return
    fp8 = [i for i, t in enumerate(want) if t.dtype == torch.float8_e4m3fn]
    if fp8:
        for i in fp8:
            got, right = dequantize_rows(*out[i : i + 2]), dequantize_rows(*want[i : i + 2])
            assert_close(got, right, "fp8", f"output {i}")
        return
    for i, (got, right) in enumerate(zip(out, want, strict=True)):
        used = ~right.double().isnan()  # NaN in a reference: rows of nobody
        if not right.is_floating_point():
            assert torch.equal(got.int(), right.int()), f"output {i}"
        else:
            assert_close(got[used], right[used], module.FORMAT, f"output {i}")


def as_tuple(out: Any) -> tuple[Tensor, ...]:
    return tuple(out) if isinstance(out, tuple | list) else (out,)
