"""A device that is none: kernels run in Triton's interpreter, clock and times are made up."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from calibration.measure.measurement import DRY_DEVICE
from calibration.measure.timing import Timing

ROW_S = 0.4
"""Seconds by which the clock moves with each row; about what a row takes on a GPU."""


class DryMachine:
    """Runs each kernel once, so that its numbers are real, and calls that a millisecond.

    Attributes:
        name: what every row then says.
    """

    device = torch.device("cpu")
    name, sms, driver = DRY_DEVICE, 132, ""

    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        """Return the seconds that have passed by this machine's own clock."""
        return self.now_s

    def facts(self) -> dict[str, Any]:
        """Return a name and no facts: there is no device."""
        return {"name": self.name, "capability": None, "sms": self.sms, "driver": self.driver}

    def warm_up(self, run: Callable[[], object]) -> float:
        """Run once."""
        run()
        self.now_s += ROW_S
        return 0.0

    def time(
        self,
        _run: Callable[[], object],
        repeats: int,
        *,
        sustained: bool = False,
        after: Callable[[], object] | None = None,
        launches: bool = False,
    ) -> Timing:
        """Return a millisecond."""
        self.now_s += ROW_S if sustained else 0.0
        return Timing(1e-3, 1e-3, 1e-3, repeats)

    def capture(self, _run: Callable[[], object]) -> Callable[[], object]:
        """Refuse.

        Raises:
            RuntimeError: there is no device whose launches could be captured.
        """
        raise RuntimeError("CUDA graphs are not available: there is no CUDA device")

    @contextlib.contextmanager
    def held(self, _sms: int, *, copying: bool) -> Iterator[None]:
        """Hold nothing."""
        yield

    def finish(self) -> None:
        """Wait for nothing; a check of numbers took its time."""
        self.now_s += ROW_S
