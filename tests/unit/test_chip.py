"""ChipSpec: rates by SMs, and what a chip must have."""

import pytest

from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.errors import SpecError
from hwmodels.spec import build, override


def h800_with(path: str, value: object) -> ChipSpec:
    document = CHIPS.document("h800")
    override(document, ChipSpec, path, value, "test")
    return build(ChipSpec, document, "h800")


def test_the_rate_is_in_proportion_to_the_sms() -> None:
    chip = CHIPS.load("h800")
    assert chip.tensor_flops_per_s("bf16", 66) == chip.tensor_flops_per_s("bf16") / 2


def test_a_rate_the_chip_lacks_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="chip a100: no 'fp8' tensor rate; known: bf16, tf32"):
        CHIPS.load("a100").tensor_flops_per_s("fp8")


def test_h800_is_h100_but_for_nvlink() -> None:
    """ISCA'25 §4.1."""
    differences = {"name", "nvlink_bytes_per_s"}
    h100, h800 = (CHIPS.load(n).model_dump() for n in ("h100", "h800"))
    assert {k for k in h100 if h100[k] != h800[k]} == differences
    assert h800["nvlink_bytes_per_s"] == 200e9


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sms", 0, "h800: sms: input should be greater than or equal to 1, got 0"),
        ("tensor", {"fp8": 1e15}, "h800: tensor: needs a 'bf16' peak, the yardstick of MFU"),
        (
            "hbm_bytes_per_s",
            "-1 TB/s",
            "h800: hbm_bytes_per_s: input should be greater than or",
        ),
        ("tdp_w", "700 V", "h800: tdp_w: expected a unit of W such as '700 W', got '700 V'"),
        ("generation", "volta", "h800: generation: input should be 'ampere', 'hopper' or"),
        ("hbm_bytes_per_s", float("inf"), "h800: hbm_bytes_per_s: expected a finite quantity"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(path: str, value: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        h800_with(path, value)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_chip_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        CHIPS.load("h800").sms = 1  # type: ignore[misc]
