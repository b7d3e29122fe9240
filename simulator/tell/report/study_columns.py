"""The columns of a study as its page holds them: rounded to what is shown, and compact.

A page with 10,000 rows has to stay small: numbers have as many digits as are shown, and columns
with few different values hold each once.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from simulator.tell.exhibits import unit_of
from simulator.tell.headlines import UNITS
from simulator.tell.report.digits import Digits, digits_for, unit_for
from simulator.tell.study_table import (
    FEASIBLE,
    FIDELITY,
    PARETO,
    POINT,
    REASON,
    SEED,
    AxisColumn,
    StudyTable,
)

DIGITS, AXIS_DIGITS = 5, 12
FEW = 2
"""Values must be this many times as many as different ones for each to be held once."""

P10, P90 = ".p10", ".p90"
TITLES = {POINT: "point", FIDELITY: "fidelity", SEED: "seed", PARETO: "front", REASON: "reason"}
LAST = (PARETO, FIDELITY, SEED, REASON)
"""Columns that stand behind the numbers, in this order."""


def page_columns(table: StudyTable) -> Iterator[dict[str, Any]]:
    """Yield the columns of a study in the order of the page, as plain data.

    Every column has `name`, `title`, `unit` (words behind a number), `role` (point, axis, field,
    number or mark), `decimals` (None where numbers have significant digits instead), and its
    values: `values` as a list, or `kinds` and for each row the place of its value in them
    (`codes`). Numbers with an interval have its ends in `low` and `high`. None stands where a row
    has no value.
    """
    frame, document = table.frame, table.document
    yield _point(frame)
    for axis in document.axes:
        yield _axis(frame[axis.name], axis)
    numbers = {each.name: each for each in document.columns if each.name in frame}
    ends = {f"{name}{end}" for name in numbers for end in (P10, P90)}
    axes = {axis.name for axis in document.axes}
    known = axes | set(numbers) | ends | {POINT, FEASIBLE, *LAST}
    for name in (name for name in frame if name not in known):
        yield _field(frame[name], str(name))
    for name, each in numbers.items():
        told = [frame[each] for each in (name, f"{name}{P10}", f"{name}{P90}") if each in frame]
        digits = _digits(pd.concat(told), each.unit, DIGITS)
        column = _named(name, each.title, "number", digits) | {"better": each.better}
        yield column | _numbers(frame[name], digits) | _ends(frame, name, digits)
    for name in (name for name in LAST if name in frame):
        yield _named(name, TITLES[name], "mark") | _texts(frame[name])


def _point(frame: pd.DataFrame) -> dict[str, Any]:
    return _named(POINT, TITLES[POINT], "point") | {
        "decimals": 0,
        "grouped": False,
        "values": [int(point) for point in frame[POINT]],
    }


def _axis(column: "pd.Series[Any]", axis: AxisColumn) -> dict[str, Any]:
    """Return an axis: its values are shown to the last digit that they have."""
    if axis.labels or not pd.api.types.is_numeric_dtype(column):
        found = _named(axis.name, axis.title, "axis") | _texts(column, axis.labels)
        return found | {"base": None if axis.base is None else str(axis.base)}
    digits = _digits(column, axis.unit, AXIS_DIGITS)
    base = axis.base if isinstance(axis.base, int | float) else None
    return (
        _named(axis.name, axis.title, "axis", digits)
        | _numbers(column, digits)
        | {"log": axis.log, "base": None if base is None else _plain(base, digits)}
    )


def _field(column: "pd.Series[Any]", name: str) -> dict[str, Any]:
    """Return a field that moves with an axis, in the unit that its name ends in."""
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if not is_number:
        return _named(name, name, "field") | _texts(column)
    digits = _digits(column, unit_of(name), AXIS_DIGITS)
    return _named(name, name, "field", digits) | _numbers(column, digits)


def _named(name: str, title: str, role: str, digits: Digits | None = None) -> dict[str, Any]:
    unit = digits.unit if digits else UNITS[""]
    decimals = digits.decimals if digits else None
    return {
        "name": name,
        "title": title,
        "unit": unit.suffix.strip(),
        "role": role,
        "decimals": decimals,
        "text": digits is None and role != "point",
    }


def _numbers(column: "pd.Series[Any]", digits: Digits) -> dict[str, Any]:
    rounded = digits.rounded(_floats(column))
    whole = digits.decimals == 0
    return _compact([_number(value, whole) for value in rounded.tolist()])


def _ends(frame: pd.DataFrame, name: str, digits: Digits) -> dict[str, Any]:
    """Return the ends of a number's intervals; none if they are no wider than what is shown."""
    if f"{name}{P10}" not in frame or f"{name}{P90}" not in frame:
        return {}
    low, high = (digits.rounded(_floats(frame[f"{name}{end}"])) for end in (P10, P90))
    if not (high > low).any():
        return {}
    whole = digits.decimals == 0
    return {
        key: [_number(value, whole) for value in values.tolist()]
        for key, values in (("low", low), ("high", high))
    }


def _texts(column: "pd.Series[Any]", labels: Sequence[str] = ()) -> dict[str, Any]:
    """Return texts, each held once; of an axis in the order of its labels."""
    texts = [
        "" if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)
    ]
    kinds = list(dict.fromkeys([*labels, *texts]))
    place = {text: number for number, text in enumerate(kinds)}
    return {"kinds": kinds, "codes": [place[text] for text in texts]}


def _compact(values: list[float | int | None]) -> dict[str, Any]:
    """Return numbers as a list, or each once where many are alike."""
    kinds = sorted({value for value in values if value is not None})
    if FEW * len(kinds) > len(values):
        return {"values": values}
    place: dict[float | int | None, int] = {value: number for number, value in enumerate(kinds)}
    return {"kinds": [*kinds, None], "codes": [place.get(value, len(kinds)) for value in values]}


def _plain(value: float, digits: Digits) -> float | int | None:
    return _number(float(digits.rounded(np.array([value]))[0]), digits.decimals == 0)


def _number(value: float, whole: bool) -> float | int | None:
    """Return a number as JSON takes it, in as few digits as it has; None where there is none."""
    if not np.isfinite(value):
        return None
    return int(value) if whole or value.is_integer() else value


def _digits(column: "pd.Series[Any]", unit: str, digits: int) -> Digits:
    values = _floats(column)
    return digits_for(values, unit_for(values, unit), digits)


def _floats(column: "pd.Series[Any]") -> "np.ndarray[Any, np.dtype[np.float64]]":
    return column.to_numpy(dtype=np.float64, na_value=np.nan)
