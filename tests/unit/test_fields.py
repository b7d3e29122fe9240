"""Number fields by path: what they take, and numbers put in without reading a document."""

import math
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from hwmodels.errors import SpecError
from hwmodels.fields import Bounds, bounds_of, with_numbers
from hwmodels.spec import Spec
from hwmodels.units import BYTES_PER_S, BytesPerSecond


class Link(Spec):
    rate: BytesPerSecond = 50e9
    share: Annotated[float, Field(ge=0.4, le=1)] = 0.7
    lanes: Annotated[int, Field(ge=1, le=16)] | None = 4
    ports: Annotated[int, Field(gt=0, lt=65, multiple_of=2)] = 8
    kind: str = "x"
    broken: bool = False


class Box(Spec):
    link: Link = Link()
    factors: dict[str, Annotated[float, Field(ge=1, lt=10)]]
    links: dict[str, Link] | None
    spare: Link | None = None

    @model_validator(mode="after")
    def _factor_is_below_the_lanes(self) -> "Box":
        if self.link.lanes and self.factors["a"] > self.link.lanes:
            raise ValueError("factors: above the lanes")
        return self


BOX = Box(factors={"a": 1.5}, links={"b": Link()})


@pytest.mark.parametrize(
    ("path", "bounds"),
    [
        ("link.rate", Bounds(low=1e6, high=1e18, dimension=BYTES_PER_S)),
        ("link.share", Bounds(low=0.4, high=1)),
        ("link.lanes", Bounds(low=1, high=16, step=1)),
        ("link.ports", Bounds(low=0, high=65, low_open=True, high_open=True, step=2)),
        ("factors.a", Bounds(low=1, high=10, high_open=True)),
        ("links.b.share", Bounds(low=0.4, high=1)),
    ],
)
def test_a_field_says_what_it_takes(path, bounds):
    assert bounds_of(BOX, path) == bounds


@pytest.mark.parametrize(
    "path",
    [
        "link.kind",
        "link.broken",
        "link",
        "factors",
        "link.rat",
        "factors.b",
        "spare.rate",
        "",
        "a.",
    ],
)
def test_what_is_no_number_or_not_there_is_refused(path):
    with pytest.raises(SpecError, match=r"no such value|not a field of free numbers") as error:
        bounds_of(BOX, path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("bounds", "inner", "limits"),
    [
        (Bounds(), (-1, 1), (-math.inf, math.inf)),
        (Bounds(low=0.4, high=1), (0.6, 0.8), (0.4, 1)),
        (Bounds(low=0, low_open=True), (40, 50), (4, math.inf)),
        (Bounds(low=0.5, high=1e9, dimension=BYTES_PER_S), (40, 50), (4, 1e9)),
        (Bounds(low=20, high=1e9, dimension=BYTES_PER_S), (40, 50), (20, 1e9)),
        (Bounds(low=0, high=1e9, dimension=BYTES_PER_S), (40, 50), (0, 1e9)),
        (Bounds(low=1, high=11, low_open=True, high_open=True), (2, 6), (1.1, 10.5)),
        (Bounds(low=1, high=16, step=1), (3, 5), (1, 16)),
        (Bounds(low=0, high=65, low_open=True, high_open=True, step=2), (4, 8), (2, 64)),
        (Bounds(low=0, high=64, low_open=True, high_open=True, step=2), (4, 8), (2, 62)),
        (Bounds(low=1, high=15, step=2), (4, 8), (2, 14)),
    ],
)
def test_limits_are_the_ends_or_just_inside_those_that_are_not_allowed(bounds, inner, limits):
    assert bounds.limits(*inner) == pytest.approx(limits)


@given(
    rate=st.floats(1e6, 1e15),
    share=st.floats(0.4, 1),
    ports=st.integers(1, 32).map(lambda half: 2 * half),
    factor=st.floats(1, 4),
)
def test_numbers_put_in_give_the_spec_that_reading_them_gives(rate, share, ports, factor):
    before = BOX.model_dump_json()
    changed = with_numbers(
        BOX,
        {
            "link.rate": rate,
            "links.b.share": share,
            "link.ports": ports,
            "factors.a": factor,
        },
    )
    values = BOX.model_dump()
    values["link"] |= {"rate": rate, "ports": ports}
    values["links"]["b"]["share"] = share
    values["factors"]["a"] = factor
    assert changed == Box.model_validate(values)
    assert BOX.model_dump_json() == before  # the original is left alone


def test_what_is_beside_the_path_is_shared_not_copied():
    changed = with_numbers(BOX, {"factors.a": 2.0})
    assert changed.link is BOX.link
    assert changed.factors == {"a": 2.0}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"link.share": 0.3}, "share: input should be greater than or equal to 0.4, got 0.3"),
        ({"factors.a": 10.0}, "less than 10"),
        ({"link.lanes": 2.5}, "lanes: must be a whole number, got 2.5"),
        ({"factors.a": 5.0}, "factors: above the lanes"),
        ({"link.lanes": 1}, "factors: above the lanes"),
    ],
)
def test_numbers_are_held_to_the_rules_of_every_spec_they_change(numbers, message):
    with pytest.raises(SpecError, match=message):
        with_numbers(BOX, numbers)
