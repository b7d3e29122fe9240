"""How fast kernels ran: against the tensor cores, a copy, and whoever else offers the same."""

from collections.abc import Iterable
from dataclasses import dataclass

from calibration.judge.folder import OURS, Day
from calibration.measurement import Measurement

PROBES = ("probe_copy", "probe_tensor_rate", "probe_launch", "occupy")
FP8_KERNELS = ("fp8_gemm", "fp8_wgrad", "grouped_gemm")


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the probes reached; None where one did not run.

    Attributes:
        bf16_flops_per_s, fp8_flops_per_s: of tensor cores with nothing else to do, for a moment.
        bf16_sustained, fp8_sustained: the same until the clock had settled.
        copy_bytes_per_s: of a large copy, bytes read and written.
        launch_s: of one of many launches that do nothing, one after another.
        sustained_clock_hz: of the SMs during the sustained probe.
    """

    bf16_flops_per_s: float | None
    fp8_flops_per_s: float | None
    bf16_sustained: float | None
    fp8_sustained: float | None
    copy_bytes_per_s: float | None
    launch_s: float | None
    sustained_clock_hz: float | None


@dataclass(frozen=True, slots=True)
class Rate:
    """One shape of one kernel of ours.

    Attributes:
        of_peak: FLOP/s over the probe's of its format; None without matrix products.
        of_copy: bytes/s over the copy's.
        library: the fastest other provider; None where there is none.
        of_library: its time over ours: above 1 ours is faster.
    """

    kernel: str
    shape: str
    time_s: float
    flops_per_s: float | None
    bytes_per_s: float
    of_peak: float | None
    of_copy: float | None
    library: str | None
    of_library: float | None


def ceilings(day: Day) -> Ceilings:
    """Return what the probes reached."""
    tensor = [row for row in day.rows if row.kernel == "probe_tensor_rate"]
    copies = [r for r in day.rows if r.kernel == "probe_copy" and r.mode == "isolated"]
    launches = [
        r for r in day.rows if r.kernel == "probe_launch" and '"launches":1}' not in r.shape
    ]
    clocks = [row.sm_clock_hz for row in tensor if row.sustained and row.sm_clock_hz]
    return Ceilings(
        bf16_flops_per_s=_flops(tensor, "bf16", sustained=0),
        fp8_flops_per_s=_flops(tensor, "fp8", sustained=0),
        bf16_sustained=_flops(tensor, "bf16", sustained=1),
        fp8_sustained=_flops(tensor, "fp8", sustained=1),
        copy_bytes_per_s=max((row.bytes / seconds(row) for row in copies), default=None),
        launch_s=min((8 * seconds(row) / row.bytes for row in launches), default=None),
        sustained_clock_hz=min(clocks, default=None),
    )


def _flops(rows: Iterable[Measurement], format_: str, *, sustained: int) -> float | None:
    mine = [r for r in rows if f'"format":"{format_}"' in r.shape and r.sustained == sustained]
    return max((row.flops / seconds(row) for row in mine), default=None)


def rates(day: Day) -> list[Rate]:
    """Return every kernel of ours at every shape, as `choose` configures it."""
    top, others = ceilings(day), _fastest_others(day)
    return [
        _rate(row, top, others.get((row.kernel, row.shape)))
        for row in sorted(day.isolated(), key=lambda row: (row.kernel, -row.flops, -row.bytes))
        if row.kernel not in PROBES
    ]


def _fastest_others(day: Day) -> dict[tuple[str, str], Measurement]:
    fastest: dict[tuple[str, str], Measurement] = {}
    for row in day.rows:
        if row.provider == OURS or row.mode != "isolated" or row.sustained:
            continue
        key = row.kernel, row.shape
        if key not in fastest or seconds(row) < seconds(fastest[key]):
            fastest[key] = row
    return fastest


def _rate(row: Measurement, top: Ceilings, other: Measurement | None) -> Rate:
    flops_per_s = row.flops / seconds(row) if row.flops else None
    peak = top.fp8_flops_per_s if row.kernel in FP8_KERNELS else top.bf16_flops_per_s
    bytes_per_s, copy = row.bytes / seconds(row), top.copy_bytes_per_s
    return Rate(
        kernel=row.kernel,
        shape=row.shape,
        time_s=seconds(row),
        flops_per_s=flops_per_s,
        bytes_per_s=bytes_per_s,
        of_peak=flops_per_s / peak if flops_per_s and peak else None,
        of_copy=bytes_per_s / copy if copy else None,
        library=other.provider if other else None,
        of_library=seconds(other) / seconds(row) if other else None,
    )


def seconds(row: Measurement) -> float:
    """Return the time of a row that has one."""
    assert row.time_s, "a day keeps rows without a time apart"
    return row.time_s
