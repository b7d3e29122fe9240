"""Plain nested values on their way to a spec, and where each of them comes from."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict


class Source(BaseModel):
    """Where one value comes from, and how sure it is; `p10`, `p90` in the value's base unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text: str
    assumed: bool = False
    p10: float | None = None
    p90: float | None = None


@dataclass(slots=True)
class Document:
    """Plain nested values, and the source of each by dotted path.

    Attributes:
        given: paths at and below which values may stand that no preset states; "" for all.
        stated: leaves that the document itself states; what its base states is left out.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    stated: set[str] = field(default_factory=set)

    def source_of(self, path: str) -> Source | None:
        """Return the source of the nearest path at or above `path`, if any is given."""
        while path not in self.sources:
            if "." not in path:
                return None
            path = path.rpartition(".")[0]
        return self.sources[path]

    def forget(self, path: str) -> None:
        """Drop the sources at and below `path`."""
        self.sources = {p: s for p, s in self.sources.items() if not covers(path, p)}

    def is_given(self, path: str) -> bool:
        """Return whether the value at `path` may be one that no preset states."""
        return any(not root or covers(root, path) for root in self.given)

    def is_stated(self, path: str) -> bool:
        """Return whether the document itself states the value at `path`, or one below it."""
        return any(covers(path, leaf) or covers(leaf, path) for leaf in self.stated)


def covers(path: str, leaf: str) -> bool:
    """Return whether `leaf` is at or below `path`."""
    return leaf == path or leaf.startswith(f"{path}.")
