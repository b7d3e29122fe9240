"""What measuring asks of a GPU, and one point measured on it."""

import inspect
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, Protocol

from calibration.measure.measurement import (
    Measurement,
    Point,
    shape_text,
)
from hwmodels.errors import MachineError

TRITON_MIN = (3, 6)


class Machine(Protocol):
    """What measuring asks of a GPU; `calibration.measure.timing.Gpu` is the real one."""

    device: Any
    name: str
    sms: int
    driver: str

    def time(
        self,
        run: Callable[[], object],
        repeats: int,
        *,
        sustained: bool = False,
        after: Callable[[], object] | None = None,
        launches: bool = False,
    ) -> Any:
        """Return a Timing of `run`; right `after` something, or with what its launches take."""

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        """Return a function that plays as a CUDA graph what `run` launches."""

    def warm_up(self, run: Callable[[], object]) -> float:
        """Run once and more, so that everything is compiled and allocated."""

    def held(self, sms: int, *, copying: bool) -> AbstractContextManager[None]:
        """Hold some SMs meanwhile."""

    def finish(self) -> None:
        """Wait until what was queued is done."""

    def facts(self) -> dict[str, Any]:
        """Return what is known of the device: memory, clocks, limits."""


def find_gpu() -> Machine:
    """Return the GPU to measure on.

    Raises:
        MachineError: PyTorch, Triton or a GPU is missing, or Triton is too old.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise MachineError("TRITON_INTERPRET=1 is set: the interpreter has no times to measure")
    try:
        import torch  # noqa: F401, PLC0415 - whether it is there is the question
        import triton  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(f"measuring needs PyTorch and Triton: {error}") from error
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < TRITON_MIN:
        raise MachineError(f"Triton {triton.__version__}: 3.6 or newer is needed")
    from calibration.measure.timing import Gpu  # noqa: PLC0415 - imports torch

    try:
        return Gpu()
    except RuntimeError as error:
        raise MachineError(f"the GPU does not answer: {first_line(error)}") from error


def prepare(point: Point, device: Any, sms: int) -> Callable[[], object]:
    """Return a function that runs a point's kernel on inputs that lie on the device.

    Raises:
        ValueError: no such kernel or provider, or no SM is left.
    """
    if sms < 1:
        raise ValueError(f"{point.held_sms} SMs are to be held: none is left for the kernel")
    from kernels import load  # noqa: PLC0415 - imports torch and triton

    module = load(point.kernel)
    if point.provider not in module.PROVIDERS:
        known = ", ".join(sorted(module.PROVIDERS))
        raise ValueError(f"{point.kernel}: provider {point.provider!r}: unknown; known: {known}")
    launch = module.PROVIDERS[point.provider]
    args = module.inputs(dict(point.shape), device)
    args = getattr(module, "ADAPT", {}).get(point.provider, lambda same: same)(args)
    args |= point.options()
    # A persistent grid must know how many SMs are left; others fill what they find.
    if point.kernel != "occupy" and "sms" in inspect.signature(launch).parameters:
        args["sms"] = sms
    return lambda: launch(**args)


def measure(point: Point, machine: Machine) -> Measurement:
    """Measure one point; a failure of this point alone is a row that says why.

    Raises:
        MachineError: the machine itself has failed.
    """
    sms = machine.sms - point.held_sms
    try:
        run = prepare(point, machine.device, sms)
        machine.warm_up(run)
        with held(point, machine):
            timing = machine.time(run, point.repeats, sustained=point.sustained)
        return row(point, machine, sms, timing, "")
    except MachineError:
        raise
    except Exception as error:  # whatever a kernel raises belongs in its row
        check_alive(machine, error)
        return row(point, machine, sms, None, f"{type(error).__name__}: {first_line(error)}")


def held(point: Point, machine: Machine) -> AbstractContextManager[None]:
    """Hold the SMs that a point wants held."""
    if point.mode == "isolated":
        return nullcontext()
    return machine.held(point.held_sms, copying=point.mode == "beside")


def check_alive(machine: Machine, cause: Exception) -> None:
    """Ask the device for something trivial: after a driver error nothing works any more."""
    import torch  # noqa: PLC0415

    if machine.device.type != "cuda":
        return
    try:
        torch.cuda.empty_cache()
        torch.ones(1, device=machine.device).item()
    except RuntimeError as error:
        raise MachineError(
            f"the GPU failed: {first_line(cause)}; then: {first_line(error)}"
        ) from error


def row(point: Point, machine: Machine, sms: int, timing: Any, error: str) -> Measurement:
    """Return the row of a point; `timing` is None where it failed."""
    import torch  # noqa: PLC0415
    import triton  # noqa: PLC0415

    flops, bytes_ = work_of(point)
    ours = point.provider == "moesim"
    return Measurement(
        kernel=point.kernel,
        provider=point.provider,
        library="triton" if ours else "torch",
        version=triton.__version__ if ours else torch.__version__,
        shape=shape_text(point.shape),
        mode=point.mode,
        held_sms=point.held_sms,
        sms=sms,
        sustained=int(point.sustained),
        time_s=timing and timing.time_s,
        p20_s=timing and timing.p20_s,
        p80_s=timing and timing.p80_s,
        repeats=timing.repeats if timing else 0,
        flops=flops,
        bytes=bytes_,
        sm_clock_hz=timing and timing.sm_clock_hz,
        power_w=timing and timing.power_w,
        temperature_c=timing and timing.temperature_c,
        device=machine.name,
        driver=machine.driver,
        torch=torch.__version__,
        triton=triton.__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        config=point.config,
        error=error,
    )


def work_of(point: Point) -> tuple[float, float]:
    """Return FLOPs and bytes of a point, zeros where the shape is not even countable."""
    from kernels import load  # noqa: PLC0415

    try:
        flops, bytes_ = load(point.kernel).work(dict(point.shape))
    except (ValueError, KeyError, TypeError):
        return 0.0, 0.0
    return float(flops), float(bytes_)


def first_line(error: BaseException) -> str:
    """Return the first line of a message that has any; where that is a place, also the reason.

    Triton's compiler begins with `at 12:4:`, lists the source and ends with the reason.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    if len(lines) > 1 and re.fullmatch(r"at \d+:\d+:", lines[0]):
        return f"{lines[0]} {lines[-1]}"
    return lines[0]
