"""How fast kernels ran: against the tensor cores, a copy, and whoever else offers the same."""

from collections.abc import Iterable
from dataclasses import dataclass

from calibration.judge.folder import OURS, Day
from calibration.measure.bench import is_fp8
from calibration.measure.measurement import Measurement, sizes_of

PROBES = ("probe_copy", "probe_tensor_rate", "probe_launch", "occupy")
"""Kernels that measure the device, or hold it, and compute nothing of a model."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the probes reached; None where one did not run, or is wrong.

    Attributes:
        bf16_flops_per_s, fp8_flops_per_s: of tensor cores with nothing else to do, for a moment.
        bf16_sustained_flops_per_s, fp8_sustained_flops_per_s: the same until the clock had settled.
        copy_bytes_per_s: of the largest copy, bytes read and written, by whoever copies fastest;
            smaller ones leave part of what they write in the L2.
        launch_s: of one of many launches that do nothing, one after another.
        sustained_clock_hz: of the SMs during the sustained probes, the lowest.
    """

    bf16_flops_per_s: float | None
    fp8_flops_per_s: float | None
    bf16_sustained_flops_per_s: float | None
    fp8_sustained_flops_per_s: float | None
    copy_bytes_per_s: float | None
    launch_s: float | None
    sustained_clock_hz: float | None


@dataclass(frozen=True, slots=True)
class Rate:
    """One shape of one kernel of ours, as `choose` configures it.

    Attributes:
        shape: as JSON.
        time_s, p20_s, p80_s: median and quantiles.
        flops_per_s: of matrix products; None where there are none.
        of_peak: FLOP/s over the probe's of its format.
        of_copy: bytes/s over the copy's.
        library: the fastest other provider; None where there is none.
        of_library: its time over ours: above 1 ours is faster.
    """

    kernel: str
    shape: str
    time_s: float
    p20_s: float | None
    p80_s: float | None
    flops_per_s: float | None
    bytes_per_s: float
    of_peak: float | None
    of_copy: float | None
    library: str | None
    of_library: float | None


def ceilings(day: Day) -> Ceilings:
    """Return what the probes reached."""
    tensor = [row for row in day.rows if row.kernel == "probe_tensor_rate"]
    copies = [row for row in day.rows if row.kernel == "probe_copy" and _is_plain(row)]
    largest = max((row.bytes for row in copies), default=0.0)
    launches = [row for row in day.rows if row.kernel == "probe_launch" and _is_plain(row)]
    most = max(launches, key=_launches, default=None)
    clocks = [row.sm_clock_hz for row in tensor if row.sustained and row.sm_clock_hz]
    return Ceilings(
        bf16_flops_per_s=_tensor_rate(tensor, fp8=False, sustained=0),
        fp8_flops_per_s=_tensor_rate(tensor, fp8=True, sustained=0),
        bf16_sustained_flops_per_s=_tensor_rate(tensor, fp8=False, sustained=1),
        fp8_sustained_flops_per_s=_tensor_rate(tensor, fp8=True, sustained=1),
        copy_bytes_per_s=max(
            (row.bytes / seconds(row) for row in copies if row.bytes == largest), default=None
        ),
        launch_s=seconds(most) / _launches(most) if most else None,
        sustained_clock_hz=min(clocks, default=None),
    )


def rates(day: Day) -> list[Rate]:
    """Return every kernel of ours at every shape, the largest first."""
    top, others = ceilings(day), _fastest_others(day)
    return [
        _rate(row, top, others.get((row.kernel, row.shape)))
        for row in sorted(day.isolated(), key=lambda row: (row.kernel, -row.flops, -row.bytes))
        if row.kernel not in PROBES
    ]


def seconds(row: Measurement) -> float:
    """Return the time of a row that has one."""
    assert row.time_s, "a day keeps rows without a time apart"
    return row.time_s


def _is_plain(row: Measurement) -> bool:
    return row.mode == "isolated" and not row.sustained


def _launches(row: Measurement) -> int:
    return int(sizes_of(row, "launches")[0])


def _tensor_rate(rows: Iterable[Measurement], *, fp8: bool, sustained: int) -> float | None:
    mine = [row for row in rows if is_fp8(row) == fp8 and row.sustained == sustained]
    return max((row.flops / seconds(row) for row in mine), default=None)


def _fastest_others(day: Day) -> dict[tuple[str, str], Measurement]:
    """Return the fastest row of another provider for each kernel and shape."""
    fastest: dict[tuple[str, str], Measurement] = {}
    for row in sorted(day.rows, key=seconds):
        if row.provider != OURS and _is_plain(row):
            fastest.setdefault((row.kernel, row.shape), row)
    return fastest


def _rate(row: Measurement, top: Ceilings, other: Measurement | None) -> Rate:
    flops_per_s = row.flops / seconds(row) if row.flops else None
    peak = top.fp8_flops_per_s if is_fp8(row) else top.bf16_flops_per_s
    bytes_per_s, copy = row.bytes / seconds(row), top.copy_bytes_per_s
    return Rate(
        kernel=row.kernel,
        shape=row.shape,
        time_s=seconds(row),
        p20_s=row.p20_s,
        p80_s=row.p80_s,
        flops_per_s=flops_per_s,
        bytes_per_s=bytes_per_s,
        of_peak=flops_per_s / peak if flops_per_s and peak else None,
        of_copy=bytes_per_s / copy if copy else None,
        library=other.provider if other else None,
        of_library=seconds(other) / seconds(row) if other else None,
    )
