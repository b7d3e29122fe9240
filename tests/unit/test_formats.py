"""Number formats: bits, and the share of a scale."""

import pytest

from hwmodels.errors import SpecError
from hwmodels.formats import FORMATS, NumberFormat, number_format


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.name)
def test_sign_exponent_and_mantissa_fill_the_element(fmt: NumberFormat) -> None:
    """LogFMT-nBit has a sign and an n - 1 bit code, no exponent of its own (ISCA'25 §3.2)."""
    assert fmt.bits == 1 + fmt.exponent_bits + fmt.mantissa_bits


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.name)
def test_bytes_count_the_scales_and_element_bytes_do_not(fmt: NumberFormat) -> None:
    elements = 128 * 128
    scales = elements // fmt.scale_block if fmt.scale_block else 0
    assert fmt.bytes_of(elements) == elements * fmt.element_bytes + fmt.scale_bytes * scales


def test_a_token_of_7168_in_fp8_carries_56_scales() -> None:
    """DeepSeek-V3 §3.3.2: 1x128 tiles, one FP32 scale each."""
    assert FORMATS["fp8_1x128"].bytes_of(7168) == 7168 + 56 * 4


def test_a_block_of_four_bit_values_carries_one_byte_of_scale() -> None:
    """NVFP4: 16 values in 8 bytes and an E4M3 scale; MXFP8: 32 values and an E8M0 scale."""
    assert FORMATS["nvfp4"].bytes_of(16) == 9
    assert FORMATS["mxfp8"].bytes_of(32) == 33


def test_an_unknown_format_suggests_the_nearest() -> None:
    with pytest.raises(SpecError, match="number format 'bf61': unknown; did you mean 'bf16'"):
        number_format("bf61")


def test_a_known_format_is_found_by_name() -> None:
    assert number_format("fp8_e4m3").mantissa_bits == 3
