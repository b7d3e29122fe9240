"""Cost of a kernel that moves bytes and computes next to nothing: cast, norm, copy, permute.

    t = launches * launch_s
        + traffic * bytes / min(hbm_efficiency * B, SMs * sm_bytes_per_clock * f)

B is the HBM bandwidth of the chip, f its clock. The fixed time adds to the transfer and does not
hide under it: ramp-up and tail of a grid are not overlapped with its own traffic. A kernel family
too small to be anything but fixed time (router kernels on (4096, 256) tensors) has `bytes = 0`.

Not modelled: tensors that stay in L2 between kernels (the families' efficiencies were measured
with such neighbours and contain them), and block counts that do not fill whole waves.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.chip import ChipSpec
from hwmodels.costs.kernel_time import KernelTime
from hwmodels.spec import Spec
from hwmodels.units import BytesPerClock, Seconds, Share


class MemoryParameters(Spec):
    """What one family of memory-bound kernels achieves.

    Attributes:
        hbm_efficiency: achieved share of the datasheet HBM bandwidth, reads plus writes.
        launch_s: seconds every launch takes besides its bytes.
        traffic: bytes moved / bytes counted, where a library may fuse more or less than we count.
        sm_bytes_per_clock: bytes one SM moves in one clock at most, or None where the measurements
            cannot tell it from the HBM limit (all of them on the same number of SMs).
    """

    hbm_efficiency: Share
    launch_s: Seconds = 0.0
    traffic: Annotated[float, Field(ge=0.01, le=100)] | None = None
    sm_bytes_per_clock: BytesPerClock | None = None


def memory_op_time_s(
    chip: ChipSpec,
    parameters: MemoryParameters,
    moved_bytes: npt.ArrayLike,
    launches: npt.ArrayLike = 1,
    *,
    sms: npt.ArrayLike | None = None,
) -> KernelTime:
    """Return the time of memory-bound ops, launch gaps between kernels not included.

    Args:
        chip: where they run.
        parameters: of the kernel family.
        moved_bytes: bytes read plus bytes written by all launches of the op.
        launches: kernels the op consists of.
        sms: SMs the op may use, all of the chip by default; broadcasts with the others.
    """
    size, count, used = np.broadcast_arrays(
        np.asarray(moved_bytes, np.float64),
        np.asarray(launches, np.float64),
        np.asarray(chip.sms if sms is None else sms, np.float64),
    )
    rate = np.asarray(parameters.hbm_efficiency * chip.hbm_bytes_per_s)
    if parameters.sm_bytes_per_clock is not None:
        rate = np.minimum(rate, used * parameters.sm_bytes_per_clock * chip.peak_clock_hz)
    traffic = 1.0 if parameters.traffic is None else parameters.traffic
    fixed, transfer = count * parameters.launch_s, traffic * size / rate
    return KernelTime(fixed + transfer, np.where(fixed > transfer, 2, 1))


def features(chip, parameters, **shape):
    raise NotImplementedError
