"""Laws of attention over a cache, whatever the shape and the family."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.costs import (
    AttentionParameters,
    DecodeAttentionParameters,
    attention_time_s,
    decode_attention_time_s,
)

CHIP = CHIPS.load("h200")
SLACK = 1 + 1e-9  # rounding of sums in another order
PREFILLS = {
    "plain": AttentionParameters(
        tensor_efficiency=0.7, block_overhead_cycles=300.0, unit_overhead_cycles=2000.0,
        row_cycles=20.0, imbalance=0.6, sustained_fraction=0.6, launch_s=8e-6,
    ),
    "packed and split": AttentionParameters(
        block_rows=64, block_keys=64, packs_heads=True, splits_keys=True, split_s=4e-6,
        tensor_efficiency=0.8, unit_overhead_cycles=7000.0, imbalance=0.5, overlap_exponent=1.5,
        convert_s=5e-6, convert_bytes_per_clock=1.4,
    ),
}  # fmt: skip
DECODES = {
    "latent": DecodeAttentionParameters(
        tensor_efficiency=0.7, block_overhead_cycles=100.0, unit_overhead_cycles=8000.0,
        row_cycles=240.0, wave_quantisation=0.8, split_s=3e-6, launch_s=7e-6,
    ),
    "grouped": DecodeAttentionParameters(
        block_rows=128, block_keys=128, tensor_efficiency=0.4, unit_overhead_cycles=3000.0,
        overlap_exponent=2.0, convert_s=5e-6, convert_bytes_per_clock=1.4,
    ),
}  # fmt: skip
SIZES = st.tuples(
    st.integers(1, 300),  # sequences
    st.integers(1, 20_000),  # keys
    st.sampled_from([1, 2, 4, 8]),  # key-value heads
    st.sampled_from([1, 3, 8, 16, 128]),  # query heads of each
)
MORE = st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 700, 0), (0, 0, 1), (40, 3000, 2)])
NAMES = st.sampled_from([*PREFILLS, *DECODES])
SMS = st.integers(1, 131)


def time_s(name: str, size: tuple[int, int, int, int], chip: ChipSpec = CHIP, **more: Any) -> float:
    sequences, keys, kv_heads, group = size
    shape = (sequences, keys, kv_heads * group, kv_heads, 128, 128)
    if name in PREFILLS:
        return float(attention_time_s(chip, PREFILLS[name], *shape, **more).time_s)
    return float(decode_attention_time_s(chip, DECODES[name], *shape, **more).time_s)


def with_clock(chip: ChipSpec, factor: float) -> ChipSpec:
    """The same SMs at another clock: peaks move with it."""
    tensor = {family: rate * factor for family, rate in chip.tensor.items()}
    return chip.model_copy(update={"peak_clock_hz": chip.peak_clock_hz * factor, "tensor": tensor})


@given(NAMES, SIZES, SMS)
def test_attention_is_never_slower_with_more_bandwidth_sms_or_clock(
    name: str, size: tuple[int, int, int, int], sms: int
) -> None:
    base = time_s(name, size, sms=sms)
    faster = CHIP.model_copy(update={"hbm_bytes_per_s": CHIP.hbm_bytes_per_s * 1.5})
    assert time_s(name, size, faster, sms=sms) <= base * SLACK
    assert time_s(name, size, with_clock(CHIP, 1.1), sms=sms) <= base * SLACK
    assert time_s(name, size, sms=sms + 1) <= base * SLACK


@given(NAMES, SIZES, MORE)
def test_more_attention_is_never_faster(
    name: str, size: tuple[int, int, int, int], more: tuple[int, int, int]
) -> None:
    """More sequences, keys (of a prompt: queries too), or query heads of each key-value head."""
    sequences, keys, kv_heads, group = size
    larger = (sequences + more[0], keys + more[1], kv_heads, group + more[2])
    assert time_s(name, size) <= time_s(name, larger) * SLACK


@given(NAMES, SIZES, st.integers(1, 30_000))
def test_a_window_never_makes_attention_slower(
    name: str, size: tuple[int, int, int, int], window: int
) -> None:
    narrow, wide, all_keys = (
        time_s(name, size, window=window),
        time_s(name, size, window=window + 500),
        time_s(name, size),
    )
    assert narrow <= wide * SLACK <= all_keys * SLACK**2


@given(st.sampled_from(sorted(PREFILLS)), SIZES, st.integers(0, 5000), st.integers(0, 5000))
def test_a_longer_prefix_never_makes_a_prompt_faster(
    name: str, size: tuple[int, int, int, int], prefix: int, more: int
) -> None:
    shorter, longer = (time_s(name, size, prefix=tokens) for tokens in (prefix, prefix + more))
    assert time_s(name, size) <= shorter * SLACK <= longer * SLACK**2


@given(SIZES, SMS)
def test_decode_beats_neither_the_tensor_peak_nor_the_memory(
    size: tuple[int, int, int, int], sms: int
) -> None:
    sequences, keys, kv_heads, group = (float(part) for part in size)
    found_s = time_s("latent", size, sms=sms)
    flops = 2 * sequences * keys * kv_heads * group * 256
    moved = sequences * kv_heads * (keys * 256 + 256 * group) * 2
    assert found_s >= flops / CHIP.tensor_flops_per_s("bf16", sms) / SLACK
    assert found_s >= moved / CHIP.hbm_bytes_per_s / SLACK


@pytest.mark.parametrize("name", [*PREFILLS, *DECODES])
def test_columns_are_what_each_shape_is_alone(name: str) -> None:
    sizes = [(1, 1, 1, 1), (3, 1000, 2, 8), (256, 4097, 8, 3), (2, 20_000, 1, 128)]
    alone = [time_s(name, size) for size in sizes]
    sequences, keys, kv_heads, group = np.array(sizes).T
    shape = (sequences, keys, kv_heads * group, kv_heads, 128, 128)
    if name in PREFILLS:
        together = attention_time_s(CHIP, PREFILLS[name], *shape)
    else:
        together = decode_attention_time_s(CHIP, DECODES[name], *shape)
    np.testing.assert_array_equal(together.time_s, alone)
