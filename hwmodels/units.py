"""Quantities: read once at the door, plain SI floats inside.

A number in a document may be a bare number (already in the base unit) or a string with a
unit: `"3.35 TB/s"`, `"400 Gb/s"` (bits, divided by 8), `"80 GB"` (10^9), `"80 GiB"` (2^30),
`"2.8 us"`. Decimal and binary prefixes never mix: GB is 10^9 bytes, GiB is 2^30, always.

The types at the end are what a spec's numbers are made of. Their bounds are those of physics or of
a computer's memory, far from any machine: within them no product of a few inputs leaves the range
of a float, and what a count sizes can be held. A field may narrow them.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from hwmodels.errors import UnitError, shown

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}


@dataclass(frozen=True, eq=False)
class Dimension:
    """A kind of quantity: its base unit, the units it accepts, one example to show.

    Beside the type of a field it also marks a magnitude: a number whose bounds, `floor` and `most`,
    only keep out what no machine will be. Above zero and below `floor` a value is taken for a
    forgotten unit.
    """

    base: str
    scales: dict[str, float]
    example: str
    floor: float
    most: float


def _prefixed(unit: str, scale: float = 1.0, *, binary: bool = False) -> dict[str, float]:
    prefixes = _DECIMAL | (_BINARY if binary else {})
    return {prefix + unit: factor * scale for prefix, factor in prefixes.items()}


_BYTES = _prefixed("B", binary=True)
_BITS = _prefixed("b", 1 / 8) | _prefixed("bit", 1 / 8)
_FLOPS = _prefixed("FLOP") | _prefixed("FLOPS")

BYTES = Dimension("B", _BYTES, "80 GB", floor=1.0, most=1e15)
BYTES_PER_S = Dimension(
    "B/s",
    {f"{u}/s": f for u, f in (_BYTES | _BITS).items()}
    | {f"{u}ps": f for u, f in (_BYTES | _BITS).items()},
    "400 Gb/s",
    floor=1e6,
    most=1e18,
)
LINK_RATE = Dimension(
    "B/s",
    BYTES_PER_S.scales | {f"{prefix}": _DECIMAL[prefix] / 8 for prefix in ("G", "T")},
    "400 Gb/s",
    floor=1e6,
    most=1e18,
)
"""Of a network's link, which is also sold by its bits alone: 400G, 1.6T."""
SECONDS = Dimension(
    "s",
    {
        "s": 1.0,
        "ms": 1e-3,
        "us": 1e-6,
        "µs": 1e-6,
        "ns": 1e-9,
        "min": 60.0,
        "h": 3600.0,
        "d": 86400.0,
    },
    "2.8 us",
    floor=1e-15,
    most=1e6,
)
FLOPS_PER_S = Dimension(
    "FLOP/s",
    {f"{u}/s": f for u, f in _FLOPS.items()} | _prefixed("FLOPS"),
    "989.5 TFLOPS",
    floor=1e9,
    most=1e19,
)
HERTZ = Dimension("Hz", _prefixed("Hz"), "1.83 GHz", floor=1e6, most=1e12)
WATTS = Dimension("W", _prefixed("W"), "700 W", floor=1e-3, most=1e9)
USD = Dimension("USD", _prefixed("USD") | _prefixed("$"), "2 USD", floor=1e-3, most=1e12)
BYTES_PER_CLOCK = Dimension("B/clock", _prefixed("B/clock"), "128 B/clock", floor=1e-3, most=1e6)

RATIO = Dimension("", {}, "1.1", floor=1e-3, most=1e3)
"""Of two times: a plain number that is a magnitude all the same, and varies by factors."""

_DIMENSIONS = (BYTES, BYTES_PER_S, SECONDS, FLOPS_PER_S, HERTZ, WATTS, USD, BYTES_PER_CLOCK)

WRITTEN_MAX = 100
"""Characters of a written quantity."""

_QUANTITY = re.compile(r"\s*([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\s\d].*?)?\s*\Z")


