"""What a run shows on a page beside its metrics, as data: tables, and bars along ranks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwmodels.spec import Spec
from simulator.tell.headlines import shown

LONG = 64
"""Numbers in a row beyond which a page shows their least, mean and most instead."""

Cell = str | float | None
"""A text, a number in the base unit of its column, or nothing."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        unit: of its numbers, a key of `UNITS`; None where it holds texts.
        bars: a bar behind each number shows its share of the largest.
    """

    title: str
    unit: str | None = None
    bars: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table: rows of as many cells as there are columns.

    Attributes:
        note: below it, for people.
        strong: its last row is the sum of the others, and stays last.
        doubted: numbers of the rows whose values say little.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    strong: bool = False
    doubted: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Stack:
    """Bars on top of each other, one pile for each rank, or whatever they stand along.

    Attributes:
        along: what piles are numbered by, from 0.
        series: height of each pile's part, by its name; from the lowest.
        unit: of the heights, a key of `UNITS`.
    """

    title: str
    along: str
    series: dict[str, tuple[float, ...]]
    unit: str


Exhibit = Table | Stack


def by_fields(title: str, spec: Spec, without: Iterable[str] = ()) -> Iterator[Table]:
    """Yield tables of all that a spec holds, by the names of its fields.

    Single values are rows of one table; numbers by name, numbers in a row and specs in a row have
    tables of their own, those of the same names or length one together.
    """
    values = {name: getattr(spec, name) for name in type(spec).model_fields if name not in without}
    single: list[tuple[Cell, ...]] = []
    named: dict[tuple[str, ...], dict[str, tuple[Cell, ...]]] = {}
    listed: dict[int, dict[str, Sequence[float]]] = {}
    tables: list[Table] = []
    for name, value in values.items():
        if _is_named(value):
            named.setdefault(tuple(value), {})[name] = tuple(value.values())
        elif _is_listed(value):
            listed.setdefault(len(value), {})[name] = value
        elif isinstance(value, Mapping) and value and all(map(_is_listed, value.values())):
            unit = _unit_suffix(name)
            for key, numbers in value.items():
                listed.setdefault(len(numbers), {})[f"{key}{unit}"] = numbers
        elif _is_specs(value):
            tables.append(_of_specs(words(name), value))
        else:
            single.append((words(name), _single(name, value)))
    if single:
        yield Table(title, (Column(""), Column("value")), tuple(single))
    for keys, by_name in named.items():
        rows = tuple(zip(map(words, keys), *by_name.values(), strict=True))
        yield Table(title, (Column("name"), *map(_column, by_name)), rows)
    for length, in_a_row in listed.items():
        yield _of_numbers(title, length, in_a_row)
    yield from tables


def words(name: str) -> str:
    """Return a field's name for people, without its unit: `busy_s` is `busy`."""
    return name.removesuffix(_unit_suffix(name)).replace("_", " ").strip()


SUFFIXES = {"_bytes_per_s": "B/s", "_per_s": "", "_bytes": "bytes", "_share": "share", "_s": "s"}
"""Units by what a name ends in; the first that fits counts."""


def unit_of(name: str) -> str:
    """Return the unit, a key of `UNITS`, that the name of a field ends in."""
    return next((unit for suffix, unit in SUFFIXES.items() if name.endswith(suffix)), "")


def _unit_suffix(name: str) -> str:
    """Return what `words` takes off: the unit, where it is shown beside the number."""
    found = next((end for end in SUFFIXES if name.endswith(end)), "")
    return found if found and SUFFIXES[found] else ""


def _column(name: str) -> Column:
    return Column(words(name), unit_of(name))


def _single(name: str, value: Any) -> str:
    if _is_number(value):
        return shown(value, unit_of(name))
    return "none" if value is None else str(value)


def _of_numbers(title: str, length: int, columns: Mapping[str, Sequence[float]]) -> Table:
    """Return numbers in a row, place by place; their ends and mean where they are many."""
    if length <= LONG:
        rows = tuple(zip(map(str, range(length)), *columns.values(), strict=True))
        return Table(title, (Column("number"), *map(_column, columns)), rows)
    numbers = list(columns.values())
    rows = (
        ("least", *(min(each) for each in numbers)),
        ("mean", *(sum(each) / length for each in numbers)),
        ("most", *(max(each) for each in numbers)),
    )
    return Table(f"{title}, {length:,} of each", (Column(""), *map(_column, columns)), rows)


def _of_specs(title: str, specs: Sequence[Spec]) -> Table:
    """Return specs of one kind, one a row."""
    names = list(type(specs[0]).model_fields)
    numeric = {n: all(_is_number(getattr(each, n)) for each in specs) for n in names}
    columns = tuple(Column(words(n), unit_of(n) if numeric[n] else None) for n in names)
    rows = tuple(
        tuple(getattr(each, n) if numeric[n] else _single(n, getattr(each, n)) for n in names)
        for each in specs
    )
    return Table(title, columns, rows)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(_is_number, value.values()))


def _is_listed(value: Any) -> bool:
    return isinstance(value, tuple | list) and bool(value) and all(map(_is_number, value))


def _is_specs(value: Any) -> bool:
    if not isinstance(value, tuple | list) or not value:
        return False
    return isinstance(value[0], Spec) and all(type(each) is type(value[0]) for each in value)
