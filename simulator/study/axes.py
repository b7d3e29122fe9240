"""Axes of a study, read: the values of every field in base units, and what they are called."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.errors import InputError, SpecError, shown
from hwmodels.fields import Bounds, bounds_of
from hwmodels.spec import override
from hwmodels.units import parse_quantity, read_number
from simulator.experiment import Experiment
from simulator.study.document import POINTS_MAX, AxisSpec, RangeSpec, Values
from simulator.tell.study_table import AxisColumn

SHAPING = ("plan", "model")
"""What stands here may make a preset's layout give way, so that the document is read again."""

REFUSED = ("uncertainty", "uncertainty.draws")
"""Whether there are intervals is one answer for all rows."""

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
        digest: of what its presets and files say; empty where numbers say all.
    """

    name: str
    paths: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    column: AxisColumn
    shown: tuple[float | str, ...]
    by_numbers: bool
    digest: str

    def changes(self, place: int) -> dict[str, Any]:
        """Return the value of each path at a place."""
        return dict(zip(self.paths, self.values[place], strict=True))


def read_axis(spec: AxisSpec, base: Experiment) -> Axis:
    """Return an axis of a study of `base`.

    Raises:
        SpecError: a path leads nowhere, values cannot be read, or fields have unlike many.
    """
    if any(path in REFUSED for path in spec.set):
        raise SpecError(
            f"axes.{spec.name}: {' and '.join(REFUSED)} are the experiment's, not an axis'"
        )
    try:
        columns = {path: _values(path, given, base) for path, given in spec.set.items()}
    except SpecError as error:
        raise SpecError(f"axes.{spec.name}: {error}") from None
    counts = {path: len(values) for path, values in columns.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {path}" for path, count in counts.items())
        raise SpecError(
            f"axes.{spec.name}: fields that move together need equally many, got {told}"
        )
    paths, values = tuple(columns), tuple(zip(*columns.values(), strict=True))
    labels, names = _names(spec, values)
    given, bounds = next(iter(spec.set.values())), _bounds(base, paths[0])
    dimension = bounds.dimension.base if bounds and bounds.dimension and not labels else ""
    column = AxisColumn(
        name=spec.name,
        title=spec.title or paths[0],
        unit=UNITS.get(dimension, dimension),
        labels=labels,
        log=isinstance(given, RangeSpec) and given.log,
        base=_base_name(base, paths, values, names),
    )
    numeric = all(_bounds(base, path) for path in paths) and all(map(_are_numbers, values))
    # With other numbers a layout may give way, and a number that is moved is not drawn any more:
    # both are found out where the document is read.
    read_again = any(path.split(".")[0] in SHAPING for path in paths) or base.uncertainty.draws
    digest = _checked(spec.name, paths, values[:1] if numeric else values, base)
    return Axis(
        spec.name, paths, values, column, names, numeric and not read_again,
        "" if numeric else digest,
    )  # fmt: skip


def _names(
    spec: AxisSpec, values: tuple[tuple[Any, ...], ...]
) -> tuple[tuple[str, ...], tuple[float | str, ...]]:
    """Return the labels of an axis, none where all its values are numbers, and what each place is
    called.
    """
    if spec.labels and len(spec.labels) != len(values):
        raise SpecError(
            f"axes.{spec.name}.labels: must be {len(values)}, one a value, got {len(spec.labels)}"
        )
    first = [of_place[0] for of_place in values]
    labels = spec.labels or (() if all(map(_are_numbers, values)) else tuple(map(label, first)))
    names: tuple[float | str, ...] = labels or tuple(map(float, first))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SpecError(
            f"axes.{spec.name}: no two places may be called alike, got {shown(twice)} twice; give "
            f"labels"
        )
    return labels, names


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
    """Return a value, numbers of a field of numbers in its base unit."""
    if not is_number(value) and (bounds is None or value == "none" or not isinstance(value, str)):
        return value
    try:
        number = read_number(value) if not bounds or not bounds.dimension else parse_quantity(
            value, bounds.dimension
        )  # fmt: skip
    except InputError as error:
        raise SpecError(f"{path}: {error}") from None
    is_whole = bounds is not None and bounds.whole and number.is_integer()
    return int(number) if is_whole else value if is_number(value) else number


def _spaced(path: str, given: RangeSpec, bounds: Bounds | None) -> tuple[Any, ...]:
    if bounds is None:
        raise SpecError(f"{path}: a range needs a field of numbers")
    ends = [_read(path, end, bounds) for end in (given.start, given.stop, given.step or 1.0)]
    if not all(map(is_number, ends)):
        raise SpecError(f"{path}: a range goes from number to number, got {shown(given.start)}")
    start, stop, step = map(float, ends)
    if not start < stop:
        raise SpecError(f"{path}: a range must go up, got from {start:g} to {stop:g}")
    if given.count is None:
        numbers = _stepped(path, start, stop, step)
    elif given.log:
        if start <= 0:
            raise SpecError(f"{path}: a range of equal ratios must start above 0, got {start:g}")
        numbers = np.geomspace(start, stop, given.count)
    else:
        numbers = np.linspace(start, stop, given.count)
    if bounds.whole:
        numbers = np.round(numbers / bounds.step) * bounds.step
    kind = int if bounds.whole else float
    return tuple(dict.fromkeys(map(kind, numbers.tolist())))


def _stepped(path: str, start: float, stop: float, step: float) -> Floats:
    """Return numbers in equal steps, none beyond the last."""
    if step <= 0:
        raise SpecError(f"{path}: step must be above 0, got {step:g}")
    steps = (stop - start) / step * (1 + 1e-12)  # rounding takes no step away
    check_count(f"{path}: a range", steps + 1)
    return np.asarray(np.minimum(start + step * np.arange(math.floor(steps) + 1), stop))


def check_count(what: str, count: float) -> None:
    """Refuse more points than a study may have."""
    if count > POINTS_MAX:
        raise SpecError(f"{what}: must have at most {POINTS_MAX:,} points, got {count:,.0f}")


def _checked(
    name: str, paths: tuple[str, ...], values: tuple[tuple[Any, ...], ...], base: Experiment
) -> str:
    """Refuse paths that lead nowhere and presets there are not; return a digest of what presets
    say.

    What only cannot run is a row of the study, with its reason.
    """
    digest = hashlib.sha256()
    for of_place in values:
        document = deepcopy(base._document)
        try:
            for path, value in in_order(dict(zip(paths, of_place, strict=True))).items():
                override(document, Experiment, path, value, f"axes.{name}")
        except InputError as error:
            raise SpecError(f"axes.{name}: {error}") from None
        digest.update(json.dumps(document.values, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def in_order(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes so that what is inside another part is put in after that part."""
    return dict(sorted(changes.items(), key=lambda change: change[0].count(".")))


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


def told(given: Values) -> str:
    """Return the values of a field as they were asked for, in words."""
    if not isinstance(given, RangeSpec):
        return ", ".join(map(label, given))
    spaced = f"in steps of {given.step}" if given.count is None else f"{given.count} values"
    return f"{given.start} to {given.stop}, {spaced}" + ", equal ratios" * given.log


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(map(is_number, values))


def _base_name(
    base: Experiment,
    paths: tuple[str, ...],
    values: tuple[tuple[Any, ...], ...],
    names: tuple[float | str, ...],
) -> float | str | None:
    """Return what the place of an axis is called where it is what the base experiment is; None if
    nowhere.
    """
    own = tuple(_own_value(base, path) for path in paths)
    return next((name for name, given in zip(names, values, strict=True) if given == own), None)


def _own_value(base: Any, path: str) -> Any:
    """Return the value of an experiment at a path; of presets their name, of none "none"."""
    for key in path.split("."):
        base = base.get(key) if isinstance(base, Mapping) else getattr(base, key, None)
    return "none" if base is None else getattr(base, "name", base)
