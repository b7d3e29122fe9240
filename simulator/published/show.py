"""Published and simulated figures as a table for a terminal."""

from collections.abc import Sequence

from rich.console import Console

from hwmodels.units import format_quantity
from simulator.published.reproduce import Row, headline
from simulator.tell.terminal import table


def show_published(console: Console, rows: Sequence[Row]) -> None:
    """Print published and simulated figures, kind by kind, and the headline error."""
    sampled = ["P10-P90"] if any(row.p10 is not None for row in rows) else []
    columns = ("id", "published", "simulated", *sampled, "error", "kind")
    grid = table("published and simulated", *columns)
    for row in rows:
        spread = [_published_range(row)] if sampled else []
        grid.add_row(
            row.id,
            _with_unit(row.published, row.unit),
            _with_unit(row.simulated, row.unit),
            *spread,
            f"{row.relative_error:+.1%}" if row.relative_error is not None else "",
            row.kind,
        )
    console.print(grid)
    console.print(headline(rows), highlight=False)


def _with_unit(value: float, unit: str) -> str:
    if unit in ("B", "s", "B/s", "FLOP", "tokens/s"):
        return format_quantity(value, unit, 5)
    return f"{value:.5g} {unit}".strip()


def _published_range(row: Row) -> str:
    if row.p10 is None or row.p90 is None:
        return ""
    return f"{_with_unit(row.p10, row.unit)} to {_with_unit(row.p90, row.unit)}"
