"""Facts as tables when they know no better, and numbers as pages show them."""

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from hwmodels.spec import Spec
from simulator.tell.exhibits import LONG, Column, Table, by_fields, unit_of, words
from simulator.tell.report.digits import digits_for, unit_for
from simulator.tell.report.tables import shown_table


class Link(Spec):
    """One of several."""

    name: str
    busy_s: float


class Odd(Spec):
    """One of every kind of field."""

    kind: Literal["odd"] = "odd"
    step_s: float = 2.0
    count: int = 3
    label: str = "x"
    nothing: float | None = None
    busy_s: dict[str, float] = Field(default={"a_b": 1.0, "c": 2.0})
    delay_s: dict[str, float] = Field(default={"a_b": 3.0, "c": 4.0})
    memory_bytes: tuple[float, ...] = (1e9, 2e9)
    by_rank_s: dict[str, tuple[float, ...]] = Field(default={"one": (1.0, 2.0)})
    many_share: tuple[float, ...] = tuple(np.linspace(0, 1, LONG + 1))
    links: tuple[Link, ...] = (Link(name="l0", busy_s=5.0), Link(name="l1", busy_s=6.0))


def test_a_spec_shows_all_its_fields():
    single, named, short, long, links = by_fields("odd", Odd(), without=("kind",))
    assert single.rows == (("step", "2 s"), ("count", "3"), ("label", "x"), ("nothing", "none"))
    assert [column.title for column in named.columns] == ["name", "busy", "delay"]
    assert named.rows == (("a b", 1.0, 3.0), ("c", 2.0, 4.0))
    assert [(column.title, column.unit) for column in short.columns[1:]] == [
        ("memory", "bytes"),
        ("one", "s"),
    ]
    assert short.rows == (("0", 1e9, 1.0), ("1", 2e9, 2.0))
    assert [row[0] for row in long.rows] == ["least", "mean", "most"]
    assert [row[1] for row in long.rows] == pytest.approx([0.0, 0.5, 1.0])
    assert links.rows == (("l0", 5.0), ("l1", 6.0))


@pytest.mark.parametrize(
    ("name", "unit", "said"),
    [
        ("busy_s", "s", "busy"),
        ("tasks_per_s", "", "tasks per s"),
        ("rate_bytes_per_s", "B/s", "rate"),
        ("compute_share", "share", "compute"),
        ("count", "", "count"),
    ],
)
def test_a_name_ends_in_its_unit(name, unit, said):
    assert (unit_of(name), words(name)) == (unit, said)


def test_seconds_of_a_table_are_all_in_one_unit():
    table = Table("", (Column("a", "s"), Column("b", "s")), ((0.1362, 0.00159), (0.01, 0.001)))
    shown = shown_table(table)
    assert shown.head == (("a", "ms"), ("b", "ms"))
    assert [[cell.text for cell in row] for row in shown.rows] == [
        ["136.2", "1.59"],
        ["10.0", "1.00"],
    ]
    assert shown.rows[0][0].order == 0.1362


def test_a_bar_is_as_long_as_its_share_of_the_largest():
    table = Table("", (Column("a", "share", bars=True),), ((0.5,), (0.25,), (None,)))
    assert [row[0].bar for row in shown_table(table).rows] == [100.0, 50.0, None]


def test_a_table_without_rows_keeps_its_head():
    assert shown_table(Table("", (Column("a"), Column("b", "s")), ())).rows == ()


@given(
    st.lists(st.floats(1e-9, 1e15), min_size=1, max_size=20),
    st.sampled_from(["", "s", "bytes", "share", "USD"]),
)
def test_what_is_kept_is_what_is_read(values, unit):
    digits = digits_for(values, unit_for(values, unit), 5)
    for value, kept in zip(values, digits.rounded(np.array(values)).tolist(), strict=True):
        assert float(digits.text(value).replace(",", "")) == pytest.approx(kept, rel=1e-14)
    largest = max(values)
    assert math.isclose(
        max(digits.rounded(np.array(values))) * digits.unit.scale, largest, rel_tol=1e-4
    )


def test_whole_numbers_have_no_decimals():
    assert digits_for([20.0, 24.0], unit_for([20.0], ""), 5).decimals == 0
    assert digits_for([20.0, 24.5], unit_for([20.0], ""), 5).decimals == 1
    assert digits_for([0.0, math.nan], unit_for([], "s"), 5).decimals == 0