def parse_quantity(value: Any, dimension: Dimension) -> float:
    """Return `value` in the base unit of `dimension`.

    Raises:
        UnitError: not a number or a number with a unit of this dimension.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _as_float(value, dimension.example)
    match = _written(value)
    if not match:
        raise UnitError(f"expected a quantity such as {dimension.example!r}, got {shown(value)}")
    number, unit = _as_float(float(match[1].replace("_", "")), dimension.example), match[2]
    if unit is None:
        return number
    if unit not in dimension.scales:
        raise UnitError(
            f"expected a unit of {dimension.base} such as {dimension.example!r}, got {shown(value)}"
        )
    return number * dimension.scales[unit]


def read_number(value: Any) -> float:
    """Return `value` in its base unit, whatever its dimension; no unit belongs to two.

    Raises:
        UnitError: not a number or a number with a known unit.
    """
    return parse_quantity(value, _dimension(value) or BYTES)


def read_alike(values: Iterable[Any]) -> list[float]:
    """Return numbers of one unknown dimension in its base unit; bare ones are of any.

    Raises:
        UnitError: one is no number with a known unit, or two are of different dimensions.
    """
    values = list(values)
    numbers = [read_number(value) for value in values]
    with_unit = [(value, d) for value in values if (d := _dimension(value))]
    for value, dimension in with_unit:
        first, expected = with_unit[0]
        if dimension is not expected:
            raise UnitError(
                f"expected a unit of {expected.base} as in {shown(first)}, got {shown(value)}"
            )
    return numbers


def _dimension(value: Any) -> Dimension | None:
    """Return the dimension of a number with a unit, None where it has none or a strange one."""
    match = _written(value)
    unit = match[2] if match else None
    return next((d for d in _DIMENSIONS if unit in d.scales), None)


def _written(value: Any) -> re.Match[str] | None:
    """Return number and unit of a text that is as short as quantities are."""
    is_short = isinstance(value, str) and len(value) <= WRITTEN_MAX
    return _QUANTITY.match(value) if is_short else None


def _as_float(number: float, example: str) -> float:
    """Return a number that Python's floats can hold.

    Raises:
        UnitError: it is too large, or none.
    """
    try:
        result = float(number)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise UnitError(f"expected a finite quantity such as {example!r}, got {shown(number)}")
    return result


def _reader(dimension: Dimension) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        number = parse_quantity(value, dimension)
        if 0 < number < dimension.floor:
            raise UnitError(
                f"expected at least {format_quantity(dimension.floor, dimension.base)}, such as "
                f"{dimension.example!r}; a bare number is in {dimension.base}, got {shown(value)}"
            )
        return number

    return read


def _bounds(dimension: Dimension) -> FieldInfo:
    bounds: FieldInfo = Field(ge=dimension.floor, le=dimension.most)
    return bounds


Bytes = Annotated[float, BeforeValidator(_reader(BYTES)), _bounds(BYTES), BYTES]
BytesPerSecond = Annotated[
    float, BeforeValidator(_reader(BYTES_PER_S)), _bounds(BYTES_PER_S), BYTES_PER_S
]
LinkRate = Annotated[float, BeforeValidator(_reader(LINK_RATE)), _bounds(LINK_RATE), LINK_RATE]
Seconds = Annotated[float, BeforeValidator(_reader(SECONDS)), Field(ge=0, le=SECONDS.most), SECONDS]
FlopsPerSecond = Annotated[
    float, BeforeValidator(_reader(FLOPS_PER_S)), _bounds(FLOPS_PER_S), FLOPS_PER_S
]
Hertz = Annotated[float, BeforeValidator(_reader(HERTZ)), _bounds(HERTZ), HERTZ]
Watts = Annotated[float, BeforeValidator(_reader(WATTS)), _bounds(WATTS), WATTS]
Usd = Annotated[float, BeforeValidator(_reader(USD)), Field(ge=0, le=USD.most), USD]
BytesPerClock = Annotated[
    float, BeforeValidator(_reader(BYTES_PER_CLOCK)), _bounds(BYTES_PER_CLOCK), BYTES_PER_CLOCK
]

Ratio = Annotated[float, _bounds(RATIO), RATIO]

LEAST_SHARE = 1e-4
"""Of a rate: what achieves less achieves nothing."""

Share = Annotated[float, Field(gt=LEAST_SHARE, le=1)]
"""What is achieved of a rate."""


def _none_or_some(load: float) -> float:
    """Refuse a load next to nothing, by which others could not be divided."""
    if 0 < load < 1 / MOST_LOAD:
        raise ValueError(f"must be 0, or from {1 / MOST_LOAD:g} to {MOST_LOAD:g}, got {load:g}")
    return load


MOST_LOAD = 1e6

Load = Annotated[float, Field(ge=0, le=MOST_LOAD), AfterValidator(_none_or_some)]
"""Of a rank, relative to others."""

Parts = Annotated[int, Field(ge=1, le=4096)]
"""Like parts of one machine: GPUs of a node, SMs of a chip, ports of a switch."""

Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
"""Sequences, tokens, words, ranks: what is counted, and held by no list."""

Width = Annotated[int, Field(ge=1, le=2**20, strict=True)]
"""Elements of a vector, heads of attention."""

Layers = Annotated[int, Field(ge=1, le=1024, strict=True)]
"""Layers of a model, stages of a pipeline: each is an object with its kernels."""

Experts = Annotated[int, Field(ge=1, le=2**16, strict=True)]
"""Experts of a layer and the GPUs that share them: each has a number in every draw."""

Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
"""Of what is drawn by chance."""


def format_quantity(value: float, unit: str, digits: int = 4) -> str:
    """Return `value` with the decimal prefix that reads best: `format_quantity(3.35e12, "B/s")`
    is `"3.35 TB/s"`; seconds go down to nanoseconds.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    prefixes = [
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1.0, ""),
    ]
    if unit == "s":
        prefixes = [(1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")]
    scale, prefix = next((p for p in prefixes if abs(value) >= p[0]), prefixes[-1])
    return f"{value / scale:.{digits}g} {prefix}{unit}"
