"""Number fields of a spec, found by dotted path: what they take, and how to put numbers in.

The path descends through specs and open tables alike: `gemm.bf16.sustained_fraction`.
"""

import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hwmodels.errors import SpecError, shown
from hwmodels.spec import validate
from hwmodels.units import Dimension

M = TypeVar("M", bound=BaseModel)

OPEN_END_SHARE = 0.1
"""How near to an end that is not allowed itself `Bounds.limits` goes, of the distance there is."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The numbers a field takes.

    Attributes:
        low, high: ends, infinite where there is none; `low_open`, `high_open`: not the end itself.
        step: the field takes multiples of it, 1 for whole numbers; 0 for any number.
        dimension: of a magnitude, whose ends are only those of what any machine could be.
    """

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    step: float = 0.0
    dimension: Dimension | None = None

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are taken."""
        return self.step >= 1 and self.step.is_integer()

    def limits(self, inner_low: float, inner_high: float) -> tuple[float, float]:
        """Return the least and the largest number to use, given two that are allowed.

        An end that is not allowed, or next to nothing (the least rate), is kept away from: the last
        tenth of the way from the inner number to it is left out, or the last step.
        """
        high = self._limit(self.high, self.high_open, inner_high)
        if self.dimension is not None and self.low > 0:
            return max(self.low, OPEN_END_SHARE * inner_low), high
        return -self._limit(-self.low, self.low_open, -inner_low), high

    def _limit(self, high: float, is_open: bool, inner: float) -> float:
        if math.isinf(high):
            return high
        if self.step:
            steps = math.floor(high / self.step)
            return self.step * (steps - (is_open and steps * self.step == high))
        return high - OPEN_END_SHARE * (high - inner) if is_open else high


def bounds_of(spec: BaseModel, path: str) -> Bounds:
    """Return what the number at `path` of `spec` may be.

    Raises:
        SpecError: there is no such field, or its numbers are not free (text, one of a list).
    """
    owner: Any = spec
    annotation: Any = type(spec)
    notes: list[Any] = []
    for key in path.split("."):
        if isinstance(owner, BaseModel) and key in type(owner).model_fields:
            field = type(owner).model_fields[key]
            annotation, notes = _peel(field.annotation)
            notes = [*notes, *field.metadata]
            owner = getattr(owner, key)
        elif isinstance(owner, Mapping) and key in owner:
            annotation, notes = _peel(typing.get_args(annotation)[1])
            owner = owner[key]
        else:
            raise SpecError(f"{path}: no such value")
    if annotation not in (int, float):
        raise SpecError(f"{path}: is not a field of free numbers, got {shown(owner)}")
    return bounds_in(annotation, notes)


def bounds_in(number: type, notes: Iterable[Any]) -> Bounds:
    """Return the bounds of an `int` or `float`, given what its annotations say, in their order."""
    found: dict[str, Any] = {"step": 1.0 if number is int else 0.0}
    dimension = None
    for note in notes:
        found |= _bound(note)
        dimension = note if isinstance(note, Dimension) else dimension
    is_narrowed = dimension is not None and found["high"] < dimension.most
    return Bounds(**found, dimension=None if is_narrowed else dimension)


def with_numbers(spec: M, numbers: Mapping[str, float]) -> M:
    """Return a copy with the number at each path replaced.

    Only the specs on the way are built anew, each by its own rules: much faster than a document,
    and nothing a document would be refused for gets through.

    Raises:
        SpecError: a number is out of bounds, or breaks a rule between fields.
    """
    rebuilt: M = _rebuilt(spec, numbers)
    return rebuilt


def _rebuilt(owner: Any, numbers: Mapping[str, float]) -> Any:
    """Return `owner`, a spec or an open table, with other numbers below it."""
    is_table = isinstance(owner, Mapping)
    if not is_table and not isinstance(owner, BaseModel):
        raise SpecError(f"{next(iter(numbers))}: there is no such part, got {shown(owner)}")
    old = owner if is_table else owner.__dict__
    changed = {
        key: _rebuilt(old.get(key), below) if below else numbers[key]
        for key, below in _by_first_key(numbers).items()
    }
    values = {**old, **changed}
    return values if owner is old else validate(type(owner), values)


def _by_first_key(numbers: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Group paths by their first key; nothing is below the last key of a path."""
    grouped: dict[str, dict[str, float]] = {}
    for path, number in numbers.items():
        key, _, rest = path.partition(".")
        below = grouped.setdefault(key, {})
        if rest:
            below[rest] = number
    return grouped


def _peel(annotation: Any) -> tuple[Any, list[Any]]:
    """Return a type without Annotated and Optional, and what they said about it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner, *outer = arguments
        kind, notes = _peel(inner)
        return kind, [*notes, *(said for note in outer for said in _said(note))]
    if origin in (typing.Union, types.UnionType):
        arms = [arm for arm in arguments if arm is not type(None)]
        if len(arms) == 1:
            return _peel(arms[0])
    return annotation, []


def _said(note: Any) -> Iterator[Any]:
    yield from note.metadata if isinstance(note, FieldInfo) else [note]


def _bound(note: Any) -> dict[str, Any]:
    """Return the part of `Bounds` that one piece of pydantic's metadata sets."""
    found: dict[str, Any] = {}
    for name, end, is_open in (
        ("ge", "low", False),
        ("gt", "low", True),
        ("le", "high", False),
        ("lt", "high", True),
    ):
        value = getattr(note, name, None)
        if value is not None:
            found |= {end: float(value), f"{end}_open": is_open}
    if getattr(note, "multiple_of", None) is not None:
        found["step"] = float(note.multiple_of)
    return found
