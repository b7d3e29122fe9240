"""What a communication takes, in parts that a slow link, or another user of it, lengthens."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np

from hwmodels.arrays import Floats


class Slow(NamedTuple):
    """By how much NICs and NVLink are slower than priced; arrays broadcast."""

    nic: Floats | float = 1.0
    nvlink: Floats | float = 1.0


AS_PRICED = Slow()


@dataclass(frozen=True, slots=True, eq=False)
class CommTimes:
    """(...) seconds of communications.

    Attributes:
        latency_s: before bytes move: launch, steps that wait for each other, notification.
        nic_s, nvlink_s: that all bytes need of NICs (links between switches among them), and of
            NVLink, each by itself.
        in_turn_s: by which stages that take turns exceed the longer of these, or faults that would
            speed bytes up are held back; 0 where all bytes move at once on whole links.
        spared_s: that NICs need in the direction in which switches copy or sum what they carry;
            None where both directions need `nic_s`.
    """

    latency_s: Floats
    nic_s: Floats
    nvlink_s: Floats
    in_turn_s: Floats | float = 0.0
    spared_s: Floats | None = None

    @property
    def moving_s(self) -> Floats:
        """Seconds in which bytes move."""
        return np.asarray(np.maximum(self.nic_s, self.nvlink_s) + self.in_turn_s)

    @property
    def lighter_s(self) -> Floats:
        """Seconds that NICs need in the direction of which switches take work."""
        return self.nic_s if self.spared_s is None else np.minimum(self.spared_s, self.nic_s)

    @property
    def seconds(self) -> Floats:
        """All of them."""
        return np.asarray(self.latency_s + self.moving_s)

    def slowed(self, slow: Slow) -> Self:
        """Return the same with slow links."""
        spared_s = None if self.spared_s is None else self.spared_s * slow.nic
        nic_s, nvlink_s = self.nic_s * slow.nic, self.nvlink_s * slow.nvlink
        return replace(self, nic_s=nic_s, nvlink_s=nvlink_s, spared_s=spared_s)
