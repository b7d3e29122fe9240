"""What everything that is told in a terminal shares: one look of tables."""

from rich.table import Table


def table(title: str, *columns: str) -> Table:
    """Return an empty table: first column left, the others right."""
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right")
    return grid
