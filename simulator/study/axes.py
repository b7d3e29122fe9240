"""Axes of a study, read: the values of every field in base units, and what they are called."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwmodels.errors import InputError, SpecError, shown
from hwmodels.fields import Bounds, bounds_of
from hwmodels.spec import override
from hwmodels.units import parse_quantity, read_number
from simulator.experiment import Experiment
from simulator.study.document import POINTS_MAX, AxisSpec, RangeSpec, Values
from simulator.tell.study_table import AxisColumn

SHAPING = ("plan", "model")
"""What stands here may make a preset's layout give way, so that the document is read again."""

UNITS = {"B": "bytes", "W": "watts"}
"""Base units that are called otherwise in tables."""


@dataclass(frozen=True)
class Axis:
    """One axis, its values read.

    Attributes:
        values: of each place, one a path.
        column: what it is in tables.
        shown: of each place, what stands in its column.
        by_numbers: whether numbers can be put in without reading a document again.
    """

    name: str
    paths: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    column: AxisColumn
    shown: tuple[float | str, ...]
    by_numbers: bool

    def changes(self, place: int) -> dict[str, Any]:
        """Return the value of each path at a place."""
        return dict(zip(self.paths, self.values[place], strict=True))


def read_axis(spec: AxisSpec, base: Experiment) -> Axis:
    """Return an axis of a study of `base`.

    Raises:
        SpecError: a path leads nowhere, values cannot be read, or fields have unlike many.
    """
    columns = {path: _values(path, given, base) for path, given in spec.set.items()}
    counts = {path: len(values) for path, values in columns.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {path}" for path, count in counts.items())
        raise SpecError(
            f"axes.{spec.name}: fields that move together need equally many, got {told}"
        )
    values = tuple(zip(*columns.values(), strict=True))
    if spec.labels and len(spec.labels) != len(values):
        raise SpecError(
            f"axes.{spec.name}.labels: must be {len(values)}, one a value, got {len(spec.labels)}"
        )
    paths = tuple(columns)
    for place in range(len(values)):
        _check_paths(spec.name, dict(zip(paths, values[place], strict=True)), base)
    are_numbers = all(is_number(value) for of_place in values for value in of_place)
    first = [of_place[0] for of_place in values]
    labels = spec.labels or (() if are_numbers else tuple(map(label, first)))
    if len(set(labels or first)) < len(values):
        raise SpecError(f"axes.{spec.name}: values must differ, got {shown(labels or first)}")
    bounds = _bounds(base, paths[0])
    dimension = bounds.dimension.base if bounds and bounds.dimension and not labels else ""
    given = next(iter(spec.set.values()))
    column = AxisColumn(
        name=spec.name,
        title=spec.title or paths[0],
        unit=UNITS.get(dimension, dimension),
        labels=labels,
        log=isinstance(given, RangeSpec) and given.log,
        base=_base_place(base, paths, values, labels),
    )
    shaping = any(path.split(".")[0] in SHAPING for path in paths)
    numeric = are_numbers and all(_bounds(base, path) for path in paths)
    return Axis(spec.name, paths, values, column, labels or tuple(first), numeric and not shaping)


def _values(path: str, given: Values, base: Experiment) -> tuple[Any, ...]:
    """Return the values of one field: numbers in its base unit, all else as given."""
    bounds = _bounds(base, path)
    if isinstance(given, RangeSpec):
        return _spaced(path, given, bounds)
    return tuple(_read(path, value, bounds) for value in given)


def _bounds(base: Experiment, path: str) -> Bounds | None:
    """Return what the number at a path may be; None where it is no number."""
    try:
        return bounds_of(base, path)
    except SpecError:
        return None


def _read(path: str, value: Any, bounds: Bounds | None) -> Any:
    is_text = isinstance(value, str) and value != "none"
    if bounds is None or not is_text:
        return value
    if bounds.dimension is None:
        return _whole(read_number(value), bounds)
    try:
        return _whole(parse_quantity(value, bounds.dimension), bounds)
    except InputError as error:
        raise SpecError(f"{path}: {error}") from None


def _whole(number: float, bounds: Bounds | None) -> float | int:
    return round(number) if bounds is not None and bounds.whole else number


def _spaced(path: str, given: RangeSpec, bounds: Bounds | None) -> tuple[Any, ...]:
    if bounds is None:
        raise SpecError(f"{path}: a range needs a field of numbers")
    start, stop = (_read(path, end, bounds) for end in (given.start, given.stop))
    if not start < stop:
        raise SpecError(f"{path}: a range must go up, got from {start:g} to {stop:g}")
    if given.count is None:
        step = _read(path, given.step, bounds)
        if step <= 0:
            raise SpecError(f"{path}: step must be above 0, got {step:g}")
        count = math.floor((stop - start) / step * (1 + 1e-12)) + 1
        check_count(f"{path}: a range", count)
        numbers = start + step * np.arange(count)
    elif given.log:
        if start <= 0:
            raise SpecError(f"{path}: a range of equal ratios must start above 0, got {start:g}")
        numbers = np.geomspace(start, stop, given.count)
    else:
        numbers = np.linspace(start, stop, given.count)
    return tuple(dict.fromkeys(_whole(number, bounds) for number in numbers.tolist()))


def check_count(what: str, count: int) -> None:
    """Refuse more points than a study may have."""
    if count > POINTS_MAX:
        raise SpecError(f"{what}: must have at most {POINTS_MAX:,} points, got {count:,}")


def _check_paths(name: str, changes: Mapping[str, Any], base: Experiment) -> None:
    """Refuse paths that lead nowhere, presets there are not, and numbers out of all bounds.

    What only cannot run is a row of the study, with its reason.
    """
    try:
        document = deepcopy(base._document)
        for path, value in changes.items():
            override(document, Experiment, path, value, f"axes.{name}")
    except InputError as error:
        raise type(error)(f"axes.{name}: {error}") from None


def is_number(value: Any) -> bool:
    """Return whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def label(value: Any) -> str:
    """Return what a value that is no number is called."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return str(value.get("base", value.get("kind", dict(value))))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _base_place(
    base: Experiment,
    paths: tuple[str, ...],
    values: tuple[tuple[Any, ...], ...],
    labels: tuple[str, ...],
) -> float | str | None:
    """Return what an axis shows where it is what the base experiment is; None if nowhere."""
    own = tuple(_own_value(base, path) for path in paths)
    place = next((place for place, given in enumerate(values) if given == own), None)
    if place is None:
        return None
    return labels[place] if labels else float(values[place][0])


def _own_value(base: Any, path: str) -> Any:
    """Return the value of an experiment at a path; of presets their name, of none "none"."""
    for key in path.split("."):
        base = base.get(key) if isinstance(base, Mapping) else getattr(base, key, None)
    return "none" if base is None else getattr(base, "name", base)
