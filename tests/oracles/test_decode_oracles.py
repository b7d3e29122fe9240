"""Decode attention and converted caches against times worked out by hand, on round numbers."""

import numpy as np
import pytest

from hwmodels.chip import ChipSpec
from hwmodels.costs import (
    AttentionParameters,
    DecodeAttentionParameters,
    attention_time_s,
    decode_attention_time_s,
)

# 1024 BF16 FLOPs of one SM in one clock of a nanosecond.
CHIP = ChipSpec(
    name="round",
    generation="hopper",
    sms=10,
    peak_clock_hz=1e9,
    tensor={"bf16": 10 * 1e9 * 1024},
    vector_flops_per_s=1e12,
    hbm_capacity_bytes=80e9,
    hbm_bytes_per_s=1e15,
    l2_bytes=1e12,
    mma_rows=64,
    operand_tile=(64, 256),
    operand_sms=1,
    nvlink_bytes_per_s=200e9,
    tdp_w=700,
)
ARITHMETIC = DecodeAttentionParameters(tensor_efficiency=1.0, sm_bytes_per_clock=128.0)
BLOCK_CYCLES = (
    2 * 64 * 64 * 256 / 1024  # 64 rows, 64 keys, 128 + 128 deep
)
LOAD_CYCLES = 64 * 512 / 128  # 512 bytes a key, 128 a clock
BLOCK_S = (BLOCK_CYCLES**4 + LOAD_CYCLES**4) ** 0.25 * 1e-9


def decode_s(parameters: DecodeAttentionParameters, *shape: float, **more: object) -> float:
    """Sequences, keys, heads and key-value heads, 128 + 128 deep."""
    return float(decode_attention_time_s(CHIP, parameters, *shape, 128, 128, **more).time_s)  # type: ignore[arg-type]


def test_one_block_of_one_unit_is_one_block() -> None:
    assert decode_s(ARITHMETIC, 1, 64, 64, 1) == pytest.approx(BLOCK_S, rel=1e-6)
    assert decode_s(ARITHMETIC, 1, 1, 1, 1) == pytest.approx(BLOCK_S, rel=1e-6)


def test_units_that_fill_the_sms_run_in_waves() -> None:
    """11 units of 4 blocks on 10 SMs: two whole waves, or 1.1 where they are spread evenly."""
    even = ARITHMETIC.model_copy(update={"wave_quantisation": 0.0})
    assert decode_s(ARITHMETIC, 11, 256, 8, 1) == pytest.approx(2 * 4 * BLOCK_S, rel=1e-6)
    assert decode_s(even, 11, 256, 8, 1) == pytest.approx(1.1 * 4 * BLOCK_S, rel=1e-6)


def test_few_units_are_cut_along_their_keys() -> None:
    """2 units of 50 blocks on 10 SMs: 5 parts of 10 blocks each, and what combining them costs.

    The output of 2 sequences, 8 heads and 128 elements is written and read in FP32 for 5 parts:
    81,920 bytes at 64 bytes on each of 10 SMs, 128 ns.
    """
    split = ARITHMETIC.model_copy(update={"split_s": 1e-6})
    expected = 10 * BLOCK_S + 1e-6 + 128e-9
    assert decode_s(split, 2, 3200, 8, 1) == pytest.approx(expected, rel=1e-6)


def test_a_split_that_costs_more_than_it_saves_is_not_made() -> None:
    slow = ARITHMETIC.model_copy(update={"split_s": 19e-6})
    assert decode_s(slow, 1, 256, 8, 1) == pytest.approx(4 * BLOCK_S, rel=1e-6)


def test_more_heads_than_rows_are_more_units() -> None:
    """65 heads of one key-value head: two units of 64 rows."""
    one, two = (decode_s(ARITHMETIC, 10, 64, heads, 1) for heads in (64, 65))
    assert two == pytest.approx(2 * one, rel=1e-6)


def test_a_window_is_all_that_is_read() -> None:
    """The last of two new tokens sees 128 keys, the one before it one more."""
    whole = decode_s(ARITHMETIC, 10, 129, 8, 1, queries=2)
    assert decode_s(ARITHMETIC, 10, 10_000, 8, 1, queries=2, window=128) == whole


def test_a_memory_bound_decode_is_its_cache_and_its_queries() -> None:
    """1000 sequences of 6400 keys of 1000 bytes; q and o are 1000 * 8 * 256 * 2 bytes."""
    starved = CHIP.model_copy(update={"hbm_bytes_per_s": 1e9})
    times = decode_attention_time_s(
        starved, ARITHMETIC, 1000, 6400, 8, 1, 128, 128, kv_token_bytes=1000.0
    )
    moved = 1000 * 6400 * 1000 + 1000 * 8 * 256 * 2
    assert str(times.bound) == "memory"
    assert float(times.time_s) == pytest.approx(moved / 0.9e9, rel=1e-6)


