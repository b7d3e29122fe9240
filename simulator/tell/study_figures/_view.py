"""What a figure shows of a study: some rows, some numbers of them, and the words for both."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from hwmodels.arrays import Floats
from hwmodels.errors import InputError, listed, shown
from simulator.tell.headlines import UNITS, Headline
from simulator.tell.study_figures._words import axis_values, value_text
from simulator.tell.study_table import (
    FEASIBLE,
    FIDELITY,
    POINT,
    REASON,
    AxisColumn,
    FigureSpec,
    StudyDocument,
    StudyTable,
)

SCREENED = "screen"
REASON_CHARACTERS, LABEL_CHARACTERS = 190, 44
BANDS = (".p10", ".p90")


@dataclass(frozen=True)
class Asks:
    """What a kind of figure asks of its `FigureSpec`.

    Attributes:
        x: what it is.
        by: whether there has to be one; "never" where none is shown.
        one_number: whether the first of `y` is all that is shown.
        improves: whether one way has to be better, of `x` too where it is a number.
        whole: whether several numbers make up a whole, so of one unit, and no ratios.
    """

    x: Literal["axis", "number"] = "axis"
    by: Literal["may", "must", "never"] = "may"
    one_number: bool = False
    improves: bool = False
    whole: bool = False


@dataclass(frozen=True, eq=False)
class View:
    """Rows of a study as a figure asks for them.

    Attributes:
        numbers: what `y` names.
        by: the axis with a curve, or a row, for each of its values.
    """

    table: StudyTable
    spec: FigureSpec
    numbers: tuple[Headline, ...]
    by: AxisColumn | None

    @property
    def document(self) -> StudyDocument:
        """What the study is."""
        return self.table.document

    @property
    def x(self) -> AxisColumn:
        """The axis along the figure."""
        return self.table.axis(self.spec.x)

    @property
    def x_number(self) -> Headline:
        """The number along the figure."""
        return self.table.column(self.spec.x)

    # --- rows -------------------------------------------------------------------------------

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All rows at the values that are asked for."""
        frame = self.table.frame
        for name, value in self.spec.at.items():
            frame = frame[_is(frame[name], value)]
        return frame

    @cached_property
    def base(self) -> "pd.Series[Any] | None":
        """The base experiment's row; None where the study, or what is shown of it, has none."""
        row = self.table.base_row
        return None if row is None or row[POINT] not in set(self.frame[POINT]) else row

    def values(self, axis: AxisColumn) -> list[Any]:
        """Return the values of an axis that are shown, in their order."""
        return axis_values(axis, self.frame)

    def runs(self, *numbers: Headline) -> pd.DataFrame:
        """Return the rows that can run and have some numbers."""
        has = self.frame[FEASIBLE].astype(bool)
        for number in numbers:
            has &= self.frame[number.name].notna()
        return self.frame[has]

    def check_rows(self, *numbers: Headline) -> None:
        """Refuse to show numbers that no row has.

        Raises:
            InputError: they are not there, or no point can run.
        """
        for number in numbers:
            if number.name not in self.frame or self.runs(number).empty:
                raise InputError(
                    f"figure {self.spec.name}: {number.name}: must be of a point that can run, "
                    f"got none in {len(self.frame):,} rows"
                )

    def best(self, number: Headline) -> pd.DataFrame:
        """Return of each value of `x` and `by` the best row, of those played where some are."""
        judge = number if number.better else self._decisive
        rows = self.runs(number)
        rank = rows[judge.name] * (1 if judge.better == "less" else -1)
        order = pd.DataFrame({"screened": rows[FIDELITY] == SCREENED, "rank": rank})
        rows = rows.loc[order.sort_values(["screened", "rank"], kind="stable").index]
        return rows.drop_duplicates(self._kept)

    def refused(self, number: Headline) -> pd.DataFrame:
        """Return a row of each value of `x` and `by` at which nothing can run."""
        refused = self.frame[~self.frame[FEASIBLE].astype(bool)].drop_duplicates(self._kept)
        able = self.runs(number)[self._kept].drop_duplicates()
        joined = refused.merge(able, how="left", on=self._kept, indicator=True)
        return joined[joined["_merge"] == "left_only"].drop(columns="_merge")

    @property
    def _kept(self) -> list[str]:
        return [self.spec.x, *([self.by.name] if self.by else [])]

    @property
    def _decisive(self) -> Headline:
        """The number that says which row is best where what is shown improves neither way."""
        return self.table.column(self.document.objectives[0])

    # --- numbers ----------------------------------------------------------------------------

    def amounts(self, rows: "pd.DataFrame | pd.Series[Any]", number: Headline) -> Any:
        """Return a number of some rows, or of one, as it is drawn."""
        return self._drawn(rows[number.name], number)

    def band(self, rows: pd.DataFrame, number: Headline) -> tuple[Floats, Floats] | None:
        """Return P10 and P90 of rows as they are drawn; None where the study has none."""
        names = [number.name + ending for ending in BANDS]
        if not set(names) <= set(rows.columns) or not rows[names].notna().any(axis=None):
            return None
        low, high = (
            np.asarray(self._drawn(rows[name].astype(float), number), np.float64) for name in names
        )
        return low, high

    def _drawn(self, values: Any, number: Headline) -> Any:
        return values / (self._reference(number) if self.spec.relative else _scale(number))

    def _reference(self, number: Headline) -> float:
        row = self.table.base_row
        value = np.nan if row is None else float(row[number.name])
        if not value or not np.isfinite(value):
            raise InputError(
                f"figure {self.spec.name}: relative: the study must have a row of its base "
                f"experiment that has {number.name}, got none"
            )
        return value

    def label(self, number: Headline, arrows: Literal["→←", "↑↓", ""] = "") -> str:
        """Return the words of a number, with its unit, and which way it improves."""
        unit = "" if self.spec.relative else UNITS[number.unit].suffix.strip()
        unit = "× base experiment" if self.spec.relative else unit
        text = ", ".join(word for word in (number.title, unit) if word)
        if number.better and arrows:
            text += f"  ({arrows[number.better == 'less']} better)"
        return textwrap.fill(text, LABEL_CHARACTERS)

    # --- words ------------------------------------------------------------------------------

    def caption(self, *, best: bool = True) -> str:
        """Return what else to know: where the rows are taken, and why some cannot run.

        Args:
            best: only the best over all other axes is shown.
        """
        lines, at = [], self.spec.at
        fixed = [f"{self.table.axis(name).title} {self._at_text(name)}" for name in at]
        over = [
            axis.title
            for axis in self.document.axes
            if best and axis.name not in (*self._kept, *at) and len(self.values(axis)) > 1
        ]
        words = ([f"at {', '.join(fixed)}"] if fixed else []) + (
            [f"best over {', '.join(over)}"] if over else []
        )
        if words:
            lines.append("; ".join(words))
        refused = self.frame[~self.frame[FEASIBLE].astype(bool)]
        if len(refused):
            reason = self.reason(refused[REASON].iloc[0], REASON_CHARACTERS)
            lines.append(
                f"{len(refused):,} of {len(self.frame):,} points cannot run, the first: {reason}"
            )
        if (self.runs()[FIDELITY] == SCREENED).any():
            lines.append("hollow: screened, not played")
        return "\n".join(lines)

    def reason(self, reason: Any, characters: int) -> str:
        """Return why a point cannot run, as long as there is room for."""
        name = str(self.document.base.get("name", ""))
        text = " ".join(str(reason).split()).removeprefix(f"{name}: ")
        return text if len(text) <= characters else f"{text[: characters - 3]}..."

    def _at_text(self, name: str) -> str:
        return value_text(self.table.axis(name), self.spec.at[name])


