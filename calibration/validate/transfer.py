"""Prices of one chip's kernels, moved to the H800, beside DeepSeek's training trace."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.fit.interference import interference_factors, undisturbed_s
from calibration.read.dualpipe_trace import COMPUTE_SMS
from calibration.read.trace_rows import TraceRow
from hwmodels.arrays import Floats

CHIP, SMS = "h800", COMPUTE_SMS
"""Where the trace was taken, and the SMs that its kernels had."""


@dataclass(frozen=True, slots=True)
class TransferLine:
    """A family of the trace, per layer pair; all of them together under the name `all`.

    Attributes:
        measured_s: undisturbed by communication.
        error: simulated / measured - 1.
    """

    family: str
    measured_s: float
    simulated_s: float
    error: float


def transfer_lines(rows: Sequence[TraceRow], simulated_s: Floats) -> list[TransferLine]:
    """Return the families of a trace beside their prices, the longest first.

    Args:
        simulated_s: (rows,) seconds of each row alone on the SMs of the trace.
    """
    factors = interference_factors(rows)
    alone_s = undisturbed_s(rows, {name: factor.value for name, factor in factors.items()})
    layers = len({row.layer for row in rows})
    families: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        families.setdefault(row.op.family, []).append(number)
    lines = [
        _line(family, alone_s[index].sum() / layers, simulated_s[index].sum() / layers)
        for family, index in families.items()
    ]
    whole = _line("all", alone_s.sum() / layers, simulated_s.sum() / layers)
    return [whole, *sorted(lines, key=lambda line: -line.measured_s)]


def _line(family: str, measured_s: float, simulated_s: float) -> TransferLine:
    return TransferLine(
        family, float(measured_s), float(simulated_s), float(simulated_s / measured_s - 1)
    )
