"""What is worked out once and kept while there is room: plans, and how long their flows take.

Room is counted in rows of flows, each about 40 bytes, so that a few plans of thousands of GPUs or
thousands of small ones stay below half a gigabyte. What was used least recently goes first.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

T = TypeVar("T")

ROWS_KEPT = 10_000_000


class Kept:
    """Values by key, each with the rows it holds on to."""

    def __init__(self, rows_max: int = ROWS_KEPT) -> None:
        self.rows_max = rows_max
        self.rows = 0
        self._values: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], T], rows: Callable[[T], int]) -> T:
        """Return the value of `key`, made now if it is not there.

        Args:
            rows: how many it holds on to, its key included.
        """
        if key in self._values:
            self._values.move_to_end(key)
            return cast("T", self._values[key][0])
        value = make()
        self._values[key] = value, rows(value)
        self.rows += rows(value)
        while self.rows > self.rows_max and len(self._values) > 1:
            _, (_, gone) = self._values.popitem(last=False)
            self.rows -= gone
        return value

    def forget(self) -> None:
        """Drop everything."""
        self._values.clear()
        self.rows = 0
