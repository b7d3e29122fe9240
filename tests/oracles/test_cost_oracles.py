"""Kernel costs against times worked out by hand, on a chip whose numbers are round."""

import numpy as np
import pytest

from hwmodels.chip import ChipSpec
from hwmodels.costs import (
    AttentionParameters,
    GemmParameters,
    MemoryParameters,
    attention_time_s,
    gemm_time_s,
    memory_op_time_s,
    slowdown,
)
from hwmodels.costs.attention_blocks import attention_blocks

ROUND_CHIP = ChipSpec(
    name="round",
    generation="hopper",
    sms=10,
    peak_clock_hz=1e9,
    tensor={"bf16": 10 * 1e9 * 1024, "fp8": 10 * 1e9 * 2048},
    vector_flops_per_s=1e12,
    hbm_capacity_bytes=80e9,
    hbm_bytes_per_s=1e12,
    l2_bytes=1e12,
    mma_rows=64,
    operand_tile=(64, 256),
    operand_sms=1,
    nvlink_bytes_per_s=200e9,
    tdp_w=700,
)
# One 128x128x128 FP8 step: 2 * 128^3 / 2048 = 2048 cycles on the tensor core. Operand reads (384),
# L2 refill (256) and the latency floor (0) join it in a 4-norm.
STEP_CYCLES = (2048.0**4 + 384.0**4 + 256.0**4) ** 0.25
WAVES = GemmParameters(
    tile=(128, 128),
    tensor_efficiency=1.0,
    hbm_efficiency=0.95,
    l2_bytes_per_clock=128.0,
    iteration_floor_cycles=0.0,
    tile_overhead_cycles=1000.0,
    sm_hbm_bytes_per_clock=120.0,
    overlap_exponent=12.0,
)


def fp8_time_s(parameters: GemmParameters, *shape: float, sms: int = 10) -> float:
    times = gemm_time_s(
        ROUND_CHIP,
        parameters,
        *shape,
        tensor_family="fp8",
        element_bytes=1.0,
        output_bytes=2.0,
        sms=sms,
    )
    return float(times.time_s)


