"""Memory-bound kernels whose tensors may stay in L2: by hand, by law, and without L2 as ever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.costs import MemoryParameters, memory_op_time_s
from hwmodels.costs.memory_op import features
from hwmodels.errors import SpecError
from hwmodels.spec import validate

CHIP = CHIPS.load("h100").model_copy(
    update={"sms": 100, "peak_clock_hz": 1e9, "hbm_bytes_per_s": 1e12, "l2_bytes": 50e6}
)
WARM = MemoryParameters(
    launch_s=2e-6, hbm_efficiency=0.5, sm_bytes_per_clock=10.0, l2_usable=0.4, overlap_exponent=3.0
)
SLACK = 1 + 1e-9
SIZE = st.floats(0, 1e10)


def time_s(size: float, chip: ChipSpec = CHIP, sms: int = 100) -> float:
    return float(memory_op_time_s(chip, WARM, size, sms=sms).time_s)


def test_a_tensor_within_the_warm_part_of_l2_takes_what_the_sms_take() -> None:
    """20 MB is 0.4 of 50 MB; 100 SMs at 1 GHz move 1 TB/s."""
    assert time_s(20e6) == pytest.approx(2e-6 + 20e-6, rel=1e-12)


def test_of_a_tensor_of_twice_that_nothing_is_left_in_l2() -> None:
    """HBM at half of 1 TB/s takes 80 us, the SMs 40: (80^3 + 40^3)^(1/3)."""
    assert time_s(40e6) == pytest.approx(2e-6 + (80e-6**3 + 40e-6**3) ** (1 / 3), rel=1e-12)


def test_in_between_that_share_is_missed_by_which_it_is_larger() -> None:
    assert time_s(30e6) == pytest.approx(2e-6 + (30e-6**3 + 30e-6**3) ** (1 / 3), rel=1e-12)


def test_without_l2_the_slower_of_hbm_and_sms_is_all_to_the_last_bit() -> None:
    size = np.random.default_rng(0).uniform(0, 1e9, 1000)
    plain = MemoryParameters(hbm_efficiency=0.7315, launch_s=4.009e-06)
    both = plain.model_copy(update={"sm_bytes_per_clock": 5.0, "traffic": 1.3})
    hbm = 0.7315 * CHIP.hbm_bytes_per_s
    np.testing.assert_array_equal(
        memory_op_time_s(CHIP, plain, size, 3).time_s, 3 * 4.009e-06 + 1.0 * size / hbm
    )
    np.testing.assert_array_equal(
        memory_op_time_s(CHIP, both, size).time_s,
        4.009e-06 + 1.3 * size / np.minimum(hbm, 100 * 5.0 * 1e9),
    )


@given(SIZE, st.integers(1, 99), st.floats(0, 1e8))
def test_more_bandwidth_sms_or_clock_are_never_slower_and_more_bytes_never_faster(
    size: float, sms: int, more: float
) -> None:
    base_s = time_s(size, sms=sms)
    wide = CHIP.model_copy(update={"hbm_bytes_per_s": 1.5e12})
    fast = CHIP.model_copy(update={"peak_clock_hz": 1.1e9})
    assert time_s(size, wide, sms) <= base_s * SLACK
    assert time_s(size, fast, sms) <= base_s * SLACK
    assert time_s(size, sms=sms + 1) <= base_s * SLACK
    assert base_s <= time_s(size + more, sms=sms) * SLACK


@pytest.mark.parametrize("missing", ["l2_usable", "overlap_exponent", "sm_bytes_per_clock"])
def test_what_l2_spares_must_be_bound_by_the_sms(missing: str) -> None:
    given_ = {name: value for name, value in WARM.model_dump().items() if value is not None}
    del given_[missing]
    with pytest.raises(SpecError, match="l2_usable: needs"):
        validate(MemoryParameters, given_)


def test_features_tell_sizes_apart_by_octaves() -> None:
    found = features(CHIP, WARM, np.array([0.0, 1024.0, 2048.0]))
    np.testing.assert_allclose(found, [[0, 0], [10, 0], [11, 0]])
