"""A study in a terminal: the best points, the experiment's own, and what cannot run."""

import re
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from simulator.tell.headlines import Headline, shown
from simulator.tell.study_table import (
    FEASIBLE,
    FIDELITY,
    PARETO,
    POINT,
    REASON,
    AxisColumn,
    StudyTable,
    screened_name,
)

BEST = 8
NUMBERS = re.compile(r"[\d.,]+")
REASONS = 5


def best_rows(table: StudyTable) -> pd.DataFrame:
    """Return the feasible rows, those on the front first, each by the decisive objective."""
    decisive = table.column(table.document.objectives[0])
    able = table.feasible
    by = [PARETO, decisive.name] if PARETO in able else [decisive.name]
    ascending = [False, decisive.better != "more"][-len(by) :]
    return able.sort_values(by, ascending=ascending, kind="stable")


def summary(table: StudyTable) -> dict[str, Any]:
    """Return what is told of a study, as plain data."""
    document, frame = table.document, table.frame
    names = [axis.name for axis in document.axes] + list(document.objectives)
    best = best_rows(table).head(BEST)
    base = table.base_row
    return {
        "name": document.name,
        "title": document.title,
        "points": document.points,
        "rows": len(frame),
        "feasible": int(frame[FEASIBLE].sum()),
        "played": int((frame[FIDELITY] == "play").sum()),
        "objectives": list(document.objectives),
        "best": [_plain(row) for row in best[[POINT, *names]].to_dict("records")],
        "base": None if base is None else _plain(base[[POINT, *names]].to_dict()),
        "infeasible": reasons(table),
        "screen_off_by": screen_error(table),
    }


def _plain(row: dict[Any, Any]) -> dict[Any, Any]:
    """Return a row as JSON has it: what is not known is none."""
    return {name: None if pd.isna(value) else value for name, value in row.items()}


def reasons(table: StudyTable) -> dict[str, int]:
    """Return why points cannot run, and how many of each, the most frequent first; of reasons that
    differ in their numbers only, the first.
    """
    unable = table.frame[~table.frame[FEASIBLE]]
    alike = unable.groupby(unable[REASON].map(lambda reason: NUMBERS.sub("#", reason)))
    found = {str(group[REASON].iloc[0]): len(group) for _, group in alike}
    return dict(sorted(found.items(), key=lambda reason: -reason[1]))


def screen_error(table: StudyTable) -> dict[str, dict[str, float]]:
    """Return how far screen and play differ in each objective of a search, relative to play."""
    found = {}
    for name in table.document.objectives:
        if screened_name(name) not in table.frame:
            continue
        played = table.feasible[table.feasible[FIDELITY] == "play"]
        apart = (played[screened_name(name)] / played[name] - 1).dropna()
        if len(apart):
            found[name] = {
                "median": float(apart.median()),
                "most": float(max(apart, key=abs)),
                "points": float(len(apart)),
            }
    return found


def show_study(console: Console, table: StudyTable) -> None:
    """Print a study."""
    document, told = table.document, summary(table)
    console.print(f"[bold]{document.title}[/bold]", highlight=False)
    console.print(
        f"{told['rows']:,} of {document.points:,} points, {told['feasible']:,} can run, "
        f"{told['played']:,} played",
        highlight=False,
    )
    console.print(_grid(table))
    for name, apart in told["screen_off_by"].items():
        console.print(
            f"screen of {table.column(name).title}: {apart['median']:+.1%} from play in the "
            f"median, {apart['most']:+.1%} at most, of {apart['points']:.0f} played",
            highlight=False,
        )
    unable = list(told["infeasible"].items())
    for reason, count in unable[:REASONS]:
        console.print(f"{count:,} cannot run: {reason}", highlight=False, markup=False)
    if len(unable) > REASONS:
        console.print(f"and {len(unable) - REASONS} more reasons", highlight=False)


def _grid(table: StudyTable) -> Table:
    """Return the best rows and the experiment's own."""
    document = table.document
    objectives = [table.column(name) for name in document.objectives]
    grid = Table(box=None, header_style="bold")
    grid.add_column("point", justify="right")
    for title in [each.title for each in document.axes] + [each.title for each in objectives]:
        grid.add_column(title, justify="right")
    rows = [row for _, row in best_rows(table).head(BEST).iterrows()]
    base = table.base_row
    if base is not None and all(base[POINT] != row[POINT] for row in rows):
        rows.append(base)
    for row in rows:
        mark = " (the experiment's own)" if base is not None and row[POINT] == base[POINT] else ""
        cells = [
            *(shown_on(axis, row[axis.name]) for axis in document.axes),
            *(_told(column, row) for column in objectives),
        ]
        grid.add_row(f"{row[POINT]}{mark}", *cells)
    return grid


def shown_on(axis: AxisColumn, value: Any) -> str:
    """Return a value of an axis for people."""
    return str(value) if axis.labels else shown(value, axis.unit)


def _told(column: Headline, row: "pd.Series[Any]") -> str:
    told = shown(row[column.name], column.unit)
    low, high = f"{column.name}.p10", f"{column.name}.p90"
    if low in row and pd.notna(row[low]):
        told += f" ({shown(row[low], column.unit)} to {shown(row[high], column.unit)})"
    return told
