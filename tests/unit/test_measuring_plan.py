"""The measuring plan, and that kernels count work as the priced ops do."""

import json
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs PyTorch and Triton")

from calibration.measure.measurement import Point, read_plan
from calibration.measure.plan import (
    GEMM_ANCHORS,
    device_time_s,
    op_point,
    plan,
    plan_text,
)
from calibration.model_ops import measurable, model_ops
from hwmodels.errors import CalibrationError, InfeasibleError
from hwmodels.formats import FORMATS
from kernels import load, names
from workloads.model import MODELS
from workloads.ops import Attention, Gemm, Op


@pytest.mark.parametrize(("quick", "limit_s"), [(True, 60), (False, 180)])
def test_a_plan_fits_its_time(quick: bool, limit_s: float) -> None:
    points = plan(model_ops(MODELS.load("deepseek-v3")), quick=quick)
    assert 0 < device_time_s(points) < limit_s
    assert len({point.key for point in points}) == len(points)
    assert {point.kernel for point in points} <= set(names())


def test_every_family_has_its_anchors() -> None:
    assert len(GEMM_ANCHORS) == len(set(GEMM_ANCHORS)) == 24
    points = plan()
    for kernel in ("bf16_gemm", "fp8_gemm", "fp8_wgrad", "grouped_gemm", "mla_decode"):
        assert sum(point.kernel == kernel for point in points) >= 24
    assert {point.mode for point in points} == {"isolated", "limited", "beside"}
    assert any(point.sustained for point in points)


def test_ops_come_first_and_lead_the_shapes() -> None:
    op = {"kernel": "fp8_gemm", "shape": {"m": 4096, "n": 640, "k": 384}, "mode": "beside"}
    points = plan([op], quick=True)
    assert points[0] == Point("fp8_gemm", op["shape"], mode="beside", held_sms=20)
    near = {(640, 384), (960, 384), (448, 384), (640, 512), (640, 576), (640, 256)}
    drawn = {(p.shape["n"], p.shape["k"]) for p in points if p.kernel == "bf16_gemm"}
    assert drawn & near


def test_a_plan_is_the_same_every_time_and_reads_back(tmp_path: Path) -> None:
    text = plan_text(plan(quick=True))
    assert text == plan_text(plan(quick=True))
    path = tmp_path / "plan.json"
    path.write_text(text)
    assert [p.key for p in read_plan(path)] == [p.key for p in plan(quick=True)]
    assert json.loads(text)["device_time_estimate_s"] < 60


@pytest.mark.parametrize(
    "op",
    [
        {"kernel": "fp8_gemm"},
        {"kernel": "fp8_gemm", "shape": {}, "colour": 1},
        {"kernel": "fp8_gemm", "shape": {}, "mode": "alone"},
    ],
)
def test_a_wrong_op_is_refused(op: dict) -> None:
    with pytest.raises(CalibrationError):
        op_point(op)


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(CalibrationError, match="did you mean 'fp8_gemm'"):
        device_time_s([Point("fp8_gem", {"m": 1})])


FP8, BF16 = FORMATS["fp8_1x128"], FORMATS["bf16"]


@pytest.mark.parametrize(
    ("kernel", "shape", "op"),
    [
        ("bf16_gemm", {"m": 96, "n": 256, "k": 7168}, Gemm("gate", 96, 256, 7168, BF16)),
        ("fp8_gemm", {"m": 96, "n": 512, "k": 7168}, Gemm("q", 96, 512, 7168, FP8)),
        (
            "grouped_gemm",
            {"counts": (64, 32), "n": 512, "k": 7168, "masked": 0},
            Gemm("up", 96, 512, 7168, FP8, groups=2, routed=True),
        ),
        (
            "fp8_wgrad",
            {"counts": (64, 32), "m": 512, "n": 7168},
            Gemm("up", 512, 7168, 96, FP8, role="wgrad", groups=2, routed=True),
        ),
        (
            "mla_prefill",
            {"batch": 2, "length": 512, "heads": 8},
            Attention("core", 2, 512, 8, 8, 192, 128),
        ),
        (
            "mla_prefill_backward",
            {"batch": 2, "length": 512, "heads": 8},
            Attention("core", 2, 512, 8, 8, 192, 128, backward=True),
        ),
    ],
)
def test_a_kernel_counts_work_as_the_priced_op_does(
    kernel: str, shape: dict, op: Gemm | Attention
) -> None:
    assert load(kernel).work(shape) == (op.flops, op.bytes)


V3_OPS = list(measurable(MODELS.load("deepseek-v3")))
BF16_WGRAD_IN_FP32 = "ours writes 2 bytes where the op reads and writes an FP32 gradient"


@pytest.mark.parametrize(
    ("kernel", "shape", "op"), [pytest.param(*row, id=f"{row[0]}-{row[2].name}") for row in V3_OPS]
)
def test_what_the_plan_measures_is_what_is_priced(kernel: str, shape: dict, op: Op) -> None:
    """The same FLOPs; the same bytes but for FP8 scales and index tables, at most 1.6 %."""
    flops, size = load(kernel).work(shape)
    assert flops == op.flops
    if isinstance(op, Gemm) and op.format is BF16 and op.role == "wgrad":
        assert op.bytes - size == 6 * op.m * op.n, BF16_WGRAD_IN_FP32
    else:
        assert size == pytest.approx(op.bytes, rel=0.016)


def test_the_plan_covers_every_product_and_attention_core_of_the_model() -> None:
    kernels = [kernel for kernel, _, _ in V3_OPS]
    assert {"fp8_gemm", "grouped_gemm", "fp8_wgrad", "bf16_gemm"} <= set(kernels)
    assert {"mla_prefill", "mla_prefill_backward", "quantize", "rmsnorm", "rope"} <= set(kernels)
    assert len(plan(model_ops(MODELS.load("deepseek-v3")))) > len(plan())


def test_a_model_without_training_kernels_has_no_plan() -> None:
    with pytest.raises(InfeasibleError, match=r"qwen2\.5-72b"):
        model_ops(MODELS.load("qwen2.5-72b"))
