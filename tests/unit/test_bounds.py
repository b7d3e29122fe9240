"""Every number of every spec has bounds: no list by hand, so that a new field cannot go without."""

import math
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from hwmodels.errors import SpecError
from hwmodels.fields import bounds_in
from hwmodels.plain import DEPTH_MAX, check_plain
from hwmodels.prices import PRICES
from hwmodels.spec import Catalogue, Kinded, Spec
from hwmodels.units import _DIMENSIONS, BYTES, Bytes
from simulator.experiment import EXPERIMENTS


def catalogues(spec: type[Spec] = Spec) -> Iterator[Catalogue[Any]]:
    """Yield the catalogues of the house, that is of specs that tests did not define."""
    for each in spec.__subclasses__():
        own = each.__dict__.get("catalogue")
        if own is not None and not each.__module__.startswith(("tests", "test_")):
            yield own
        yield from catalogues(each)


def numbers_in(
    annotation: Any, notes: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield the arms of a type that are no unions or containers, each with what is said of it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner, *outer = arguments
        said = [n for note in outer for n in getattr(note, "metadata", [note])]
        yield from numbers_in(inner, (*said, *notes))
    elif origin in (typing.Union, types.UnionType):
        for arm in arguments:
            yield from numbers_in(arm, notes)
    elif origin in (tuple, dict, list):
        for arm in arguments:
            yield from numbers_in(arm)
    else:
        yield annotation, notes


def fields(spec: type[BaseModel], seen: set[type]) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yield (name, type, annotations) of all that is below a spec, all kinds of a family too."""
    if spec in seen:
        return
    seen.add(spec)
    for name, field in spec.model_fields.items():
        for kind, notes in numbers_in(field.annotation, tuple(field.metadata)):
            yield f"{spec.__name__}.{name}", kind, notes
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                members = kind.kinds.values() if issubclass(kind, Kinded) else ()
                for member in (kind, *members):
                    yield from fields(member, seen)


SEEN: set[type] = set()
ROOTS = (EXPERIMENTS.spec, PRICES.spec, *(own.spec for own in catalogues()))
NUMBERS = [
    pytest.param(kind, notes, id=name)
    for root in ROOTS
    for name, kind, notes in fields(root, SEEN)
    if kind in (int, float)
]


def test_the_walk_reaches_every_spec_that_documents_describe() -> None:
    names = {spec.__name__ for spec in SEEN}
    assert {"Experiment", "Fp8Unit", "PriceSpec", "Protocol", "Dragonfly", "GQASpec"} <= names
    assert {"LowLatencyWork", "StragglerSpec", "FaultSpec", "GemmParameters"} <= names
    assert len(NUMBERS) > 150


@pytest.mark.parametrize(("kind", "notes"), NUMBERS)
def test_a_number_is_bounded_on_both_sides(kind: type, notes: tuple[Any, ...]) -> None:
    bounds = bounds_in(kind, notes)
    assert math.isfinite(bounds.low), "no least"
    assert math.isfinite(bounds.high), "no most"
    assert max(abs(bounds.low), abs(bounds.high)) <= 1e19


@pytest.mark.parametrize(("kind", "notes"), NUMBERS)
def test_a_number_takes_nothing_that_arithmetic_cannot_hold(
    kind: type, notes: tuple[Any, ...]
) -> None:
    """Far too much, and next to nothing of what others are divided by."""
    reader = TypeAdapter(typing.Annotated[kind, *notes] if notes else kind)
    too_much = [math.inf, -math.inf, math.nan, 1e308, -1e308, 10**400]
    bounds = bounds_in(kind, notes)
    if kind is float and (bounds.low > 0 or bounds.low_open):
        too_much += [5e-324, 1e-30]
    for number in too_much:
        with pytest.raises(ValidationError):
            reader.validate_python(number)


@pytest.mark.parametrize("dimension", _DIMENSIONS, ids=lambda d: d.base)
def test_products_and_quotients_of_three_magnitudes_stay_within_floats(dimension: Any) -> None:
    least, most = dimension.floor, dimension.most
    assert 0 < least < most
    assert math.isfinite((most / least) ** 3)
    assert (least / most) ** 3 > 0


@pytest.mark.parametrize("container", [lambda inner: {"a": inner}, lambda inner: [inner]])
def test_depth_is_told_without_recursion(container: Any) -> None:
    values: Any = 1
    for _ in range(DEPTH_MAX):
        values = container(values)
    check_plain(values)
    with pytest.raises(SpecError, match=rf"^x: must be nested at most {DEPTH_MAX} levels deep"):
        check_plain(container(values), "x")
    for _ in range(10**5):
        values = container(values)
    with pytest.raises(SpecError, match="levels deep"):
        check_plain(values)
    while values != 1:  # taken apart by hand: Python itself would recurse
        values = next(iter(values.values() if isinstance(values, dict) else values))


@pytest.mark.parametrize("values", ["a\udcff", {"a": ["\ud800"]}, {"\udfff": 1}])
def test_text_that_no_file_could_hold_is_refused(values: Any) -> None:
    with pytest.raises(SpecError, match=r"^x: text must be Unicode, got '.*ud[8cf]"):
        check_plain(values, "x")
    check_plain({"µ": ["𝛼", "\n", "\ue000"]})


def test_a_field_may_narrow_what_its_type_takes_and_is_no_magnitude_then() -> None:
    from pydantic import Field

    class Small(Spec):
        size: typing.Annotated[Bytes, Field(le=64)]
        other: Bytes

    narrow, wide = (
        bounds_in(float, Small.model_fields[name].metadata) for name in ("size", "other")
    )
    assert (narrow.high, narrow.dimension) == (64, None)
    assert (wide.high, wide.dimension) == (1e15, BYTES)
