"""Why pydantic refuses values, as the one line that all refusals are."""

import re
from collections.abc import Callable, Iterable, Sequence

from pydantic import ValidationError

from hwmodels.errors import listed, shown, suggestion

_PLAIN_KEY = re.compile(r"[\w+-]{1,60}", re.ASCII)


def refusal(
    error: ValidationError, name: str, keys_at: Callable[[Sequence[str]], Iterable[str]]
) -> str:
    """Return the first thing wrong as `name: path: reason, got value`.

    Args:
        name: of the document.
        keys_at: the keys that the table at a path may have.
    """
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"]]
    reason, value = str(first["msg"]).removeprefix("Value error, "), first["input"]
    if first["type"] == "extra_forbidden":
        reason = f"unknown key{suggestion(where[-1], keys_at(where[:-1]))}"
    elif first["type"] == "missing":
        reason = "missing"
    elif first["type"] in ("model_type", "model_attributes_type"):
        reason = f"is a table with keys {listed(keys_at(where))}, got {shown(value)}"
    elif first["type"] in ("int_parsing", "int_parsing_size", "int_type", "int_from_float"):
        reason = f"must be a whole number, got {shown(value)}"
    elif first["type"] != "value_error":  # those are ours and say what they got
        reason = f"{reason[:1].lower()}{reason[1:]}, got {shown(value)}"
    return ": ".join(part for part in (name, dotted(where), reason) if part)


def dotted(path: Iterable[str]) -> str:
    """Return a path for people: keys that could be misread, or are long, in quotes."""
    return ".".join(key if _PLAIN_KEY.fullmatch(key) else shown(key) for key in path)
