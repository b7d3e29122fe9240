"""Price measured rows with given parameters, through the functions the simulator uses too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.read.trace_rows import TraceRow
from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec
from hwmodels.costs import Parameters, kernel_time_s
from hwmodels.errors import CalibrationError
from workloads.shapes import cost_shape


@dataclass(frozen=True, slots=True)
class Pricer:
    """Seconds of trace rows, alone on `sms` SMs of a chip, by family."""

    chip: ChipSpec
    sms: int
    families: Mapping[str, Parameters]

    def time_s(self, rows: Sequence[TraceRow]) -> Floats:
        """(rows,) seconds, undisturbed by communication.

        Raises:
            CalibrationError: a family has no parameters.
        """
        result = np.zeros(len(rows))
        index: dict[tuple[str, int], list[int]] = {}
        for number, row in enumerate(rows):
            output_bytes = getattr(row.op, "output_bytes", 0)
            index.setdefault((row.op.family, output_bytes), []).append(number)
        for (family, _), members in index.items():
            if family not in self.families:
                raise CalibrationError(f"fit: no parameters for family {family!r}")
            load = np.array([rows[i].load for i in members])
            shape = cost_shape([rows[i].op for i in members], load)
            result[members] = kernel_time_s(
                self.chip, self.families[family], shape, sms=self.sms
            ).time_s
        return result
