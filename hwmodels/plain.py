"""What any document may hold, before anything reads it: nested only so deep, text that is text."""

from collections.abc import Iterator, Mapping
from typing import Any

from hwmodels.errors import SpecError

DEPTH_MAX = 24
"""Levels of tables and lists; the deepest value of an experiment is on the sixth."""


def check_plain(values: Any, name: str = "") -> None:
    """Refuse values that code further in could not recurse through, or that no file could hold.

    Raises:
        SpecError: they are nested deeper than `DEPTH_MAX`, or text holds half a character.
    """
    where = f"{name}: " if name else ""
    level = [values]
    for _ in range(DEPTH_MAX + 1):
        for value in level:
            if isinstance(value, str) and not _is_text(value):
                raise SpecError(f"{where}text must be Unicode, got {value!a}")
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return
    raise SpecError(f"{where}must be nested at most {DEPTH_MAX} levels deep, got more")


def _inside(values: Any) -> Iterator[Any]:
    """Yield the keys and values of a table, the items of a list, nothing of anything else."""
    if isinstance(values, Mapping):
        yield from values
        yield from values.values()
    elif isinstance(values, list | tuple):
        yield from values


def _is_text(text: str) -> bool:
    """Return whether no character is half of a pair, as in arguments that are not UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
