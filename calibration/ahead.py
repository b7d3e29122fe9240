"""Compile ahead of time what a launch would compile, without launching and without the GPU.

A launcher runs on `meta` tensors under a driver that only names a target, so that signature,
alignment, constants and options are the launcher's own. What comes out lies in Triton's cache on
disk, under the name by which the real launch looks for it: name and content depend on source,
signature, attributes, constants, options and target, and on no device.

`Ahead` does so in processes beside the one that measures, so that a borrowed GPU does not wait for
compilers.
"""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from multiprocessing.pool import AsyncResult
from typing import Any, Literal, NamedTuple

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

from calibration.measure import first_line
from calibration.measurement import Point
from calibration.process import end_with_parent
from kernels import _device, load

HOPPER = GPUTarget("cuda", 90, 32)
HOPPER_SMS = 132  # of an H100, H800 or H200: configurations are chosen for it

State = Literal["compiled", "ended", "late", "unknown"]
ENDED = "the compiling process ended"


class OfflineDriver:
    """What a launch asks of the driver before it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        """Return the target to compile for."""
        return self._target

    def get_current_device(self) -> int:
        """Return the number of a device that nobody asks anything."""
        return 0

    def get_current_stream(self, _device: int) -> int:
        """Return the default stream."""
        return 0


@contextlib.contextmanager
def compiling(target: GPUTarget = HOPPER, sms: int = HOPPER_SMS) -> Iterator[list[tuple[str, Any]]]:
    """Turn launches into compilations; yields (kernel name, compiled kernel) of each."""
    compiled: list[tuple[str, Any]] = []
    run = jit.JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        compiled.append((self.__name__, kernel))
        return kernel

    driver.set_active(OfflineDriver(target))
    jit.JITFunction.run = compile_only
    before, _device.OFF_GPU_SMS = _device.OFF_GPU_SMS, sms
    try:
        yield compiled
    finally:
        jit.JITFunction.run = run
        _device.OFF_GPU_SMS = before


def compile_point(point: Point, capability: int, sms: int) -> str:
    """Compile the kernels of a point; return why that failed, empty if it did not.

    Only ours: a library brings its own. Whatever fails here fails in the launch too, which then
    tells it in its row.
    """
    if point.provider != "moesim":
        return ""
    try:
        compile_kernels(point, GPUTarget("cuda", capability, 32), sms)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def compile_kernels(
    point: Point, target: GPUTarget = HOPPER, sms: int = HOPPER_SMS
) -> list[tuple[str, Any]]:
    """Compile the kernels of a point for a device of so many SMs.

    Returns:
        (kernel name, compiled kernel) of each that the launch launches. Those that its inputs do,
        as a backward pass's come from the forward kernel, are compiled too.
    """
    module = load(point.kernel)
    with compiling(target, sms):
        args = module.inputs(dict(point.shape), torch.device("meta"))
    with compiling(target, sms - point.held_sms) as compiled:
        module.launch(**args, **point.options())
    return compiled


class Ahead:
    """Processes that compile the points of a day in the order in which they will be measured."""

    def __init__(
        self, points: Iterable[Point], capability: int, sms: int, workers: int | None = None
    ) -> None:
        distinct = {point.key: point for point in points}
        count = workers or max(1, (os.cpu_count() or 2) - 1)
        # Spawned: a forked child would inherit a CUDA context that it cannot use.
        context = multiprocessing.get_context("spawn")
        self._processes = context.RawArray("i", len(distinct))
        self._pool = context.Pool(count, _begin_worker, (self._processes,))
        self._results = {
            key: _Begun(
                point, number, self._pool.apply_async(_compile, (number, point, capability, sms))
            )
            for number, (key, point) in enumerate(distinct.items())
        }

    def wait(self, point: Point, seconds: float) -> State:
        """Wait until a point's kernels are compiled, at most so long.

        Returns:
            `compiled` also where that failed, for the launch then tells it in its row; `unknown`
            for a point that was not named before: its launch compiles; `ended` where the compiler
            took its process along, as it would that of the launch.
        """
        one = self._results.get(point.key)
        if one is None:
            return "unknown"
        until_s = time.monotonic() + seconds
        while not one.result.ready() and time.monotonic() < until_s:
            if self._ended(one):
                return "ended"
            one.result.wait(min(1.0, seconds))
        return "compiled" if one.result.ready() else "late"

    def failures(self) -> list[tuple[Point, str]]:
        """Return the points that could not be compiled so far, and why."""
        found = ((one.point, self._error(one)) for one in self._results.values())
        return [(point, why) for point, why in found if why]

    @property
    def left(self) -> int:
        """Points not compiled yet."""
        return sum(not one.result.ready() for one in self._results.values())

    def close(self) -> None:
        """End the processes, also one in the middle of a compilation."""
        self._pool.terminate()
        self._pool.join()

    def _error(self, one: "_Begun") -> str:
        """Return why a point could not be compiled; empty if it could, or that is not known yet."""
        if one.result.ready():
            why: str = one.result.get()
            return why
        return ENDED if self._ended(one) else ""

    def _ended(self, one: "_Begun") -> bool:
        """Return whether the process that compiles a point is gone.

        The pool then starts another and never tells, and the result never comes.
        """
        process = self._processes[one.number]
        return process != 0 and not _runs(process) and not one.result.ready()


class _Begun(NamedTuple):
    """A point, its place among the processes that compile, and what will hold why that failed."""

    point: Point
    number: int
    result: AsyncResult[str]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


_processes: Any = None
"""Of a compiling process: where it writes its number when it begins a point."""


def _begin_worker(processes: Any) -> None:
    """Keep a compiling process off the GPU, and let none outlive the process that measures."""
    global _processes  # noqa: PLW0603 - a pool offers its processes no other place
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    _processes = processes
    end_with_parent()


def _compile(number: int, point: Point, capability: int, sms: int) -> str:
    """Compile a point in a process of the pool."""
    _processes[number] = os.getpid()
    return compile_point(point, capability, sms)
