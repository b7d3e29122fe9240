"""Measure the points of a plan, one after another, each row kept at once."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from calibration.measure.machine import Machine, find_gpu, measure
from calibration.measure.measurement import (
    Measurement,
    Point,
    RowWriter,
    finished,
    read_plan,
    shape_text,
)
from hwmodels.errors import CalibrationError


class Progress:
    """Points done and time left, on a terminal in place, elsewhere every ten seconds."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total, self._stream = total, stream
        self._start = self._told = time.monotonic()

    def tell(self, done: int, point: Point) -> None:
        """Say that `point` is about to be measured, `done` others being finished."""
        now = time.monotonic()
        terminal = self._stream.isatty()
        if not terminal and done and now - self._told < 10:
            return
        self._told = now
        left_s = (now - self._start) / done * (self._total - done) if done else None
        left = "" if left_s is None else f", {left_s:.0f} s left"
        text = f"{done}/{self._total}{left}: {point.kernel} {shape_text(point.shape)}"
        self._stream.write(f"\r\x1b[K{text[:110]}" if terminal else f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")


def measure_plan(
    points: Sequence[Point], machine: Machine, progress: Progress
) -> Iterator[Measurement]:
    """Measure one point after another; the caller keeps each row before it asks for the next."""
    for done, point in enumerate(points):
        progress.tell(done, point)
        yield measure(point, machine)
    progress.end()


def measure_file(plan: Path, out: Path, *, resume: bool) -> int:
    """Measure what a plan asks for and `out` does not hold yet.

    Raises:
        CalibrationError: the plan cannot be read, or `out` exists and is not to be resumed.
        MachineError: no GPU, or it failed on the way.
    """
    points = read_plan(plan)
    if not points:
        raise CalibrationError(f"{plan}: has no points")
    machine = find_gpu()
    with RowWriter(out, resume=resume) as rows:
        done = finished(out)
        todo = [point for point in points if point.key not in done]
        failed = 0
        for measured in measure_plan(todo, machine, Progress(len(todo), sys.stderr)):
            rows.write(measured)
            failed += bool(measured.error)
    sys.stderr.write(f"{len(todo)} points measured, {failed} of them failed; rows in {out}\n")
    return 0
