"""A study as people read it: a table with a row a point, and what its columns are.

A folder that a study wrote holds all of it, and needs nothing else to be read later and elsewhere:

    study.json       what was asked, by which version, and what the columns are
    table.parquet    a row a point, in their order; while a study runs, `rows/*.parquet` instead
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pandas as pd
from pydantic import Field

from hwmodels.document import Source
from hwmodels.errors import InputError, SpecError, found_at, suggestion
from hwmodels.spec import Spec, validate
from simulator.tell.headlines import Headline

DOCUMENT, TABLE, ROWS = "study.json", "table.parquet", "rows"

POINT, FEASIBLE, REASON, FIDELITY, SEED, PARETO = (
    "point", "feasible", "reason", "fidelity", "seed", "pareto",
)  # fmt: skip
"""Columns of every study beside its axes and numbers: the number of the point, whether it can run,
why not, whether it was played or screened, its seed, and whether no other point is better in all
objectives."""

KEPT = (POINT, FEASIBLE, REASON, FIDELITY, SEED, PARETO)

T = TypeVar("T")

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class AxisColumn(Spec):
    """An axis of a study, as a column.

    Attributes:
        title: words for people, without the unit.
        unit: base unit of its numbers, a key of `UNITS`; empty for counts and texts.
        labels: its values in order where they are texts; empty where they are numbers.
        log: its numbers are a ratio apart.
        base: the experiment's own value, a number or a label; None where it is none of the axis.
    """

    name: Name
    title: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    log: bool = False
    base: float | str | None = None


class FigureSpec(Spec):
    """A figure of a study: what over what.

    Attributes:
        kind: a module of `simulator.tell.study_figures`.
        name: of its file.
        title: states the finding.
        x: an axis, or a number for figures that set two numbers against each other.
        y: numbers; kinds that show one take the first.
        by: an axis with a curve, or a row, for each of its values.
        at: values of other axes; where one is left out, the best over it by `y`'s direction is
            shown.
        relative: numbers are shown as ratios to that of the base experiment's row.
    """

    kind: str
    name: Name
    title: str
    x: str
    y: tuple[str, ...]
    by: str | None = None
    at: dict[str, float | str] = Field(default_factory=dict)
    relative: bool = False


class StudyDocument(Spec):
    """All of `study.json`.

    Attributes:
        schema_version: of this layout.
        title: the question, about: what it shows, for people.
        axes: in their order, the last moving fastest.
        columns: the numbers of a row: name, words, unit, and which way they improve.
        objectives: names of columns, the decisive one first.
        points: rows that there are when all is done.
        digest: of everything that rows depend on.
        asked: the study's document, with its defaults.
        base: the resolved experiment that axes start from.
        sources: where values come from: of the base experiment by dotted path, of the study's own
            by `axes.NAME` and the names of its fields.
        version: of moesim.
    """

    schema_version: Literal[1] = 1
    name: str
    title: str
    about: str = ""
    axes: tuple[AxisColumn, ...]
    columns: tuple[Headline, ...]
    objectives: tuple[str, ...]
    figures: tuple[FigureSpec, ...] = ()
    points: int
    digest: str
    asked: dict[str, Any]
    base: dict[str, Any]
    sources: dict[str, Source] = Field(default_factory=dict)
    version: str


def screened_name(name: str) -> str:
    """Return the column of what a number was screened to be, in a search that played some."""
    return f"{name}.screened"


@dataclass(frozen=True, eq=False)
class StudyTable:
    """A study that ran, or part of it.

    Attributes:
        frame: a row a point, in their order.
    """

    document: StudyDocument
    frame: pd.DataFrame

    @classmethod
    def load(cls, folder: Path) -> "StudyTable":
        """Return the study in a folder, as far as it got.

        Raises:
            SpecError: there is none, or its files are damaged.
        """
        document = load_document(folder)
        table, rows = folder / TABLE, sorted((folder / ROWS).glob("*.parquet"))
        if not table.exists() and not rows:
            raise SpecError(f"{folder}: holds no row yet; go on with moesim study --resume")
        try:
            frames = [pd.read_parquet(file) for file in ([table] if table.exists() else rows)]
        except (OSError, ValueError) as error:
            raise SpecError(f"{folder}: a table there cannot be read: {error}") from None
        frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        frame = frame.drop_duplicates(POINT)  # parts of what was played come first
        return cls(document, frame.sort_values(POINT, ignore_index=True))

    def axis(self, name: str) -> AxisColumn:
        """Return an axis.

        Raises:
            InputError: there is none of that name.
        """
        return _named(name, {axis.name: axis for axis in self.document.axes}, "axis")

    def column(self, name: str) -> Headline:
        """Return what a number of the rows is.

        Raises:
            InputError: there is none of that name.
        """
        return _named(name, {each.name: each for each in self.document.columns}, "number")

    @property
    def feasible(self) -> pd.DataFrame:
        """The rows that can run."""
        return self.frame[self.frame[FEASIBLE]]

    @property
    def base_row(self) -> "pd.Series[Any] | None":
        """The row at the base experiment's own values; None where no point is that."""
        at = pd.Series(True, index=self.frame.index)
        for axis in self.document.axes:
            if axis.base is None:
                return None
            at &= self.frame[axis.name] == axis.base
        found = self.frame[at & self.frame[FEASIBLE]]
        return None if found.empty else found.iloc[0]


def load_document(folder: Path) -> StudyDocument:
    """Return what the study in a folder is.

    Raises:
        SpecError: there is none, or it is damaged.
    """
    file = folder / DOCUMENT
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise SpecError(
            f"{folder}: must be the folder of a study, got {found_at(file)} at {DOCUMENT}"
        ) from None
    except ValueError as error:
        raise SpecError(f"{file}: not JSON: {error}") from None
    return validate(StudyDocument, values, str(file))


def _named(name: str, known: Mapping[str, T], kind: str) -> T:
    if name not in known:
        raise InputError(f"{kind} {name!r}: the study has none{suggestion(name, known)}")
    return known[name]
