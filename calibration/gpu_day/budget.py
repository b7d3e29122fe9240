"""The seconds of a day on a borrowed device, and how parts divide them."""

import time
from collections.abc import Callable


class Budget:
    """Seconds that run down, of which one part at a time may use some.

    A part gets its share of what is left among the parts still to come, or the least it is of use
    with; so what one leaves over, the later ones have, and no part takes more than there is.
    """

    def __init__(self, total_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start_s = clock()
        self._end_s = self._part_end_s = self._start_s + total_s

    @property
    def spent_s(self) -> float:
        """Seconds since the day began."""
        return self._clock() - self._start_s

    @property
    def left_s(self) -> float:
        """Seconds of the day that are left, none below zero."""
        return max(0.0, self._end_s - self._clock())

    @property
    def part_left_s(self) -> float:
        """Seconds of the running part that are left, none below zero."""
        return max(0.0, self._part_end_s - self._clock())

    def begin_part(self, share: float, shares_to_come: float, least_s: float) -> None:
        """Give a part its seconds.

        Args:
            share: of the part; shares_to_come: of the parts after it.
            least_s: what it gets at any rate, if there is so much.
        """
        fair_s = self.left_s * share / (share + shares_to_come)
        self._part_end_s = self._clock() + min(self.left_s, max(least_s, fair_s))
