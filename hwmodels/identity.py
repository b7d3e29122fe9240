"""Objects as keys of caches, by what they are and not by what they hold."""

from typing import Any


class Same:
    """Stands for an object in the key of a cache: equal to itself only, and kept alive by it.

    The object must not change: it is a frozen spec, a tuple, or a read-only array.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value
