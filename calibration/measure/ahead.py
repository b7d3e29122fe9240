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
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import Empty, SimpleQueue
from typing import Any, Literal, NamedTuple

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

from calibration.measure.machine import first_line
from calibration.measure.measurement import Point
from calibration.measure.process import end_with_parent
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
def compiling(
    target: GPUTarget = HOPPER, sms: int = HOPPER_SMS, device: str = ""
) -> Iterator[list[tuple[str, Any]]]:
    """Turn launches into compilations; yields (kernel name, compiled kernel) of each.

    Args:
        sms, device: of the GPU for which configurations are chosen; without its name by reasoning.
    """
    compiled: list[tuple[str, Any]] = []
    run = jit.JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        compiled.append((self.__name__, kernel))
        return kernel

    driver.set_active(OfflineDriver(target))
    jit.JITFunction.run = compile_only
    before = _device.OFF_GPU_SMS, _device.OFF_GPU_NAME
    _device.OFF_GPU_SMS, _device.OFF_GPU_NAME = sms, device
    try:
        yield compiled
    finally:
        jit.JITFunction.run = run
        _device.OFF_GPU_SMS, _device.OFF_GPU_NAME = before


def compile_point(point: Point, capability: int, sms: int, device: str = "") -> str:
    """Compile the kernels of a point; return why that failed, empty if it did not.

    Only ours: a library brings its own. Whatever fails here fails in the launch too, which then
    tells it in its row.
    """
    if point.provider != "moesim":
        return ""
    try:
        compile_kernels(point, GPUTarget("cuda", capability, 32), sms, device)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def compile_kernels(
    point: Point, target: GPUTarget = HOPPER, sms: int = HOPPER_SMS, device: str = ""
) -> list[tuple[str, Any]]:
    """Compile the kernels of a point for a device of so many SMs, as `compiling` does.

    Returns:
        (kernel name, compiled kernel) of each that the launch launches. Those that its inputs do,
        as a backward pass's come from the forward kernel, are compiled too.
    """
    module = load(point.kernel)
    with compiling(target, sms, device):
        args = module.inputs(dict(point.shape), torch.device("meta"))
    with compiling(target, sms - point.held_sms, device) as compiled:
        module.launch(**args, **point.options())
    return compiled


class Ahead:
    """Processes that compile the points of a day in the order in which they will be measured."""

    def __init__(
        self,
        points: Iterable[Point],
        capability: int,
        sms: int,
        workers: int | None = None,
        device: str = "",
    ) -> None:
        self._results: dict[tuple[str, ...], _Result] = {}
        todo: SimpleQueue[_Result] = SimpleQueue()
        for point in points:
            if point.key not in self._results:
                self._results[point.key] = _Result(point, Future())
                todo.put(self._results[point.key])
        count = workers or max(1, (os.cpu_count() or 2) - 1)
        self._compilers = [_Compiler(todo, capability, sms, device) for _ in range(count)]
        for one in self._compilers:
            one.start()

    def wait(self, point: Point, seconds: float) -> State:
        """Wait until a point's kernels are compiled, at most so long.

        Returns:
            `compiled` also where that failed, for the launch then tells it in its row; `unknown`
            for a point that was not named before: its launch compiles; `ended` where the compiler
            took its process along, as it would that of the launch.
        """
        result = self._results.get(point.key)
        if result is None:
            return "unknown"
        try:
            return "ended" if result.why_not.result(seconds) == ENDED else "compiled"
        except TimeoutError:
            return "late"

    def failures(self) -> list[tuple[Point, str]]:
        """Return the points that could not be compiled so far, and why."""
        done = [each for each in self._results.values() if each.why_not.done()]
        return [(each.point, each.why_not.result()) for each in done if each.why_not.result()]

    @property
    def left(self) -> int:
        """Points not compiled yet."""
        return sum(not each.why_not.done() for each in self._results.values())

    def close(self) -> None:
        """End the processes, also one in the middle of a compilation."""
        for one in self._compilers:
            one.close()
        for one in self._compilers:
            one.join()


class _Result(NamedTuple):
    """A point, and why it could not be compiled: empty if it could."""

    point: Point
    why_not: "Future[str]"


class _Compiler(threading.Thread):
    """Compiles one point after another in a process, and in a new one where a compiler ends that.

    Each process has a pipe of its own: one that is killed leaves nothing locked behind, as it may
    in a pool of `multiprocessing`.
    """

    def __init__(
        self, todo: "SimpleQueue[_Result]", capability: int, sms: int, device: str
    ) -> None:
        super().__init__(daemon=True)
        self._todo, self._target = todo, (capability, sms, device)
        self._lock, self._closed = threading.Lock(), False
        self._process: SpawnProcess | None = None
        self._pipe: Connection

    def run(self) -> None:
        """Compile until nothing is left or somebody closes."""
        while not self._closed:
            try:
                next_ = self._todo.get_nowait()
            except Empty:
                break
            why_not = self._begin() or self._compile(next_.point)
            if not self._closed:
                next_.why_not.set_result(why_not)
        self._end()

    def close(self) -> None:
        """End the process; whoever waits for its answer then puts it away."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _begin(self) -> str:
        """Start a process where there is none; return why that failed, empty if it did not."""
        with self._lock:
            if self._closed or self._process is not None:
                return ENDED if self._closed else ""
            # Spawned: a forked child would inherit a CUDA context that it cannot use.
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            try:
                process = context.Process(target=_serve, args=(theirs, *self._target), daemon=True)
                process.start()
            except OSError as error:
                self._pipe.close()
                return f"no compiling process: {first_line(error)}"
            finally:
                theirs.close()  # or its end would never be noticed
            self._process = process
        return self._answer() and "no compiling process: it ended before it began"

    def _compile(self, point: Point) -> str:
        with contextlib.suppress(OSError):  # it has ended, as no answer tells
            self._pipe.send(point)
        return self._answer()

    def _answer(self) -> str:
        """Return what the process says, or that it has ended."""
        try:
            answer: str = self._pipe.recv()
        except (EOFError, OSError):
            self._end()
            return ENDED
        return answer

    def _end(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.join()
                self._process = None
                self._pipe.close()


def _serve(pipe: Connection, capability: int, sms: int, device: str) -> None:
    """Compile what comes through a pipe, off the GPU, and outlive nobody who measures."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    end_with_parent()
    with contextlib.suppress(EOFError):  # nobody wants anything more
        pipe.send("")
        while True:
            pipe.send(compile_point(pipe.recv(), capability, sms, device))