def test_heads_of_sequences_take_cycles_of_all_sms() -> None:
    rows = ARITHMETIC.model_copy(update={"row_cycles": 100.0})
    added = decode_s(rows, 40, 64, 8, 1) - decode_s(ARITHMETIC, 40, 64, 8, 1)
    assert added == pytest.approx(40 * 8 * 100 / 10 / 1e9, rel=1e-6)


def test_converting_a_cache_is_one_pass_of_the_sms_over_what_is_stored() -> None:
    """100 sequences of 64 keys of 256 stored bytes at 2 bytes a clock on 10 SMs: 81.92 us.

    The kernel then reads 512 bytes a key, as if the cache had been stored in BF16.
    """
    plain = decode_s(ARITHMETIC, 100, 64, 8, 1, kv_token_bytes=512.0)
    converts = ARITHMETIC.model_copy(update={"convert_s": 5e-6, "convert_bytes_per_clock": 2.0})
    found = decode_s(converts, 100, 64, 8, 1, kv_token_bytes=256.0)
    assert found - plain == pytest.approx(5e-6 + 100 * 64 * 256 / 2 / 10 / 1e9, rel=1e-6)


PREFILL = AttentionParameters(tensor_efficiency=1.0)
PREFILL_BLOCK_S = 2 * 128 * 128 * 256 / 1024 * 1e-9


def prefill_s(parameters: AttentionParameters, *shape: float, **more: object) -> float:
    """Sequences, length, heads and key-value heads, 128 + 128 deep."""
    return float(attention_time_s(CHIP, parameters, *shape, 128, 128, **more).time_s)  # type: ignore[arg-type]


def test_new_tokens_see_their_prefix() -> None:
    """128 tokens after 256: one unit of 3 blocks in each of 10 heads."""
    found = prefill_s(PREFILL, 1, 128, 10, 10, prefix=256)
    assert found == pytest.approx(3 * PREFILL_BLOCK_S, rel=1e-6)


def test_packed_heads_are_rows_of_one_unit() -> None:
    """16 tokens of 8 heads that share keys fill one unit of 128 rows; unpacked, 8 units."""
    packed = PREFILL.model_copy(update={"packs_heads": True})
    assert prefill_s(PREFILL, 10, 16, 8, 1) == pytest.approx(8 * PREFILL_BLOCK_S, rel=1e-6)
    assert prefill_s(packed, 10, 16, 8, 1) == pytest.approx(PREFILL_BLOCK_S, rel=1e-6)


def test_rows_in_use_cost_cycles_and_empty_ones_none() -> None:
    rows = PREFILL.model_copy(update={"row_cycles": 100.0})
    added = prefill_s(rows, 100, 3, 10, 10) - prefill_s(PREFILL, 100, 3, 10, 10)
    assert added == pytest.approx(100 * 10 * 3 * 100 / 10 / 1e9, rel=1e-6)


def test_a_long_unit_is_split_where_the_library_splits() -> None:
    """2 heads of 128 tokens after 9 * 128: 10 blocks each, in 5 parts of 2."""
    split = PREFILL.model_copy(update={"splits_keys": True})
    shape = (1, 128, 2, 2)
    combined = 8 * 5 * 128 * 2 * 128 / (64 * 10) * 1e-9
    whole = prefill_s(PREFILL, *shape, prefix=1152)
    assert whole == pytest.approx(10 * PREFILL_BLOCK_S, rel=1e-6)
    found = prefill_s(split, *shape, prefix=1152)
    assert found == pytest.approx(2 * PREFILL_BLOCK_S + combined, rel=1e-6)


def test_the_end_of_many_units_waits_for_a_share_of_the_longest() -> None:
    """20 units of one block on 10 SMs: half of them beyond the first wave, 0.4 of a block each."""
    waits = PREFILL.model_copy(update={"imbalance": 0.4})
    found = prefill_s(waits, 20, 128, 1, 1)
    assert found == pytest.approx((2 + 0.4 * 0.5) * PREFILL_BLOCK_S, rel=1e-6)


def test_a_sustained_rate_caps_prefill() -> None:
    capped = PREFILL.model_copy(update={"sustained_fraction": 0.5})
    times = attention_time_s(CHIP, capped, 1, 12800, 20, 20, 128, 128)
    assert str(times.bound) == "sustained"
    assert float(times.time_s) == pytest.approx(20 * 5050 * PREFILL_BLOCK_S / 10 / 0.5, rel=1e-9)


def test_shapes_of_decode_broadcast() -> None:
    times = decode_attention_time_s(
        CHIP, ARITHMETIC, [[1], [2]], np.array([64, 640, 6400]), 8, 1, 128, 128
    )
    assert times.time_s.shape == times.bound.shape == (2, 3)
