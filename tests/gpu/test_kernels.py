"""Every kernel on real shapes, fresh random inputs and poisoned outputs, against float64."""

import inspect
from typing import Any
from zlib import crc32

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch and Triton")
pytest.importorskip("triton", reason="needs PyTorch and Triton")

from calibration.measure.numerics import as_tuple, check, checked_shape, compare  # noqa: E402
from kernels import load, names  # noqa: E402


def checks(op: str) -> tuple[dict[str, Any], ...]:
    """Shapes at which an op's numbers are compared: its own, or those it says are fit for that."""
    module = load(op)
    return getattr(module, "CHECKED", module.SHAPES)


CASES = [(op, shape) for op in names() for shape in checks(op)]


REFUSALS = {"fp8_gemm": (AttributeError, RuntimeError, ValueError)}
"""What a library's version of an op may raise beside NotImplementedError: products with block
scales are new to torch, which has no name for them, or refuses them on this device or shape.
"""


def label(value: Any) -> str:
    return "-".join(str(v) for v in value.values()) if isinstance(value, dict) else str(value)


def assert_right(op: str, shape: dict[str, Any], **options: Any) -> None:
    wrong = [found for found in check(op, shape, "cuda", **options) if not found.ok]
    assert not wrong, wrong


@pytest.mark.parametrize(("op", "shape"), CASES, ids=label)
def test_against_float64(op: str, shape: dict[str, Any]) -> None:
    assert_right(op, shape, seed=crc32(label(shape).encode()) % 1000)


@pytest.mark.parametrize(
    ("op", "shape"),
    [(op, shape) for op, shape in CASES if hasattr(load(op), "CONFIGS")],
    ids=label,
)
def test_every_configuration_agrees(op: str, shape: dict[str, Any]) -> None:
    for number, config in enumerate(load(op).CONFIGS):
        assert_right(op, shape, seed=number, config=config)


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
    assert_right(op, checks(op)[-1], seed=sms, sms=sms)


@pytest.mark.parametrize(
    ("op", "shape", "provider"),
    [(op, shape, p) for op, shape in CASES for p in load(op).PROVIDERS if p != "moesim"],
    ids=label,
)
def test_providers_compute_the_same(op: str, shape: dict[str, Any], provider: str) -> None:
    module = load(op)
    args = module.inputs(checked_shape(op, shape), "cuda")
    want = as_tuple(module.reference(**args))
    adapted = getattr(module, "ADAPT", {}).get(provider, lambda same: same)(args)
    try:
        out = as_tuple(module.PROVIDERS[provider](**adapted))
    except (NotImplementedError, *REFUSALS.get(op, ())) as error:
        torch.cuda.synchronize()  # a device that failed has refused nothing: this raises
        pytest.skip(f"{provider} does not offer this: {str(error).splitlines()[0]}")
    wrong = [found for found in compare(op, out, want[: len(out)]) if not found.ok]
    assert not wrong, wrong


def test_two_runs_give_the_same_bits() -> None:
    """No kernel here sums in an order that depends on timing."""
    for op in ("mla_prefill_backward", "rmsnorm_backward", "moe_map", "grouped_gemm"):
        module = load(op)
        shape = module.SHAPES[-1]
        args = module.inputs(shape, "cuda")
        first, second = (as_tuple(module.launch(**args)) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a.nan_to_num(), b.nan_to_num()), op
