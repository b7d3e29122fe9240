"""The attention cost function beside its equation."""

import numpy as np
import pytest

from hwmodels.chip import CHIPS
from hwmodels.costs import AttentionParameters, attention_time_s
from hwmodels.costs.work import attention_work
from hwmodels.errors import SpecError

CHIP = CHIPS.load("h800")
PLAIN = AttentionParameters(tensor_efficiency=0.7)


def test_shapes_broadcast_and_columns_keep_their_shape() -> None:
    times = attention_time_s(CHIP, PLAIN, [[1], [2]], [1024, 2048, 4096], 128, 128, 192, 128)
    assert times.time_s.shape == times.bound.shape == (2, 3)


def test_overheads_count_blocks_and_units() -> None:
    """4096 causal tokens, 128 heads: 128 * 528 blocks in 128 * 32 units, over 132 SMs."""
    loaded = PLAIN.model_copy(
        update={"block_overhead_cycles": 10.0, "unit_overhead_cycles": 1000.0}
    )
    shape = (1, 4096, 128, 128, 192, 128)
    added = (
        attention_time_s(CHIP, loaded, *shape).time_s - attention_time_s(CHIP, PLAIN, *shape).time_s
    )
    cycles = (128 * 528 * 10.0 + 128 * 32 * 1000.0) / 132
    assert float(added) == pytest.approx(cycles / CHIP.peak_clock_hz, rel=0.01)


def test_shared_key_value_heads_move_fewer_bytes() -> None:
    starved = CHIP.model_copy(update={"hbm_bytes_per_s": 1e9})
    all_heads = attention_time_s(starved, PLAIN, 1, 1024, 64, 64, 128, 128)
    shared = attention_time_s(starved, PLAIN, 1, 1024, 64, 8, 128, 128)
    assert str(all_heads.bound) == str(shared.bound) == "memory"
    assert float(all_heads.time_s / shared.time_s) == pytest.approx(128 / 72, rel=1e-6)


def test_passes_before_the_core_add_their_bytes_at_their_share_of_hbm() -> None:
    passing = PLAIN.model_copy(update={"pass_efficiency": 0.5})
    shape = (3, [1, 700, 4096], 16, 16, 192, 128)
    plain = attention_time_s(CHIP, passing, *shape)
    passed = attention_time_s(CHIP, passing, *shape, passed_bytes=1000.0)
    seconds = 3 * np.array([1, 700, 4096]) * 1000.0 / (0.5 * CHIP.hbm_bytes_per_s)
    np.testing.assert_allclose(passed.time_s - plain.time_s, seconds)
    none = attention_time_s(CHIP, passing, *shape, passed_bytes=0.0)
    np.testing.assert_array_equal(none.time_s, plain.time_s)


def test_an_attention_that_mostly_passes_is_bound_by_memory() -> None:
    assert str(attention_time_s(CHIP, PLAIN, 1, 4096, 16, 16, 192, 128).bound) == "compute"
    passing = attention_time_s(CHIP, PLAIN, 1, 4096, 16, 16, 192, 128, passed_bytes=1e6)
    assert str(passing.bound) == "memory"


def test_a_roofline_counts_what_passes_before_the_core() -> None:
    plain, passed = (
        attention_work(2, 100, 4, 4, 192, 128, passed_bytes=each).moved_bytes for each in (0, 50.0)
    )
    assert float(passed - plain) == 2 * 100 * 50.0


def test_a_tiny_attention_is_its_launch() -> None:
    launched = PLAIN.model_copy(update={"launch_s": 1e-3})
    times = attention_time_s(CHIP, launched, 1, 1, 1, 1, 128, 128)
    assert str(times.bound) == "latency"
    assert float(times.time_s) == pytest.approx(1e-3, rel=0.01)


def test_phases_may_mix_in_one_call() -> None:
    shape = (1, 4096, 128, 128, 192, 128)
    both = attention_time_s(CHIP, PLAIN, *shape, backward=[False, True])
    apart = [attention_time_s(CHIP, PLAIN, *shape, backward=b).time_s for b in (False, True)]
    np.testing.assert_array_equal(both.time_s, apart)


def test_a_chip_without_the_format_is_refused() -> None:
    with pytest.raises(SpecError, match="no 'fp4' tensor rate"):
        attention_time_s(CHIP, PLAIN, 1, 1, 1, 1, 1, 1, tensor_family="fp4")
