"""Several specs as one whose numbers are columns, for functions of arrays that read its fields.

A cost function computes with the numbers of a spec and branches on the rest: on names, flags,
choices of a list, and on what may be absent. Specs that agree in the rest are one call.
"""

import typing
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from hwmodels.spec import Spec

S = TypeVar("S", bound=Spec)


class _Fields(NamedTuple):
    """Fields of a type of spec: numbers, open tables of them, and all others but the name."""

    numbers: tuple[str, ...]
    tables: tuple[str, ...]
    others: tuple[str, ...]


@cache
def _fields(kind: type[Spec]) -> _Fields:
    numbers, tables, others = [], [], []
    for name, field in kind.model_fields.items():
        annotation = field.annotation
        arms = [arm for arm in typing.get_args(annotation) or [annotation] if arm is not type(None)]
        bare = [typing.get_args(arm)[0] if typing.get_origin(arm) is typing.Annotated else arm
                for arm in arms]  # fmt: skip
        if typing.get_origin(annotation) is dict:
            tables.append(name)
        elif bare in ([int], [float]) and not name.endswith("_exponent"):
            # A power by a column is another function than a power by a number, to the last bit.
            numbers.append(name)
        elif name != "name":
            others.append(name)
    return _Fields(tuple(numbers), tuple(tables), tuple(others))


def structure(spec: Spec) -> Hashable:
    """Return what specs must agree in to be stacked."""
    fields = _fields(type(spec))
    absent = tuple(getattr(spec, name) is None for name in fields.numbers)
    keys = tuple(tuple(getattr(spec, name)) for name in fields.tables)
    return type(spec), absent, keys, tuple(getattr(spec, name) for name in fields.others)


def stacked(specs: Sequence[S], axes: int) -> S:
    """Return a spec in place of `specs`, which have one structure.

    Its numbers are (specs, 1, ...) columns with `axes` axes after the first; those that are the
    same in all specs stay numbers.
    """
    first = specs[0]
    if all(spec is first for spec in specs):
        return first
    fields = _fields(type(first))

    def column(values: list[Any]) -> Any:
        if all(value == values[0] for value in values):
            return values[0]
        return np.array(values, np.float64).reshape(-1, *(1,) * axes)

    numbers = {name: column([getattr(spec, name) for spec in specs]) for name in fields.numbers}
    tables = {
        name: {key: column([getattr(spec, name)[key] for spec in specs])
               for key in getattr(first, name)}
        for name in fields.tables
    }  # fmt: skip
    others = {name: getattr(first, name) for name in type(first).model_fields}
    return typing.cast("S", type(first).model_construct(**(others | numbers | tables)))
