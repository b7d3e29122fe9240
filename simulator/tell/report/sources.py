"""Where the values behind a page come from, as a table."""

from collections.abc import Iterable, Mapping
from typing import Any

from hwmodels.document import Source
from simulator.tell.exhibits import Column, Table


def source_table(sources: Mapping[str, Source], values: Mapping[str, Any]) -> Table:
    """Return a row a source: of which value, what that is, and whether it is a guess.

    Args:
        sources: by dotted path into `values`.
    """
    rows = tuple(
        (path, _leaf(values, path.split(".")), "assumed" * source.assumed, source.text)
        for path, source in sources.items()
    )
    return Table("", tuple(map(Column, ("input", "value", "", "source"))), rows)


def _leaf(values: Any, keys: Iterable[str]) -> str:
    """Return the value at a path as text; nothing where a source covers many values."""
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            return ""
        values = values[key]
    if isinstance(values, dict | list | tuple):
        return ""
    return f"{values:.6g}" if isinstance(values, float) else str(values)
