"""Quantities are read once at the door, and wrong ones are refused with an example."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import units
from hwmodels.errors import UnitError
from hwmodels.units import (
    BYTES,
    BYTES_PER_S,
    LINK_RATE,
    SECONDS,
    Dimension,
    format_quantity,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("80 GB", BYTES, 80e9),
        ("80 GiB", BYTES, 80 * 2**30),
        ("80GB", BYTES, 80e9),
        ("1_000 B", BYTES, 1000.0),
        ("400 Gb/s", BYTES_PER_S, 50e9),
        ("400 Gbps", BYTES_PER_S, 50e9),
        ("3.35 TB/s", BYTES_PER_S, 3.35e12),
        ("2.8 us", SECONDS, 2.8e-6),
        ("2.8 µs", SECONDS, 2.8e-6),
        ("1.5 h", SECONDS, 5400.0),
        ("989.4 TFLOPS", units.FLOPS_PER_S, 989.4e12),
        ("989.4 TFLOP/s", units.FLOPS_PER_S, 989.4e12),
        ("1.83 GHz", units.HERTZ, 1.83e9),
        ("0.7 kW", units.WATTS, 700.0),
        ("72 M$", units.USD, 72e6),
        ("-2e-3 s", SECONDS, -2e-3),
        ("12", BYTES, 12.0),
        (12, BYTES, 12.0),
        (0.5, SECONDS, 0.5),
    ],
)
def test_a_quantity_is_read_into_its_base_unit(
    text: Any, dimension: Dimension, value: float
) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-15)


def test_gb_is_decimal_and_gib_is_binary() -> None:
    gib, gb = parse_quantity("1 GiB", BYTES), parse_quantity("1 GB", BYTES)
    assert (gib, gb) == (1_073_741_824, 1_000_000_000)


@pytest.mark.parametrize(
    "wrong",
    ["80 GG", "GB", "", "80 GB/s", "1 2 GB", "nan", "inf", None, True, [80], "80 gb", 10**400],
)
def test_anything_else_is_refused_in_one_line_with_an_example(wrong: Any) -> None:
    with pytest.raises(UnitError, match=r"^expected a .*such as '80 GB', got .*$"):
        parse_quantity(wrong, BYTES)


def test_no_unit_belongs_to_two_dimensions() -> None:
    """`read_number` relies on it."""
    spelled = [unit for d in units._DIMENSIONS for unit in d.scales]
    assert len(spelled) == len(set(spelled))


@pytest.mark.parametrize(
    ("text", "value"), [("3 TB/s", 3e12), ("2 us", 2e-6), (0.7, 0.7), ("4", 4)]
)
def test_a_number_of_any_dimension_can_be_read(text: Any, value: float) -> None:
    assert units.read_number(text) == pytest.approx(value)


def test_a_number_of_no_dimension_is_refused() -> None:
    with pytest.raises(UnitError, match="got '3 parsec'"):
        units.read_number("3 parsec")


@pytest.mark.parametrize("dimension", units._DIMENSIONS, ids=lambda d: d.base)
def test_the_example_of_each_dimension_is_accepted(dimension: Dimension) -> None:
    assert parse_quantity(dimension.example, dimension) > 0


@given(
    value=st.floats(min_value=1e-9, max_value=1e21),
    dimension=st.sampled_from(units._DIMENSIONS),
)
def test_what_is_formatted_reads_back(value: float, dimension: Dimension) -> None:
    """parse(format(x)) = x, to the digits printed."""
    text = format_quantity(value, dimension.base, digits=17)
    assert math.isclose(parse_quantity(text, dimension), value, rel_tol=1e-15)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(units._DIMENSIONS))
def test_a_bare_number_is_already_in_the_base_unit(value: float, dimension: Dimension) -> None:
    assert parse_quantity(value, dimension) == value


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.35e12, "B/s", "3.35 TB/s"),
        (2.8e-6, "s", "2.8 us"),
        (90.0, "s", "90 s"),
        (0.0, "B", "0 B"),
        (math.inf, "B", "inf B"),
        (-2e9, "B", "-2 GB"),
    ],
)
def test_a_quantity_is_printed_with_the_prefix_that_reads_best(
    value: float, unit: str, text: str
) -> None:
    assert format_quantity(value, unit) == text


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["2 TB/s", "1800 GB/s", "16.8 Tb/s"], [2e12, 1.8e12, 2.1e12]),
        (["2 us", 1e-6, "3"], [2e-6, 1e-6, 3]),
        ([1, 2.5], [1, 2.5]),
    ],
)
def test_numbers_of_one_dimension_are_read_together(
    values: list[Any], numbers: list[float]
) -> None:
    assert units.read_alike(values) == pytest.approx(numbers)


@pytest.mark.parametrize("other", ["3 GHz", "3 s", "3 GB"])
def test_numbers_of_two_dimensions_are_refused_together(other: str) -> None:
    with pytest.raises(UnitError, match=f"a unit of B/s as in '2 GB/s', got '{other}'"):
        units.read_alike([1, "2 GB/s", other])


@given(
    st.sampled_from(["", "k", "M", "G", "T"]),
    st.sampled_from([("b", 1 / 8), ("bit", 1 / 8), ("B", 1.0)]),
    st.sampled_from(["/s", "ps"]),
    st.sampled_from(["", " "]),
    st.integers(1, 10_000),
)
def test_rates_are_read_however_bits_and_bytes_are_written(prefix, unit, per, gap, number):
    """400 Gb/s, 400Gbit/s, 400 Gbps and 50 GBps are one rate."""
    name, scale = unit
    factor = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    read = parse_quantity(f"{number}{gap}{prefix}{name}{per}", BYTES_PER_S)
    assert read == pytest.approx(number * factor * scale, rel=1e-12)


def test_a_link_of_a_network_is_sold_by_its_bits() -> None:
    """400G can mean one thing on a NIC or a switch, and nothing elsewhere."""
    assert parse_quantity("400G", LINK_RATE) == parse_quantity("400 Gb/s", BYTES_PER_S)
    assert parse_quantity("1.6T", LINK_RATE) == 2e11
    for dimension in (BYTES_PER_S, BYTES):
        with pytest.raises(UnitError, match="got '400G'"):
            parse_quantity("400G", dimension)
