"""The GEMM cost function beside its equation: arguments, candidates, bounds, refusals."""

import numpy as np
import pytest

from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.costs import GemmParameters, KernelTime, gemm_time_s
from hwmodels.costs.gemm import QUANTISE_RATE
from hwmodels.errors import SpecError
from hwmodels.spec import validate

CHIP = CHIPS.load("h800")
WAVES = GemmParameters(tile=(128, 128), overlap_exponent=12.0)


def bf16(parameters: GemmParameters, *shape: object, chip: ChipSpec = CHIP) -> KernelTime:
    return gemm_time_s(
        chip, parameters, *shape, tensor_family="bf16", element_bytes=2.0, output_bytes=2.0
    )  # type: ignore[arg-type]


def test_shapes_broadcast_and_columns_keep_their_shape() -> None:
    times = bf16(WAVES, np.full((3, 1), 4096), [[512, 1024]], 2048)
    assert times.time_s.shape == times.bound.shape == (3, 2)
    assert times.time_s.dtype == np.float64


def test_a_tuned_library_is_never_slower_than_one_of_its_tiles() -> None:
    fixed = GemmParameters(tile=(128, 64))
    tuned = fixed.model_copy(update={"tile": None})
    m, n, k = [64, 4096, 200], [7168, 7168, 96], [2048, 512, 40]
    assert (bf16(tuned, m, n, k).time_s <= bf16(fixed, m, n, k).time_s).all()


@pytest.mark.parametrize("flag", ["split_k", "swap_ab", "fine_tiles"])
def test_a_freedom_of_the_library_never_costs(flag: str) -> None:
    free = GemmParameters(**{flag: True})
    m, n, k = [16, 4096, 96, 33], [512, 7168, 96, 4096], [16384, 512, 8192, 7168]
    assert (bf16(free, m, n, k).time_s <= bf16(GemmParameters(), m, n, k).time_s).all()


def test_splitting_k_pays_where_there_are_few_tiles() -> None:
    split = GemmParameters(split_k=True)
    assert bf16(split, 64, 64, 65536).time_s < 0.5 * bf16(GemmParameters(), 64, 64, 65536).time_s


def test_swapping_the_operands_pays_for_few_rows() -> None:
    swap = GemmParameters(swap_ab=True, sm_hbm_bytes_per_clock=120, iteration_floor_cycles=0)
    plain = swap.model_copy(update={"swap_ab": False})
    assert bf16(swap, 8, 65536, 8192).time_s < bf16(plain, 8, 65536, 8192).time_s


def test_partial_waves_cost_less_where_a_tuner_escapes_them() -> None:
    """133 tiles on 132 SMs: two waves, or 1.008 of one."""
    escaped = WAVES.model_copy(update={"wave_quantisation": 0.0})
    shape = (7 * 128, 19 * 128, 8192)
    ratio = bf16(WAVES, *shape).time_s / bf16(escaped, *shape).time_s
    assert ratio == pytest.approx(2 / (133 / 132), rel=1e-3)


def test_quantising_the_activations_adds_their_traffic() -> None:
    quantising = WAVES.model_copy(update={"contains_quantise": True, "quantise_bytes": 8.0})
    added = bf16(quantising, 4096, 4096, 7168).time_s - bf16(WAVES, 4096, 4096, 7168).time_s
    expected = 8.0 * 4096 * 7168 / (QUANTISE_RATE * CHIP.sms * CHIP.peak_clock_hz)
    assert added == pytest.approx(expected)


def test_operands_larger_than_the_l2_are_read_again() -> None:
    slow = CHIP.model_copy(update={"hbm_bytes_per_s": 1e11, "l2_bytes": 1e9})
    small_l2 = slow.model_copy(update={"l2_bytes": 1e6})
    shape = (16384, 16384, 4096)
    assert str(bf16(WAVES, *shape, chip=small_l2).bound) == "memory"
    assert bf16(WAVES, *shape, chip=small_l2).time_s > 2 * bf16(WAVES, *shape, chip=slow).time_s


@pytest.mark.parametrize(
    ("parameters", "shape", "bound"),
    [
        (WAVES, (8192, 8192, 8192), "compute"),
        (GemmParameters(sustained_fraction=0.7), (8192, 8192, 8192), "sustained"),
        (WAVES.model_copy(update={"launch_s": 20e-6}), (128, 128, 128), "latency"),
        # prologue and epilogue
        (WAVES.model_copy(update={"sm_hbm_bytes_per_clock": 120.0}), (128, 128, 64), "latency"),
        (GemmParameters(), (16, 65536, 8192), "memory"),
    ],
)
def test_the_bound_says_what_holds_it(
    parameters: GemmParameters, shape: tuple[int, int, int], bound: str
) -> None:
    assert str(bf16(parameters, *shape).bound) == bound


@pytest.mark.parametrize(
    ("chip", "rows"),
    [
        ("a100", (128 / 64) * (128 / 64) * (64 + 64)),  # each of four warps reads both operands
        ("h100", (128 / 64) * (64 + 128)),  # B once for 64 rows of A
        ("b200", 128 + 128 / 2),  # and half of it where two SMs share it
    ],
)
def test_chips_differ_in_the_operand_rows_that_a_step_reads(chip: str, rows: float) -> None:
    """A chip so slow at it that nothing else of a 128x128 tile is seen."""
    slow = CHIPS.load(chip).model_copy(update={"shared_memory_bytes_per_clock": 1.0})
    step_s = (
        bf16(WAVES, 128, 128, 2**20, chip=slow).time_s - bf16(WAVES, 128, 128, 64, chip=slow).time_s
    ) / (2**14 - 1)
    assert step_s * slow.peak_clock_hz == pytest.approx(rows * 128, rel=1e-3)


def test_a_chip_without_the_format_is_refused() -> None:
    with pytest.raises(SpecError, match="no 'fp4' tensor rate"):
        gemm_time_s(CHIP, WAVES, 1, 1, 1, tensor_family="fp4", element_bytes=0.5, output_bytes=2.0)


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"tensor_efficiency": 0.2}, "tensor_efficiency"),
        ({"sustained_fraction": 1.2}, "sustained_fraction"),
        ({"tile": [128, 512]}, "tile.1"),
        ({"launch_s": "1 ms"}, "launch_s"),
        ({"prom": 0.9}, "prom"),
    ],
)
def test_parameters_outside_their_bounds_are_refused(values: object, path: str) -> None:
    with pytest.raises(SpecError, match=rf"gemm: {path}: "):
        validate(GemmParameters, values, "gemm")
