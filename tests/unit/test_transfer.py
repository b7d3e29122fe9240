"""Constants of one chip on another: what a generation and its power change, and how surely."""

import pytest

from hwmodels.chip import CHIPS
from hwmodels.costs import AttentionParameters, GemmParameters
from hwmodels.errors import UnknownPresetError
from hwmodels.transfer import (
    GENERATION_SPREAD,
    GENERATIONS,
    SIBLING_SPREAD,
    adapted,
    is_powered_alike,
    is_same,
    transfer_spread,
)

H200, B200, H20, A100 = (CHIPS.load(name) for name in ("h200", "b200", "h20", "a100"))
BF16 = GemmParameters(sustained_fraction=0.77, tile_overhead_cycles=2000, hbm_efficiency=0.84)


def test_nothing_changes_on_the_chip_itself():
    assert adapted(BF16, "h200", H200) == BF16


def test_a_sibling_with_the_same_power_for_its_tensor_cores_keeps_its_constants():
    assert adapted(BF16, "h200", CHIPS.load("h100")) == BF16


def test_a_chip_with_much_power_for_its_tensor_cores_never_meets_its_limit():
    assert adapted(BF16, "h200", H20).sustained_fraction == 1.0


def test_blackwell_meets_its_limit_sooner_by_power_and_energy():
    watts = (1000 / 2250) / (700 / 989.4)
    energy = GENERATIONS["blackwell"].tensor_energy
    found = adapted(BF16, "h200", B200)
    assert found.sustained_fraction == pytest.approx(0.77 * watts / energy, rel=1e-12)
    assert 0.6 < found.sustained_fraction < 0.7
    assert found.tile_overhead_cycles == pytest.approx(2000 * 370 / 1600, rel=1e-12)


def test_what_was_never_at_its_limit_is_not_put_there():
    unlimited = BF16.model_copy(update={"sustained_fraction": 1.0})
    assert adapted(unlimited, "h200", B200).sustained_fraction == 1.0


def test_ranges_of_the_constants_hold_after_a_transfer():
    for chip in map(CHIPS.load, CHIPS.names()):
        for origin in CHIPS.names():
            GemmParameters.model_validate(adapted(BF16, origin, chip).model_dump())


def test_attention_has_no_constant_of_a_generation():
    core = AttentionParameters(tensor_efficiency=0.7)
    assert adapted(core, "h200", A100) is core


def test_spread_grows_with_distance():
    assert transfer_spread("h200", H200) == 0
    assert transfer_spread("h200", H20) == SIBLING_SPREAD
    assert transfer_spread("h200", A100) == GENERATION_SPREAD > SIBLING_SPREAD


def test_a_chip_with_numbers_of_ones_own_is_still_the_chip():
    assert is_same("h200", H200.model_copy(update={"name": "h200, changed", "sms": 140}))
    assert not is_same("h200", B200)


def test_an_unknown_origin_is_refused():
    with pytest.raises(UnknownPresetError):
        adapted(BF16, "h2000", H200)


def test_tensor_cores_of_one_format_do_not_take_the_power_of_another():
    """Twice the BF16 rate at the same watts: BF16 sustains half its share, FP8 what it did."""
    tensor = H200.tensor | {"bf16": 2 * H200.tensor["bf16"]}
    chip = H200.model_copy(update={"tensor": tensor})
    assert adapted(BF16, "h200", chip, "fp8").sustained_fraction == 0.77
    assert adapted(BF16, "h200", chip).sustained_fraction == 0.4  # the least there is
    assert not is_powered_alike("h200", chip)
    assert is_powered_alike("h200", H200)
    assert is_powered_alike("mine", chip)


def test_a_chip_given_less_power_than_it_was_measured_with_sustains_less():
    """In proportion, at home as after a transfer; what never met its limit is left alone."""
    found = adapted(BF16, "h200", H200.model_copy(update={"tdp_w": 500.0}))
    assert found.sustained_fraction == pytest.approx(0.77 * 500 / 700, rel=1e-12)
