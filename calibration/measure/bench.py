"""What each kernel reaches on the GPU that is here, beside every other provider.

`bench` gives plain rows: time, FLOP/s, bytes/s, and both as fractions of what the same GPU showed
in the probes: tensor cores with nothing else to do, and a plain copy. `moesim kernels bench` prints
them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from calibration.measure.machine import Machine, find_gpu, measure
from calibration.measure.measurement import Measurement, Point
from hwmodels.errors import CalibrationError, MachineError

FP8_KERNELS = ("fp8_gemm", "fp8_wgrad", "grouped_gemm")
COPY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Rates the probes reached: FLOP/s per format, bytes/s of a copy (read plus written)."""

    bf16_flops_per_s: float
    fp8_flops_per_s: float
    copy_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One shape of one kernel by one provider; rates are None where it failed.

    Attributes:
        of_peak: FLOP/s over the tensor-core probe of the format; None without matrix products.
        of_copy: bytes/s over the copy probe.
    """

    kernel: str
    provider: str
    shape: str
    time_s: float | None
    flops_per_s: float | None
    bytes_per_s: float | None
    of_peak: float | None
    of_copy: float | None
    error: str


def ceilings(machine: Machine) -> Ceilings:
    """Return what the probes reach.

    Raises:
        MachineError: a probe fails.
    """
    rates = []
    for format_ in ("bf16", "fp8"):
        shape = {"format": format_, "programs": machine.sms, "steps": 1024}
        probed = measure(Point("probe_tensor_rate", shape), machine)
        rates.append(probed.flops / seconds(probed))
    probed = measure(Point("probe_copy", {"bytes": COPY_BYTES}), machine)
    return Ceilings(rates[0], rates[1], probed.bytes / seconds(probed))


def seconds(probe: Measurement) -> float:
    """Return the time of a probe, which must have one."""
    if probe.time_s is None:
        raise MachineError(f"{probe.kernel}: {probe.error}")
    return probe.time_s


def bench(op: str | None = None, provider: str | None = None) -> Iterator[BenchRow]:
    """Yield a row per shape of one op (or all), by one provider (or all).

    Raises:
        CalibrationError: no such op, or it has no such provider.
        MachineError: no GPU.
    """
    wanted = list(points(op, provider))
    machine = find_gpu()
    top = ceilings(machine)
    for point in wanted:
        yield bench_row(measure(point, machine), top)


def points(op: str | None, provider: str | None) -> Iterator[Point]:
    """Yield every shape of the ops and providers asked for."""
    from kernels import load, names  # noqa: PLC0415 - imports torch and triton

    if op is not None and op not in names():
        raise CalibrationError(f"kernel {op!r}: unknown; known: {', '.join(names())}")
    offered = set()
    for name in names() if op is None else (op,):
        module = load(name)
        offered |= set(module.PROVIDERS)
        for shape in module.SHAPES:
            for other in module.PROVIDERS:
                if provider in {None, other}:
                    yield Point(name, shape, other)
    if provider is not None and provider not in offered:
        raise CalibrationError(f"provider {provider!r}: known: {', '.join(sorted(offered))}")


def bench_row(measured: Measurement, top: Ceilings) -> BenchRow:
    """Return a measured row with its rates and fractions."""
    flops_per_s = bytes_per_s = of_peak = of_copy = None
    if measured.time_s is not None:
        bytes_per_s = measured.bytes / measured.time_s
        of_copy = bytes_per_s / top.copy_bytes_per_s
        if measured.flops:
            flops_per_s = measured.flops / measured.time_s
            peak = top.fp8_flops_per_s if is_fp8(measured) else top.bf16_flops_per_s
            of_peak = flops_per_s / peak
    return BenchRow(
        kernel=measured.kernel,
        provider=measured.provider,
        shape=measured.shape,
        time_s=measured.time_s,
        flops_per_s=flops_per_s,
        bytes_per_s=bytes_per_s,
        of_peak=of_peak,
        of_copy=of_copy,
        error=measured.error,
    )


def is_fp8(measured: Measurement) -> bool:
    """Return whether the row's matrix products take FP8 operands."""
    if measured.kernel == "probe_tensor_rate":
        return '"format":"fp8"' in measured.shape
    return measured.kernel in FP8_KERNELS
