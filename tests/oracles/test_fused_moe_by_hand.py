"""Fused modules of experts against times worked out by hand, on a chip whose numbers are round."""

import numpy as np
import pytest

from hwmodels.chip import ChipSpec
from hwmodels.costs import (
    FusedMoeParameters,
    GemmParameters,
    expert_load,
    fused_moe_time_s,
    gemm_time_s,
)

ROUND_CHIP = ChipSpec(
    name="round",
    generation="hopper",
    sms=10,
    peak_clock_hz=1e9,
    tensor={"bf16": 10 * 1e9 * 1024, "fp8": 10 * 1e9 * 2048},
    vector_flops_per_s=1e12,
    hbm_capacity_bytes=80e9,
    hbm_bytes_per_s=1e18,
    l2_bytes=1e12,
    mma_rows=64,
    operand_tile=(64, 256),
    operand_sms=1,
    nvlink_bytes_per_s=200e9,
    tdp_w=700,
)
PLAIN = FusedMoeParameters(
    launch_s=5e-6,
    tensor_efficiency=1.0,
    l2_bytes_per_clock=128.0,
    iteration_floor_cycles=0.0,
    tile_overhead_cycles=0.0,
    sm_hbm_bytes_per_clock=120.0,
    overlap_exponent=12.0,
    sustained_fraction=1.0,
    wave_quantisation=1.0,
    row_bytes=0.0,
    activation_bytes=0.0,
    token_bytes=0.0,
)


_SHARED = set(GemmParameters.model_fields) - {"launch_s"}


def time_s(
    parameters: FusedMoeParameters,
    counts: list[float],
    hidden: int = 2560,
    inner: int = 640,
    tokens: int = 64,
    experts: int | None = None,
) -> float:
    times = fused_moe_time_s(
        ROUND_CHIP,
        parameters,
        expert_load(counts),
        hidden,
        inner,
        tokens,
        len(counts) if experts is None else experts,
        tensor_family="fp8",
        element_bytes=1.0,
    )
    return float(times.time_s)


def tile_cycles(columns: int, depth: int) -> float:
    """Of 64 FP8 rows: 2 * 64 * columns * 128 / 2048 on the tensor core a step of 128 along k; reads
    of the operands and the refill of the tile join it; 2 bytes an element are written.
    """
    mma, refill = 8.0 * columns, 64.0 + columns
    step = (mma**4 + 2 * refill**4) ** 0.25
    return depth / 128 * step + 2 * 64 * columns / 128


def test_one_expert_of_one_row_of_tiles_takes_a_wave_up_and_one_down() -> None:
    """1,280 columns up are 10 tiles of 64 x 128 on 10 SMs; 2,560 down are 10 of 64 x 256."""
    up, down = tile_cycles(128, 2560), tile_cycles(256, 640)
    expected_s = 5e-6 + (up + down) / 1e9
    assert time_s(PLAIN, [64.0]) == pytest.approx(expected_s, rel=1e-9)
    assert time_s(PLAIN, [3.0]) == pytest.approx(expected_s, rel=1e-9)


def test_an_expert_of_65_tokens_pays_for_two_rows_of_tiles() -> None:
    products = [time_s(PLAIN, [count]) - 5e-6 for count in (64.0, 65.0, 128.0)]
    assert products[1] == pytest.approx(products[2], rel=1e-9)
    assert products[1] > 1.2 * products[0]


def test_experts_without_tokens_cost_nothing() -> None:
    busy = [40.0, 700.0, 3.0]
    assert time_s(PLAIN, [*busy, *[0.0] * 60]) == time_s(PLAIN, busy)


def test_experts_without_tokens_cost_the_blocks_a_library_launches_for_them() -> None:
    """Each of 60 has 10 blocks of 128 columns up and 20 down, 1,000 cycles each, on 10 SMs."""
    gridded = PLAIN.model_copy(update={"grid_cycles": 1000.0})
    more_s = time_s(gridded, [40.0], experts=61) - time_s(gridded, [40.0], experts=1)
    assert more_s == pytest.approx(60 * (10 + 20) * 1000 / 10 / 1e9, rel=1e-9)


def test_a_rank_without_tokens_takes_its_launch() -> None:
    assert time_s(PLAIN, [0.0, 0.0], tokens=0) == pytest.approx(5e-6, rel=1e-12)


def test_equal_counts_cost_two_grouped_products() -> None:
    """On a chip whose memory never binds, with the same constants."""
    gemm = GemmParameters(
        **{name: getattr(PLAIN, name) for name in set(PLAIN.model_fields_set) & _SHARED}
    )
    rows, groups, hidden, inner = 300, 8, 2560, 640

    def product_s(columns: int, depth: int) -> float:
        times = gemm_time_s(
            ROUND_CHIP,
            gemm,
            rows * groups,
            columns,
            depth,
            groups,
            tensor_family="fp8",
            element_bytes=1.0,
            output_bytes=2.0,
        )
        return float(times.time_s)

    expected_s = 5e-6 + product_s(2 * inner, hidden) + product_s(hidden, inner)
    assert time_s(PLAIN, [float(rows)] * groups) == pytest.approx(expected_s, rel=1e-9)


def test_weights_are_read_of_the_experts_that_have_tokens() -> None:
    """At 50 GB/s, 0.9 of it achieved, 4 of 9 experts are read, 3 * 2048 * 640 bytes each."""
    chip = ROUND_CHIP.model_copy(update={"hbm_bytes_per_s": 5e10})
    fast = PLAIN.model_copy(update={"launch_s": 0.0, "hbm_efficiency": 0.9})
    times = fused_moe_time_s(
        chip, fast, expert_load([1.0] * 4 + [0.0] * 5), 2048, 640, 1, 9,
        tensor_family="fp8", element_bytes=1.0,
    )  # fmt: skip
    pairs = 4 * (2048 + 2 * 1280 + 640 + 2 * 2048)
    assert float(times.time_s) == pytest.approx((4 * 3 * 2048 * 640 + pairs) / 0.9 / 5e10, rel=1e-3)
    assert times.bound == "memory"


def test_what_surrounds_the_products_is_counted_in_pairs_and_tokens() -> None:
    """Bytes per pair and H, per pair and I, per token and H, at 4.8 TB/s of 132 SMs at 1.83 GHz."""
    rate = 4.8e12 / (132 * 1.83e9) * 10 * 1e9
    more = {"row_bytes": 11.0, "activation_bytes": 2.0, "token_bytes": 7.0}
    counts = [100.0, 28.0]
    surrounded_s = time_s(PLAIN.model_copy(update=more), counts) - time_s(PLAIN, counts)
    expected = 11 * 128 * 2560 + 2 * 128 * 640 + 7 * 64 * 2560
    assert surrounded_s == pytest.approx(expected / rate, rel=1e-9)


def test_several_routings_are_priced_by_the_mean_of_their_loads() -> None:
    loads = expert_load([[64.0, 0.0, 10.0], [1.0, 65.0, 8.0]])
    np.testing.assert_array_equal(loads, [[74, 2, 2, 2, 2], [74, 3, 4, 3, 3]])
