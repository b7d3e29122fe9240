"""Headline numbers: what comparing, sampling and drawing know of a result, whatever its kind."""

from typing import Literal, NamedTuple


class Unit(NamedTuple):
    """How numbers of a unit are shown: divided by `scale`, with `suffix` behind."""

    scale: float
    suffix: str


UNITS: dict[str, Unit] = {
    "": Unit(1.0, ""),
    "s": Unit(1.0, " s"),
    "bytes": Unit(1e9, " GB"),
    "B/s": Unit(1e9, " GB/s"),
    "Hz": Unit(1e9, " GHz"),
    "FLOP/s": Unit(1e12, " TFLOP/s"),
    "watts": Unit(1e3, " kW"),
    "USD/GPU": Unit(1.0, " USD"),
    "USD": Unit(1e6, " M USD"),
    "tokens/USD": Unit(1e6, " M tokens/USD"),
    "tokens/J": Unit(1.0, " tokens/J"),
    "share": Unit(0.01, " %"),
    "tokens/s": Unit(1.0, " tokens/s"),
    "tokens/day": Unit(1e9, " B"),
    "requests/s": Unit(1.0, " requests/s"),
    "TFLOP/s": Unit(1.0, " TFLOP/s"),
}
"""Units that numbers of results are in."""


class Headline(NamedTuple):
    """A number that results of a kind are compared by.

    Attributes:
        name: field of the metrics, or dotted path in the result.
        title: words for people.
        unit: of `UNITS`.
        better: which way it improves; None where neither is better.
    """

    name: str
    title: str
    unit: str
    better: Literal["less", "more"] | None = None


MEMORY = Headline("memory_bytes.total", "memory, fullest rank", "bytes", "less")
"""What every result has beside the headlines of its kind."""


def shown(value: float, unit: str, digits: str = ".4g") -> str:
    """Return a number with its unit: `shown(0.39, "share")` is `"39 %"`."""
    return f"{value / UNITS[unit].scale:{digits}}{UNITS[unit].suffix}"
