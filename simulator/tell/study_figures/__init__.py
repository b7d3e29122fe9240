"""Figures of a study: one module a kind, which makes a `Picture` of a `View`.

    table = StudyTable.load(Path("out/nics"))
    draw_study(table, Path("out/nics/figures"))
    plot(table, "step_time_s", x="nic", by="planes")    # shows itself in a notebook

A module of a kind has `ASKS`, what it asks of a `FigureSpec`, and `draw`; there is no list of them.
"""

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import pandas as pd

from hwmodels.errors import InputError, shown, suggestion
from simulator.tell.headlines import Headline
from simulator.tell.headlines import shown as with_unit
from simulator.tell.study_figures._view import view_of
from simulator.tell.study_figures._words import axis_values, value_text
from simulator.tell.study_table import FEASIBLE, FigureSpec, StudyDocument, StudyTable
from simulator.tell.style import STYLE, Picture

__all__ = ["KINDS", "check_figures", "default_figures", "draw_study", "picture", "plot"]

KINDS = tuple(each.name for each in pkgutil.iter_modules(__path__) if each.name[0] != "_")
"""Kinds of figures."""

CURVES_MAX = 8
"""Curves of a figure that nobody asked for."""


def draw_study(table: StudyTable, folder: Path) -> list[Path]:
    """Write the figures of a study as PNG, those of its document or, where it asks for none, each
    objective over the last axis, and return the files.

    Raises:
        InputError: a figure asks for what the study has not.
        OSError: they cannot be written.
    """
    specs = table.document.figures or default_figures(table)
    pictures = [picture(table, spec) for spec in specs]  # refused before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{spec.name}.png" for spec in specs]
    for file, drawn in zip(files, pictures, strict=True):
        drawn.save(file)
    return files


def plot(
    table: StudyTable,
    *y: str,
    x: str | None = None,
    by: str | None = None,
    at: Mapping[str, float | str] | None = None,
    relative: bool = False,
    kind: str | None = None,
    title: str | None = None,
) -> Picture:
    """Return a figure of a study, as `FigureSpec` describes it.

    Args:
        y: numbers, the decisive objective by default.
        x: the last axis by default.
        kind: curves by default, bars over texts, pareto where `x` is a number.
        title: says what is shown by default.

    Raises:
        InputError: it asks for what the study has not.
    """
    document = table.document
    names, over = y or document.objectives[:1], x or document.axes[-1].name
    if kind is None:
        is_number = over not in {axis.name for axis in document.axes}
        kind = "pareto" if is_number else _kind_over(table, over)
    finding = _finding(table, kind, names[0], over) if title is None else title
    spec = FigureSpec(
        kind=kind, name="figure", title=finding, x=over, y=names, by=by, at=dict(at or {}),
        relative=relative,
    )  # fmt: skip
    return picture(table, spec)


def picture(table: StudyTable, spec: FigureSpec) -> Picture:
    """Return a figure of a study.

    Raises:
        InputError: it asks for what the study has not, or no row can run.
    """
    module = _module(spec)
    view = view_of(table, spec, module.ASKS)
    view.check_rows(*view.numbers, *([view.x_number] if module.ASKS.x == "number" else []))
    with mpl.rc_context(STYLE):
        drawn: Picture = module.draw(view)
    return drawn


def check_figures(document: StudyDocument) -> None:
    """Refuse figures that the study could not draw, before any of it ran.

    Raises:
        InputError: one asks for what the study has not, or for an unknown kind.
    """
    names = [*(axis.name for axis in document.axes), FEASIBLE]
    nothing = StudyTable(document, pd.DataFrame({name: [] for name in names}))
    for spec in document.figures:
        view_of(nothing, spec, _module(spec).ASKS)
    if len({spec.name for spec in document.figures}) < len(document.figures):
        raise InputError("figures: must have a name of its own each, got one twice")


def default_figures(table: StudyTable) -> tuple[FigureSpec, ...]:
    """Return each objective over the last axis, and if there are two one against the other."""
    document = table.document
    *others, last = document.axes
    kind = _kind_over(table, last.name)
    by = [axis.name for axis in others if 1 < len(axis_values(axis, table.frame)) <= CURVES_MAX]
    figures = [
        FigureSpec(
            kind=kind,
            name=_file_name(name),
            title=_finding(table, kind, name, last.name),
            x=last.name,
            y=(name,),
            by=by[-1] if by else None,
        )
        for name in document.objectives
    ]
    if len(document.objectives) == 2:
        y, x = document.objectives
        title = _finding(table, "pareto", y, x)
        figures.append(FigureSpec(kind="pareto", name="pareto", title=title, x=x, y=(y,)))
    return tuple(figures)


def _module(spec: FigureSpec) -> ModuleType:
    if spec.kind not in KINDS:
        raise InputError(
            f"figure {spec.name}: kind: unknown {shown(spec.kind)}{suggestion(spec.kind, KINDS)}"
        )
    return import_module(f"{__name__}.{spec.kind}")


def _kind_over(table: StudyTable, name: str) -> str:
    return "bars" if table.axis(name).labels else "curves"


def _finding(table: StudyTable, kind: str, name: str, over: str) -> str:
    """Return what is best, in words; what is shown where neither way is better."""
    number = _told(table, name)
    if kind == "pareto":
        return f"{number.title} against {table.column(over).title}"
    axis = table.axis(over)
    rows = table.feasible
    if number.better is None or name not in rows or not rows[name].notna().any():
        return f"{number.title} over {axis.title}"
    in_order = rows[rows[name].notna()].sort_values(name)
    best = in_order.iloc[0 if number.better == "less" else -1]
    value, place = with_unit(best[name], number.unit), value_text(axis, best[over])
    return f"{number.title} over {axis.title}: best {value}, at {place}"


def _told(table: StudyTable, name: str) -> Headline:
    """Return what a number is; those below a name are told as one."""
    below = any(each.name.startswith(f"{name}.") for each in table.document.columns)
    return Headline(name, "where the time goes", "") if below else table.column(name)


def _file_name(name: str) -> str:
    return name.replace(".", "_").lower()[:40]
