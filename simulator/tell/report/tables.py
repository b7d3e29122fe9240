"""Tables as pages show them: every cell a text, and what it is sorted by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulator.tell.exhibits import Cell, Column, Table
from simulator.tell.headlines import Unit
from simulator.tell.report.digits import Digits, digits_for, unit_for

DIGITS = 4


@dataclass(frozen=True, slots=True)
class ShownCell:
    """A cell.

    Attributes:
        order: the number that its column is sorted by; None where by its text.
        bar: share of the column's largest, in percent; None where no bar is drawn.
    """

    text: str
    order: float | None = None
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class ShownTable:
    """A table whose cells are texts.

    Attributes:
        head: title and unit of each column.
        numeric: which columns hold numbers.
        note, strong, doubted: as of a `Table`.
    """

    title: str
    head: tuple[tuple[str, str], ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[ShownCell, ...], ...]
    note: str
    strong: bool
    doubted: frozenset[int]


def shown_table(table: Table) -> ShownTable:
    """Return a table as a page shows it, all its seconds in one unit, all its bytes in one."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    units = _units(table.columns, columns)
    drawn = [
        _column(each, cells, units) for each, cells in zip(table.columns, columns, strict=True)
    ]
    head = tuple(
        (column.title, unit) for column, (unit, _) in zip(table.columns, drawn, strict=True)
    )
    return ShownTable(
        title=table.title,
        head=head,
        numeric=tuple(column.unit is not None for column in table.columns),
        rows=tuple(zip(*(cells for _, cells in drawn), strict=True)),
        note=table.note,
        strong=table.strong,
        doubted=table.doubted,
    )


def _units(columns: Sequence[Column], cells: Sequence[Sequence[Cell]]) -> dict[str, Unit]:
    """Return what numbers of each unit are shown in, over all columns of a table."""
    found: dict[str, list[float]] = {}
    for column, each in zip(columns, cells, strict=True):
        if column.unit is not None:
            found.setdefault(column.unit, []).extend(_numbers(each))
    return {unit: unit_for(numbers, unit) for unit, numbers in found.items()}


def _column(
    column: Column, cells: Sequence[Cell], units: Mapping[str, Unit]
) -> tuple[str, list[ShownCell]]:
    """Return the unit of a column, for its head, and its cells."""
    if column.unit is None:
        return "", [ShownCell("" if cell is None else str(cell)) for cell in cells]
    numbers = _numbers(cells)
    digits = digits_for(numbers, units[column.unit], DIGITS)
    largest = max(map(abs, numbers), default=0.0)
    return digits.unit.suffix.strip(), [_number(column, cell, digits, largest) for cell in cells]


def _numbers(cells: Sequence[Cell]) -> list[float]:
    return [float(cell) for cell in cells if isinstance(cell, int | float)]


def _number(column: Column, cell: Cell, digits: Digits, largest: float) -> ShownCell:
    if not isinstance(cell, int | float):
        return ShownCell("" if cell is None else cell)
    bar = round(100 * abs(cell) / largest, 1) if column.bars and largest else None
    return ShownCell(digits.text(cell), float(cell), bar)
