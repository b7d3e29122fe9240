"""Cost models fitted to a day: rows made by a model give it back, and too few give none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.judge.cost_fits import FOLDS, SHAPES_PER_CONSTANT, chip_of, cost_fits
from calibration.judge.cost_models import FORMATS, NO_MODEL, cost_model, shape_columns
from calibration.judge.folder import read_day
from hwmodels.chip import CHIPS
from hwmodels.costs import kernel_time_s
from hwmodels.errors import CalibrationError
from tests.unit.days import timed, write_day

H100 = CHIPS.load("h100")
NOISE = 0.03


def shapes_of(kernel, count):
    """Distinct shapes of a kernel, small to large, the same each time."""
    random = np.random.default_rng(3)
    sizes = np.unique(np.geomspace(16, 32768, count).round().astype(int))
    for number, m in enumerate(map(int, sizes)):
        n, k = int(random.choice((1536, 4096, 7168))), int(random.choice((512, 2048, 7168)))
        if kernel == "grouped_gemm":
            yield {"counts": [m, 0, m, m], "n": n, "k": k, "masked": 0}
        elif kernel == "fp8_wgrad":
            yield {"counts": [m, m], "m": n, "n": k}
        elif kernel in FORMATS:
            yield {"m": m, "n": n, "k": k}
        elif kernel.startswith("mla"):
            yield {"batch": 1 + number % 3, "length": m, "heads": 16}
        else:
            yield {"m": m, "k": 7168}


def rows_of(kernel, truth, count, *, noise=0.0, helds=(0,)):
    """Rows that take what the model says, give or take some noise."""
    random = np.random.default_rng(5)
    shapes = [(shape, held) for shape in shapes_of(kernel, count) for held in helds]
    rows = [
        timed(kernel, shape, 1.0, held_sms=held, bytes=float(shape.get("m", 1)) * 21504)
        for shape, held in shapes
    ]
    sms = np.array([row.sms for row in rows], np.float64)
    time_s = kernel_time_s(H100, truth, shape_columns(kernel, rows), sms=sms).time_s
    time_s = time_s * np.exp(random.normal(0, noise, len(rows)))
    return [replace(row, time_s=float(t)) for row, t in zip(rows, time_s, strict=True)]


@pytest.fixture
def fits(tmp_path):
    """Fit a day of these rows; by kernel."""

    def make(rows):
        day = read_day(write_day(tmp_path / "day", rows))
        return {fit.kernel: fit for fit in cost_fits(day, H100)}

    return make


def truth_of(kernel, **constants):
    return cost_model(kernel, H100, few_sms=False).start.model_copy(update=constants)


def test_constants_of_a_memory_kernel_come_back(fits) -> None:
    """Large shapes tell the bandwidth, small ones the launch, few SMs what one of them moves."""
    truth = truth_of("quantize", hbm_efficiency=0.7, launch_s=4e-6, sm_bytes_per_clock=20.0)
    fit = fits(rows_of("quantize", truth, 12, helds=(0, 112, 124)))["quantize"]
    assert (fit.model, fit.rows, fit.shapes) == ("memory_op", 36, 12)
    assert fit.constants == pytest.approx(
        {"hbm_efficiency": 0.7, "launch_s": 4e-6, "sm_bytes_per_clock": 20.0}, rel=0.02
    )
    assert fit.held_out_p90 < 0.02
    assert not fit.at_bound


def test_constants_of_attention_come_back(fits) -> None:
    truth = truth_of("mla_prefill_backward", tensor_efficiency=0.45, unit_overhead_cycles=3000.0)
    fit = fits(rows_of("mla_prefill_backward", truth, 14))["mla_prefill_backward"]
    assert fit.constants["tensor_efficiency"] == pytest.approx(0.45, rel=0.05)
    assert fit.held_out_p90 < 0.05


@pytest.mark.parametrize("kernel", list(FORMATS))
def test_products_are_priced_where_they_were_not_seen(fits, kernel) -> None:
    """Noise of 3 % in, hardly more out: the fold that is priced was in no fit of it."""
    truth = truth_of(kernel, tensor_efficiency=0.75, tile_overhead_cycles=3000.0, launch_s=4e-6)
    fit = fits(rows_of(kernel, truth, 24, noise=NOISE))[kernel]
    assert fit.model == "gemm"
    assert fit.error_median < 1.5 * NOISE
    assert fit.held_out_median < 2 * NOISE
    assert ("promotion_cycles" in fit.constants) == (kernel != "bf16_gemm")


def test_a_constant_that_no_row_tells_is_named(fits) -> None:
    """Half of the SMs still fill the memory: nothing shows what one SM moves at most."""
    truth = truth_of("quantize", hbm_efficiency=0.5, launch_s=4e-6, sm_bytes_per_clock=60.0)
    fit = fits(rows_of("quantize", truth, 12, helds=(0, 66)))["quantize"]
    assert fit.not_identified == ("sm_bytes_per_clock",)
    told = fits(rows_of("quantize", truth, 12, helds=(0, 124)))["quantize"]
    assert told.not_identified == ()


def test_a_shape_that_follows_no_model_is_not_explained_away(fits) -> None:
    """Times without rhyme or reason: what fits them all would have to have seen them."""
    random = np.random.default_rng(0)
    truth = truth_of("quantize")
    rows = [
        replace(row, time_s=row.time_s * float(np.exp(random.normal(0, 1.0))))
        for row in rows_of("quantize", truth, 20)
    ]
    assert fits(rows)["quantize"].held_out_median > 0.3


def test_the_sustained_rate_is_the_best_of_the_sustained_rows(fits) -> None:
    """They are in no fit: their clock is another one."""
    rows = rows_of("bf16_gemm", truth_of("bf16_gemm"), 16)
    peak = H100.tensor_flops_per_s("bf16")
    slow = [replace(row, sustained=1, flops=peak * row.time_s * 0.6) for row in rows[:2]]
    fit = fits([*rows, replace(slow[0], flops=1.0), slow[1]])["bf16_gemm"]
    assert fit.sustained_fraction == pytest.approx(0.6)
    assert fit.rows == len(rows)


@given(st.sampled_from(["quantize", "bf16_gemm", "fp8_gemm", "mla_prefill"]), st.integers(1, 30))
def test_too_few_shapes_are_not_fitted_and_said(tmp_path_factory, kernel, count) -> None:
    model = cost_model(kernel, H100, few_sms=False)
    needed = max(FOLDS, SHAPES_PER_CONSTANT * len(model.free))
    count = min(count, needed - 1)
    rows = rows_of(kernel, model.start, count)
    day = read_day(write_day(tmp_path_factory.mktemp("days") / "day", rows))
    (fit,) = cost_fits(day, H100)
    assert fit.why_not == f"{count} shapes for {len(model.free)} constants, needs {needed}"
    assert (fit.constants, fit.held_out_median) == ({}, None)


def test_a_chip_without_such_tensor_cores_prices_no_such_product(tmp_path) -> None:
    rows = rows_of("fp8_gemm", truth_of("fp8_gemm"), 24)
    rows = [replace(row, device="NVIDIA A100-SXM4-80GB", sms=108) for row in rows]
    device = {"name": rows[0].device, "sms": 108, "capability": 80}
    day = read_day(write_day(tmp_path / "day", rows, **device))
    (fit,) = cost_fits(day, chip_of(day, None))
    assert fit.why_not == "a100 has no fp8 tensor cores"


def test_what_no_model_prices_is_said(fits) -> None:
    shape = {"batch": 1, "heads": 16, "length": 128, "ragged": 0}
    found = fits([timed("mla_decode", shape, 1e-3, bytes=1e6)])
    assert found["mla_decode"].why_not == NO_MODEL["mla_decode"]


def test_a_shape_that_lacks_something_is_refused(fits) -> None:
    rows = rows_of("fp8_gemm", truth_of("fp8_gemm"), 24)
    bad = timed("fp8_gemm", {"m": 4, "n": 4}, 1e-3)
    with pytest.raises(CalibrationError, match="k must be a whole number from 1"):
        fits([*rows, bad])


@pytest.mark.parametrize(
    ("name", "sms", "chip"),
    [
        ("NVIDIA H100 80GB HBM3", 132, "h100"),
        ("NVIDIA H200", 132, "h200"),
        ("NVIDIA GB200", 152, "gb200"),
        ("NVIDIA H100 PCIe", 114, None),  # fewer SMs than the preset's
        ("NVIDIA GeForce RTX 4090", 128, None),
    ],
)
def test_a_device_is_the_preset_that_its_name_holds(tmp_path, name, sms, chip) -> None:
    row = timed("quantize", {"m": 1, "k": 128}, 1e-3, device=name)
    found = chip_of(read_day(write_day(tmp_path / "day", [row], name=name, sms=sms)), None)
    assert (found.name if found else None) == chip
