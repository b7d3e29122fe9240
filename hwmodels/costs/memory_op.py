"""Cost of a kernel that moves bytes and computes next to nothing: cast, norm, copy, permute.

    t = launches * launch_s
        + traffic * bytes / min(hbm_efficiency * B, SMs * sm_bytes_per_clock * f)

B is the HBM bandwidth of the chip, f its clock. Where rows tell how much of L2 stays warm, and so
what HBM and what the SMs limit, it is

    x_sm  = traffic * bytes / (SMs * sm_bytes_per_clock * f)
    x_hbm = traffic * bytes * missed / (hbm_efficiency * B)
    missed = bytes / (phi L2) - 1, from 0 to 1
    t     = launches * launch_s + (x_hbm^p + x_sm^p)^(1/p)

A tensor within phi L2 was left there by the kernel before; of one twice as large, read in the same
order, nothing is left.

The fixed time adds to the transfer and does not hide under it: ramp-up and tail of a grid are not
overlapped with its own traffic. A kernel family too small to be anything but fixed time (router
kernels on (4096, 256) tensors) has `bytes = 0`.

Not modelled: tensors that stay in L2 between kernels, unless phi is given (the efficiencies of the
other families were measured with such neighbours and contain them), and block counts that do not
fill whole waves.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec
from hwmodels.costs.kernel_time import KernelTime, smooth_maximum
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
        l2_usable: phi, share of L2 whose bytes need no HBM, or None where all bytes do.
        overlap_exponent: p, how sharply the slower of HBM and SMs takes over; given with phi.
    """

    hbm_efficiency: Share
    launch_s: Seconds = 0.0
    traffic: Annotated[float, Field(ge=0.01, le=100)] | None = None
    sm_bytes_per_clock: BytesPerClock | None = None
    l2_usable: Annotated[float, Field(ge=0.01, le=4)] | None = None
    overlap_exponent: Annotated[float, Field(ge=1, le=12)] | None = None

    @model_validator(mode="after")
    def _what_l2_spares_the_hbm_the_sms_take(self) -> "MemoryParameters":
        given = [self.l2_usable is not None, self.overlap_exponent is not None]
        if any(given) and not (all(given) and self.sm_bytes_per_clock is not None):
            raise ValueError(
                "l2_usable: needs overlap_exponent and sm_bytes_per_clock, and they it"
            )
        return self


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
    traffic = 1.0 if parameters.traffic is None else parameters.traffic
    fixed = count * parameters.launch_s
    transfer = _transfer_s(chip, parameters, traffic * size, used)
    return KernelTime(fixed + transfer, np.where(fixed > transfer, 2, 1))


def _transfer_s(chip: ChipSpec, parameters: MemoryParameters, size: Floats, used: Floats) -> Floats:
    """Return seconds of `size` bytes on `used` SMs."""
    hbm_rate = np.asarray(parameters.hbm_efficiency * chip.hbm_bytes_per_s)
    if parameters.sm_bytes_per_clock is None:
        return np.asarray(size / hbm_rate)
    sm_rate = used * parameters.sm_bytes_per_clock * chip.peak_clock_hz
    if parameters.l2_usable is None or parameters.overlap_exponent is None:
        return np.asarray(size / np.minimum(hbm_rate, sm_rate))
    missed = np.clip(size / (parameters.l2_usable * chip.l2_bytes) - 1, 0.0, 1.0)
    return np.asarray(
        smooth_maximum(parameters.overlap_exponent, size * missed / hbm_rate, size / sm_rate)
    )


def features(
    chip: ChipSpec,
    parameters: MemoryParameters,
    moved_bytes: npt.ArrayLike,
    launches: npt.ArrayLike = 1,
) -> Floats:
    """Return (rows, 2) coordinates of ops for `hwmodels.residual`; see `memory_op_time_s`.

    An octave of bytes is another shape, and one of launches.
    """
    size, count = np.broadcast_arrays(
        np.asarray(moved_bytes, np.float64), np.asarray(launches, np.float64)
    )
    return np.asarray(np.log2(np.stack([np.maximum(size, 1.0), count], axis=-1)))
