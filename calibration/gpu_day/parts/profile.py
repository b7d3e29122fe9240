"""One training pass of the layer under PyTorch's profiler: a trace of our own to read.

Each op's kernels lie in a range of its name, so that the trace's times can be laid beside those of
`stack.csv`, and whether `calibration.read.torch_trace` reads what this PyTorch writes is seen on
the way.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from calibration.gpu_day.day import Day
from calibration.gpu_day.files import PROFILE
from calibration.gpu_day.parts import Estimate
from calibration.gpu_day.parts import stack as timed
from calibration.gpu_day.sizes import Sizes
from calibration.measure.machine import check_alive, first_line
from calibration.measure.measurement import Point
from calibration.stack.layer import training
from calibration.stack.slim_trace import write
from calibration.stack.tape import Tape

NUMBER, SHARE, LEAST_S = 8, 0.04, 0.0

PASS_S, PROFILER_S = 1.0, 5.0
"""A pass whose kernels are loaded on the way; the profiler's own start and its file."""


def points(sizes: Sizes) -> list[Point]:
    """Return the kernels of the layers, which are those of the part before this one."""
    return timed.points(sizes)


def estimate(_sizes: Sizes) -> Estimate:
    """Return what two passes and the profiler take."""
    return Estimate(
        2 * PASS_S + PROFILER_S,
        f"2 passes of {PASS_S:g} s with what their kernels take to load, and {PROFILER_S:g} s of "
        "the profiler (assumed)",
    )


def run(day: Day) -> None:
    """Profile the pass, unless its trace is there.

    Raises:
        RuntimeError: a process that did so ended or hung in it.
    """
    if (day.out / PROFILE).exists() or not day.has_time():
        return
    size = day.sizes.training_layer()
    why_not = day.begin("profile", Point("stack", asdict(size)))
    if why_not:
        raise RuntimeError(why_not)
    tapes = training(size, day.machine.device).values()
    cuda = day.machine.device.type == "cuda"
    failed = play(day, tapes, {}) if cuda else {}  # kernels are loaded before they are profiled
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        failed |= play(day, tapes, failed)
        day.machine.finish()
    write(day.out / PROFILE, _events(profiler), _about(day, failed))


def play(day: Day, tapes: Iterable[Tape], failed: Mapping[str, str]) -> dict[str, str]:
    """Play tapes but for what is wrong or has `failed`; return what fails, and why.

    Raises:
        MachineError: the device has failed.
    """
    found = dict(failed)
    for tape in tapes:
        for step in tape.steps:
            if day.excludes(step.kernel) or step.op in found:
                continue
            try:
                with record_function(step.op):
                    tape.bound(step)()
            except Exception as error:  # a step that fails is told in the file
                check_alive(day.machine, error)
                found[step.op] = f"{type(error).__name__}: {first_line(error)}"
    return found


def _events(profiler: Any) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["traceEvents"]
    return events


def _about(day: Day, failed: Mapping[str, str]) -> dict[str, Any]:
    return {
        "device": day.machine.name,
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "layer": asdict(day.sizes.training_layer()),
        "wrong": sorted(kernel for kernel, config in day.wrong if not config),
        "failed": dict(failed),
    }
