"""How deep a document may be nested: all that reads one afterwards may recurse."""

from collections.abc import Collection, Mapping
from typing import Any

from hwmodels.errors import SpecError

DEPTH_MAX = 24
"""Levels of tables and lists; the deepest value of an experiment is on the sixth."""


def check_depth(values: Any, name: str = "") -> None:
    """Refuse values nested deeper than `DEPTH_MAX`, without recursion.

    Raises:
        SpecError: they are.
    """
    level = [values]
    for _ in range(DEPTH_MAX):
        level = [inner for each in level for inner in _inside(each) if _is_nest(inner)]
        if not level:
            return
    where = f"{name}: " if name else ""
    raise SpecError(f"{where}must be nested at most {DEPTH_MAX} levels deep, got more")


def _inside(values: Any) -> Collection[Any]:
    if isinstance(values, Mapping):
        return values.values()
    return values if isinstance(values, list | tuple) else ()


def _is_nest(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)
