"""The kernels of the busiest GPU of a trace as columns: what they are, when, and on which side.

A stream whose kernels communicate for more than half of its time is one of communication, however
many casts and layouts it runs too; all others compute.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.read.intervals import Intervals
from calibration.read.kernel_classes import COMMUNICATION, KernelClass, classify
from calibration.read.torch_trace import TorchTrace, TraceKernel
from hwmodels.arrays import Floats, Mask
from hwmodels.errors import CalibrationError

COMPUTE = "compute"
WAITING = "notify"
"""Class of the kernels that wait for other ranks before a transfer, and move next to nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTime:
    """Kernels of one GPU, copies among them, as columns of one length.

    Attributes:
        device: its number.
        kernels, classes: in launch order.
        when: they ran.
        communicates: the kernel is of a collective or an exchange.
        transfers: likewise, without those that wait for other ranks first.
        roles: `compute` or `communication`, of the kernel's stream.
    """

    device: int
    kernels: Sequence[TraceKernel]
    classes: Sequence[KernelClass]
    when: Intervals
    communicates: Mask
    transfers: Mask
    roles: npt.NDArray[np.str_]

    @classmethod
    def of(cls, trace: TorchTrace) -> "DeviceTime":
        """Return the kernels of the GPU that is busiest.

        Raises:
            CalibrationError: no kernel ran on a device.
        """
        busy: dict[int, float] = defaultdict(float)
        for kernel in trace.kernels:
            busy[kernel.device] += kernel.duration_s
        if not busy:
            raise CalibrationError(
                f"{trace.path}: no kernel on a device; profile with ProfilerActivity.CUDA"
            )
        device = max(busy, key=busy.__getitem__)
        kernels = [kernel for kernel in trace.kernels if kernel.device == device]
        classes = [classify(kernel) for kernel in kernels]
        communicates = np.array([each.group == COMMUNICATION for each in classes])
        waits = np.array([each.name == WAITING for each in classes])
        start_s = np.array([kernel.start_s for kernel in kernels])
        when = Intervals(start_s, np.array([kernel.end_s for kernel in kernels]))
        roles = _roles(kernels, communicates)
        return cls(device, kernels, classes, when, communicates, communicates & ~waits, roles)

    @property
    def duration_s(self) -> Floats:
        """(kernels,) seconds."""
        return np.array([kernel.duration_s for kernel in self.kernels])

    @property
    def beside_s(self) -> Floats:
        """(kernels,) seconds of each beside the other side.

        Of those that communicate: beside what computes; of the others: beside transfers, waits
        before them left out.
        """
        computing = self.when.take(~self.communicates & (self.roles == COMPUTE))
        transfers = self.when.take(self.transfers)
        beside = self.when.beside_s(transfers)
        return np.where(self.communicates, self.when.beside_s(computing), beside)


def _roles(kernels: Sequence[TraceKernel], communicates: Mask) -> npt.NDArray[np.str_]:
    balance: dict[int, float] = defaultdict(float)
    for kernel, is_communication in zip(kernels, communicates, strict=True):
        balance[kernel.stream] += kernel.duration_s * (1 if is_communication else -1)
    return np.array([COMMUNICATION if balance[k.stream] > 0 else COMPUTE for k in kernels])
