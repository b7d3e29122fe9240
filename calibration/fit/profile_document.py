"""Write a kernel profile as a TOML preset: the same input gives the same bytes.

Every number comes with where it is from: a `Sourced` value is written in place as
`{ value = ..., source = ... }`, and a table may have one source for all that is below it. Floats
keep four significant digits: more would claim what no fit here knows, and would tie the file to
the last bits of one linear-algebra library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DIGITS = 4


@dataclass(frozen=True, slots=True)
class Sourced:
    """A value with its own source, and its distribution where it has one."""

    value: float
    source: str
    p10: float | None = None
    p90: float | None = None


@dataclass(slots=True)
class ProfileDocument:
    """What goes into the file.

    Attributes:
        comment: lines above everything.
        head: keys at the top level.
        tables: key-value tables by dotted path, in the order they are written.
        sources, assumed: citation, or reason of a guess, by dotted path.
    """

    comment: str
    head: Mapping[str, Any]
    tables: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    assumed: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the file."""
        blocks = [
            "\n".join(f"# {line}" for line in self.comment.splitlines()),
            _lines(self.head),
        ]
        for name, notes in (("sources", self.sources), ("assumed", self.assumed)):
            if notes:
                blocks.append(f"[{name}]\n{_lines(dict(sorted(notes.items())))}")
        blocks += [f"[{path}]\n{_lines(table)}" for path, table in self.tables.items()]
        return "\n\n".join(blocks) + "\n"


def rounded(value: float) -> float:
    """Return `value` with the digits a profile keeps."""
    return float(f"{value:.{DIGITS}g}")


def _lines(table: Mapping[str, Any]) -> str:
    return "\n".join(f"{_key(key)} = {_value(value)}" for key, value in table.items())


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, Sourced):
        entries = {"value": value.value, "p10": value.p10, "p90": value.p90}
        given = {key: entry for key, entry in entries.items() if entry is not None}
        return _value(given | {"source": value.source})
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, (tuple, list)):
        texts = [_value(entry) for entry in value]
        of_tables = bool(value) and isinstance(value[0], Mapping)  # one line each
        lines = "".join(f"\n    {text}," for text in texts) + "\n"
        return f"[{lines if of_tables else ', '.join(texts)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value) if isinstance(value, int) else repr(rounded(value))
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