def view_of(table: StudyTable, spec: FigureSpec, asks: Asks) -> View:
    """Return what a figure shows.

    Raises:
        InputError: it asks for what the study has not, or for what its kind does not show.
    """
    where = f"figure {spec.name}"
    try:
        by = table.axis(spec.by) if spec.by is not None else None
        if asks.x == "axis":
            table.axis(spec.x)
        else:
            table.column(spec.x)
        numbers = tuple(found for name in spec.y for found in _numbers(table, name))
        for name, value in spec.at.items():
            _check_at(table.axis(name), value, table)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if asks.one_number:
        numbers = numbers[:1]
    if by is None and asks.by == "must":
        raise InputError(f"{where}: by: {spec.kind} must have an axis, got none")
    if by is not None and (asks.by == "never" or by.name == spec.x):
        raise InputError(f"{where}: by: must be an axis that is not shown yet, got {by.name!r}")
    view = View(table, spec, numbers, by)
    _check_numbers(view, asks)
    return view


def _check_numbers(view: View, asks: Asks) -> None:
    """Refuse numbers that a kind cannot show, be there rows or not."""
    numbers, where = view.numbers, f"figure {view.spec.name}: y"
    if not numbers:
        raise InputError(f"{where}: must name a number, got none")
    for number in (*numbers, *([view.x_number] if asks.x == "number" else [])):
        if asks.improves and number.better is None:
            raise InputError(
                f"{where}: {view.spec.kind} must have numbers that improve one way, "
                f"got {number.name}"
            )
    units = sorted({number.unit for number in numbers})
    if asks.whole and len(numbers) > 1 and (len(units) > 1 or view.spec.relative):
        given = "ratios" if view.spec.relative else f"units {', '.join(units)}"
        raise InputError(f"{where}: {view.spec.kind} of several must have one unit, got {given}")


def _numbers(table: StudyTable, name: str) -> Sequence[Headline]:
    """Return the number of a name, or all those below it, such as the phases of `breakdown_s`."""
    below = [each for each in table.document.columns if each.name.startswith(f"{name}.")]
    return below or [table.column(name)]


def _check_at(axis: AxisColumn, value: float | str, table: StudyTable) -> None:
    known = axis_values(axis, table.frame)
    if len(table.frame) and not any(_is(pd.Series([each]), value).all() for each in known):
        texts = listed([value_text(axis, each) for each in known])
        raise InputError(f"at.{axis.name}: must be one of {texts}, got {shown(value)}")


def _is(column: "pd.Series[Any]", value: float | str) -> "pd.Series[bool]":
    """Return where a column has a value; of numbers, to rounding."""
    if isinstance(value, str) or not pd.api.types.is_numeric_dtype(column):
        return column == value
    return pd.Series(np.isclose(column, value, rtol=1e-9, atol=0), index=column.index)


def _scale(number: Headline) -> float:
    return UNITS[number.unit].scale