def by_hand_s(tiles: int, sms: int, steps: int) -> float:
    """ceil(tiles / SMs) (steps tau + epsilon) with tau and epsilon of WAVES."""
    epsilon = 1000.0 + 2 * 128 * 128 / 128
    return -(-tiles // sms) * (steps * STEP_CYCLES + epsilon) / 1e9


@pytest.mark.parametrize(
    ("m", "n", "k", "sms", "tiles", "steps"),
    [
        (1280, 1280, 1024, 10, 100, 8),
        (1281, 1280, 1024, 10, 110, 8),  # one row more is one row of tiles more
        (1280, 1280, 1025, 10, 100, 9),  # and one element of k a whole step
        (1280, 1280, 1024, 9, 100, 8),  # 12 waves instead of 10
        (128, 128, 128, 10, 1, 1),
    ],
)
def test_a_fixed_tile_costs_whole_waves_of_steps_and_an_overhead(
    m: int, n: int, k: int, sms: int, tiles: int, steps: int
) -> None:
    assert fp8_time_s(WAVES, m, n, k, sms=sms) == pytest.approx(
        by_hand_s(tiles, sms, steps), rel=1e-6
    )


def test_rows_of_a_tile_beyond_the_product_delay_its_steps() -> None:
    """m = 1281: of 11 rows of tiles one has 127 rows beyond, each 20 cycles to a step."""
    slow = WAVES.model_copy(update={"ragged_cycles": 20.0})
    ragged = (STEP_CYCLES**4 + (20.0 * 127) ** 4) ** 0.25
    added_s = 11 * 8 * (ragged - STEP_CYCLES) / 11 / 1e9
    assert fp8_time_s(slow, 1281, 1280, 1024) == pytest.approx(by_hand_s(110, 10, 8) + added_s)
    assert fp8_time_s(slow, 1280, 1280, 1024) == fp8_time_s(WAVES, 1280, 1280, 1024)


@pytest.mark.parametrize(("m", "side"), [(256, 64), (257, 128)])
def test_a_library_that_goes_by_rows_takes_the_tile_of_its_rule(m: int, side: int) -> None:
    ruled = WAVES.model_copy(update={"tile": None, "dispatch": "cutlass-rows"})
    fixed = WAVES.model_copy(update={"tile": (side, side)})
    assert fp8_time_s(ruled, m, 1280, 1024) == fp8_time_s(fixed, m, 1280, 1024)


def test_launch_time_adds_to_the_tiles() -> None:
    launched = WAVES.model_copy(update={"launch_s": 5e-6})
    assert fp8_time_s(launched, 1280, 1280, 1024) - fp8_time_s(
        WAVES, 1280, 1280, 1024
    ) == pytest.approx(5e-6)


def test_groups_pad_their_rows_apart() -> None:
    """Four experts of 160 rows take two tiles of rows each, 640 rows of one take five."""
    assert fp8_time_s(WAVES, 640, 1280, 1024, 4) == pytest.approx(by_hand_s(80, 10, 8), rel=1e-6)
    assert fp8_time_s(WAVES, 640, 1280, 1024, 1) == pytest.approx(by_hand_s(50, 10, 8), rel=1e-6)


def test_a_grouped_weight_gradient_is_stacked_rows_over_the_depth_of_one_group() -> None:
    """4 experts with weights 256 x 1280 and 4096 rows in all: m = 4 * 256, k = 4096 / 4."""
    assert fp8_time_s(WAVES, 4 * 256, 1280, 4096 / 4, 4) == pytest.approx(
        by_hand_s(4 * 2 * 10, 10, 8), rel=1e-6
    )


def test_at_the_ridge_point_memory_and_compute_take_equally_long() -> None:
    """One tile of depth k: k STEP/128 cycles against 2 * 128 k bytes at 1 SM * 120 B/clock.

    With no overheads both are linear in k; the per-SM rate that equals the tensor core's is
    256 * 128 / STEP bytes per clock, and the smooth maximum of two equal terms is 2^(1/12) of one.
    """
    depth, rate = 2**24, 256 * 128 / STEP_CYCLES
    ideal = WAVES.model_copy(update={"tile_overhead_cycles": 0.0, "sm_hbm_bytes_per_clock": rate})
    compute_s = depth / 128 * STEP_CYCLES / 1e9
    assert fp8_time_s(ideal, 128, 128, depth) == pytest.approx(2 ** (1 / 12) * compute_s, rel=1e-3)


def test_one_side_of_the_ridge_is_memory_and_the_other_compute() -> None:
    def bound(rate: float) -> str:
        parameters = WAVES.model_copy(update={"sm_hbm_bytes_per_clock": rate})
        return str(
            gemm_time_s(
                ROUND_CHIP,
                parameters,
                128,
                128,
                2**20,
                tensor_family="fp8",
                element_bytes=1.0,
                output_bytes=2.0,
            ).bound
        )

    ridge = 256 * 128 / STEP_CYCLES
    assert bound(0.99 * ridge) == "memory"
    assert bound(1.01 * ridge) == "compute"


def test_the_sustained_cap_is_a_rate_per_sm() -> None:
    capped = WAVES.model_copy(update={"sustained_fraction": 0.5})
    flops = 2 * 12800.0 * 12800 * 12800
    assert fp8_time_s(capped, 12800, 12800, 12800) == pytest.approx(flops / (0.5 * 20.48e12))
    assert fp8_time_s(capped, 12800, 12800, 12800, sms=5) == pytest.approx(flops / (0.5 * 10.24e12))


def test_a_causal_head_of_4096_tokens_has_528_blocks() -> None:
    """32 rows of blocks, 1 + 2 + ... + 32."""
    assert attention_blocks(4096, causal=True).total == sum(range(1, 33)) == 528
    assert attention_blocks(4096, causal=False).total == 32 * 32
    assert attention_blocks(129, causal=True).total == 3


def test_attention_is_its_blocks_spread_over_the_sms() -> None:
    """20 heads of 1280 tokens: 20 * 55 blocks of 2 * 128^2 * 256 / 1024 = 8192 cycles on 10 SMs.

    At eta 0.5 a block takes twice that; memory is 20 times smaller and adds 1e-6 of the time.
    """
    ideal = AttentionParameters(tensor_efficiency=0.5)
    times = attention_time_s(ROUND_CHIP, ideal, 1, 1280, 20, 20, 128, 128)
    assert float(times.time_s) == pytest.approx(20 * 55 * 2 * 8192 / 10 / 1e9, rel=1e-5)


def test_backward_attention_is_five_products_to_the_forwards_two() -> None:
    """3 d_qk + 2 d_v = 832 against d_qk + d_v = 320 at MLA's 192 and 128."""
    ideal = AttentionParameters(tensor_efficiency=0.5)
    forward, backward = (
        float(
            attention_time_s(
                ROUND_CHIP, ideal, 1, 12800, 20, 20, 192, 128, backward=is_backward
            ).time_s
        )
        for is_backward in (False, True)
    )
    assert backward / forward == pytest.approx(832 / 320, rel=1e-5)


def test_one_long_unit_holds_an_attention_with_few_heads() -> None:
    """One head: 10 rows of blocks on 10 SMs, and the last row has 10 blocks of the 55."""
    ideal = AttentionParameters(tensor_efficiency=1.0)
    times = attention_time_s(ROUND_CHIP, ideal, 1, 1280, 1, 1, 128, 128)
    assert float(times.time_s) == pytest.approx(10 * 8192 / 1e9, rel=1e-3)


def test_a_memory_op_is_launches_and_bytes() -> None:
    parameters = MemoryParameters(hbm_efficiency=0.8, launch_s=3e-6)
    times = memory_op_time_s(ROUND_CHIP, parameters, [0.0, 8e8], [5, 1])
    np.testing.assert_allclose(times.time_s, [15e-6, 3e-6 + 1e-3], rtol=1e-12)
    assert list(times.bound) == ["latency", "memory"]


def test_traffic_multiplies_the_bytes_and_not_the_launches() -> None:
    """Of 16 bytes counted, a library may move 6 or 36."""
    for traffic in (6 / 16, 36 / 16):
        parameters = MemoryParameters(hbm_efficiency=0.8, launch_s=3e-6, traffic=traffic)
        times = memory_op_time_s(ROUND_CHIP, parameters, 8e8, 2)
        assert float(times.time_s) == pytest.approx(6e-6 + traffic * 1e-3, rel=1e-12)


def test_few_sms_cannot_draw_the_whole_memory_bandwidth() -> None:
    """10 SMs at 50 B/clock draw 500 GB/s, 20 would be needed for the chip's 1 TB/s."""
    parameters = MemoryParameters(hbm_efficiency=1.0, sm_bytes_per_clock=50.0)
    times = memory_op_time_s(ROUND_CHIP, parameters, 5e8, sms=[5, 10])
    np.testing.assert_allclose(times.time_s, [2e-3, 1e-3], rtol=1e-12)


def test_half_of_an_op_beside_communication_pays_half_the_slowdown() -> None:
    np.testing.assert_allclose(slowdown(1.6, [0.0, 0.5, 1.0]), [1.0, 1.3, 1.6])
