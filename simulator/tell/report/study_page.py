"""A study as one page: its answer, its points in linked plots and a table, what it rests on."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from simulator.tell.headlines import Headline, shown
from simulator.tell.report.page import render
from simulator.tell.report.sources import source_table
from simulator.tell.report.study_columns import page_columns
from simulator.tell.report.tables import shown_table
from simulator.tell.study_table import FEASIBLE, FIDELITY, PARETO, POINT, REASON, StudyTable

REASONS_SHOWN = 12
NUMBER = re.compile(r"\d[\d,]*(\.\d+)?(e[+-]?\d+)?")


def study_report(table: StudyTable) -> str:
    """Return the page of a study, all it needs inside."""
    document, reasons = table.document, list(_reasons(table))
    return render(
        "study.html",
        title=document.title,
        study=document,
        done=len(table.frame),
        cards=list(_cards(table)),
        reasons=reasons[:REASONS_SHOWN],
        hidden=len(reasons) - REASONS_SHOWN,
        infeasible=len(table.frame) - len(table.feasible),
        content={
            "rows": len(table.frame),
            "columns": list(page_columns(table)),
            "feasible": [int(each) for each in table.frame[FEASIBLE]],
            "objectives": list(document.objectives),
            "figures": [_figure(each, table) for each in document.figures],
        },
        sources=shown_table(source_table(document.sources, document.asked | document.base)),
        assumed=sum(source.assumed for source in document.sources.values()),
        asked=json.dumps(document.asked, indent=1),
        base=json.dumps(document.base, indent=1),
    )


@dataclass(frozen=True, slots=True)
class Card:
    """A number to look at first.

    Attributes:
        row: of the table that it is of; None where of none.
    """

    title: str
    value: str
    under: str
    row: int | None = None


def _cards(table: StudyTable) -> Iterator[Card]:
    """Yield the best point by each objective, the base, and how many points there are."""
    base, feasible = table.base_row, table.feasible
    for number, name in enumerate(table.document.objectives):
        column = table.column(name)
        values = feasible[name].dropna() if name in feasible else feasible[POINT].iloc[:0]
        if values.empty:
            continue
        place = int(values.argmax() if column.better == "more" else values.argmin())
        best = feasible.loc[values.index].iloc[place]
        title = f"best {column.title}" if number else f"best point: {column.title}"
        under = f"at {_where(table, best)}{_gain(column, best, base)}"
        yield Card(title, shown(best[name], column.unit), under, int(str(best.name)))
    if base is not None and table.document.objectives:
        column = table.column(table.document.objectives[0])
        under = f"at {_where(table, base)}"
        value = shown(base[column.name], column.unit)
        yield Card(f"the base: {column.title}", value, under, int(str(base.name)))
    yield Card("points", f"{len(table.frame):,}", _counted(table))


def _where(table: StudyTable, row: "pd.Series[Any]") -> str:
    """Return in words where on the axes a row is."""
    texts = []
    for axis in table.document.axes:
        value = row[axis.name]
        is_text = isinstance(value, str)
        texts.append(f"{axis.title} {value if is_text else shown(float(value), axis.unit)}")
    return ", ".join(texts)


def _gain(column: Headline, best: "pd.Series[Any]", base: "pd.Series[Any] | None") -> str:
    """Return how far the best is from the base."""
    if base is None or not base[column.name]:
        return ""
    if best.name == base.name:
        return ", the base itself"
    return f"; {best[column.name] / base[column.name] - 1:+.1%} to the base"


def _counted(table: StudyTable) -> str:
    frame, feasible = table.frame, table.feasible
    parts = [f"{len(feasible):,} can run"]
    if len(feasible) < len(frame):
        parts.append(f"{len(frame) - len(feasible):,} cannot")
    if len(frame) < table.document.points:
        parts.append(f"{table.document.points - len(frame):,} not done yet")
    if PARETO in frame and len(table.document.objectives) > 1:
        parts.append(f"{int(frame[PARETO].fillna(False).sum()):,} on the front of objectives")
    if FIDELITY in feasible and feasible[FIDELITY].nunique() > 1:
        counts = feasible[FIDELITY].value_counts()
        parts.append(", ".join(f"{count:,} by {name}" for name, count in counts.items()))
    return "; ".join(parts)


def _reasons(table: StudyTable) -> Iterator[tuple[int, str]]:
    """Yield why points cannot run and how many each stops, the most first; reasons that differ in
    numbers only are one, told by its first.
    """
    frame = table.frame
    stopped = frame.loc[~frame[FEASIBLE], REASON].fillna("").astype(str)
    alike = stopped.map(lambda reason: NUMBER.sub("#", reason))
    groups = stopped.groupby(alike, sort=False)
    for _, reasons in sorted(groups, key=lambda group: -len(group[1])):
        first = reasons.iloc[0] or "no reason was kept"
        yield len(reasons), f"{first} (and the like)" if reasons.nunique() > 1 else first


def _figure(figure: Any, table: StudyTable) -> dict[str, Any]:
    """Return what the explorer needs to show a figure of the study."""
    names = {axis.name for axis in table.document.axes} | {c.name for c in table.document.columns}
    y = [name for name in figure.y if name in names]
    return {"title": figure.title, "x": figure.x, "y": y[0] if y else None, "by": figure.by}
