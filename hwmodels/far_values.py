"""Values far from those of every part we know: accepted, and told.

A what-if asks for twice the bandwidth, or ten times; a slip of the prefix makes a thousand. What a
part is compared with are the presets of its kind, read when a value of the user's is to be judged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from hwmodels.document import Document
from hwmodels.fields import bounds_of
from hwmodels.spec import Catalogue, Spec
from hwmodels.units import Dimension, format_quantity

FAR = 20.0
"""Times below the least or above the largest known value from which a value is told."""


@dataclass(frozen=True, slots=True)
class FarValue:
    """A value and the nearest known one, in the base unit of `dimension`.

    Attributes:
        kind, known: of presets, and the one that has the nearest value.
    """

    path: str
    value: float
    dimension: Dimension
    kind: str
    known: str
    nearest: float

    def __str__(self) -> str:
        """Return the value and the nearest one, for people."""
        times = max(self.value / self.nearest, self.nearest / self.value)
        side = "above" if self.value > self.nearest else "below"
        value, nearest = (
            format_quantity(number, self.dimension.base) for number in (self.value, self.nearest)
        )
        return (
            f"{self.path}: {value} is {times:.3g} times {side} every known {self.kind}, "
            f"the nearest is {self.known} with {nearest}"
        )


def far_values(spec: Spec, document: Document) -> tuple[FarValue, ...]:
    """Return the far values of a spec among those that no preset states.

    Args:
        document: what `spec` was built from.
    """
    if not document.given:
        return ()
    found = (
        _far_value(path, value, *anchor)
        for path, value, anchor in _anchored(spec, "", None)
        if value > 0 and document.is_given(path)
    )
    return tuple(far for far in found if far is not None)


def _anchored(
    owner: Any, path: str, anchor: tuple[Spec, str] | None
) -> Iterator[tuple[str, float, tuple[Spec, str]]]:
    """Yield (path, number, anchor) of all numbers below `owner`.

    The anchor is the innermost spec with presets of its own, and the path of the number in it.
    """
    if isinstance(owner, Spec) and owner.catalogue is not None:
        anchor = (owner, path)
    items = owner if isinstance(owner, Mapping) else owner.__dict__
    for key, value in items.items():
        below = f"{path}.{key}" if path else key
        if isinstance(value, BaseModel | Mapping):
            yield from _anchored(value, below, anchor)
        elif isinstance(value, float) and anchor is not None:
            part, place = anchor
            yield below, value, (part, below[len(place) :].removeprefix("."))


def _far_value(path: str, value: float, part: Spec, field: str) -> FarValue | None:
    """Return a value of `part` if it is a magnitude, and far."""
    dimension = bounds_of(part, field).dimension
    assert part.catalogue is not None, "parts with presets are looked at only"
    known = _known(part.catalogue, field) if dimension is not None else ()
    if dimension is None or not known:
        return None
    nearest, name = min(known, key=lambda preset: max(preset[0] / value, value / preset[0]))
    if 1 / FAR <= value / nearest <= FAR:
        return None
    return FarValue(path, value, dimension, part.catalogue.kind, name, nearest)


@lru_cache(maxsize=1024)
def _known(catalogue: Catalogue[Any], field: str) -> tuple[tuple[float, str], ...]:
    """Return the values above zero that presets have at `field`, with their names."""
    values = ((_at(_preset(catalogue, name), field), name) for name in catalogue.names())
    return tuple((value, name) for value, name in values if isinstance(value, float) and value > 0)


@lru_cache(maxsize=1024)
def _preset(catalogue: Catalogue[Any], name: str) -> Any:
    return catalogue.load(name)


def _at(spec: Any, field: str) -> Any:
    """Return the value at a dotted path, None where there is no such."""
    for key in field.split("."):
        spec = spec.get(key) if isinstance(spec, Mapping) else getattr(spec, key, None)
    return spec
