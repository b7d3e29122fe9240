"""A layer as a sequence of kernels: op by op and in total, eager and as a CUDA graph; and a stack.

Every other part times a kernel on operands of its own that have left the L2. Here each op works on
what the ops before it made, and the one right before it has left its results in the L2. The total
of eager launches is what a user has: where the host launches slower than the device runs, it
waits. The total of a graph is without that; that of a host which waits for the device after each
op has both, one after the other. Each row has the time that the host took to launch it, too. In a
stack, forward through a few layers and back, the host may run ahead into the next. What a simulated
layer is to be judged by.

Ops that fail, and kernels with wrong numbers, are left out of the total, which names them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from typing import Any

import torch

from calibration.gpu_day.day import Day
from calibration.gpu_day.files import (
    BLOCKING,
    EAGER,
    GRAPH,
    STACK,
    STACK_COLUMNS,
    STACK_ROWS,
    TOTAL,
)
from calibration.gpu_day.parts import ROW_HOST_S, Estimate
from calibration.gpu_day.sizes import Sizes
from calibration.measure.machine import check_alive, first_line, work_of
from calibration.measure.measurement import Point, shape_text
from calibration.measure.plan import device_time_s
from calibration.stack.dimensions import Dimensions
from calibration.stack.layer import decoding, training
from calibration.stack.names import BACKWARD, DECODE, DEPTH, FORWARD, LAYERS, STACKS
from calibration.stack.tape import Step, Tape
from hwmodels.errors import MachineError

NUMBER, SHARE, LEAST_S = 7, 0.08, 0.0

TOTALS = (EAGER, BLOCKING, GRAPH)
REPEATS = 30

Run = Callable[[], object]


def points(sizes: Sizes) -> list[Point]:
    """Return the kernels of all layers, each shape once."""
    found = [
        Point(step.kernel, step.shape)
        for steps in planned(sizes.training_layer(), sizes.decoding_layer()).values()
        for step in steps
        if step.ours
    ]
    return list({point.key: point for point in found}.values())


@cache
def planned(trained: Dimensions, decoded: Dimensions) -> Mapping[str, tuple[Step, ...]]:
    """Return the steps of every layer, without memory for any."""
    nowhere = torch.device("meta")
    tapes = {**training(trained, nowhere), **decoding(decoded, nowhere)}
    return {layer: tapes[layer].steps for layer in LAYERS}


def estimate(sizes: Sizes) -> Estimate:
    """Return what ops and totals take, in every mode."""
    layers = planned(sizes.training_layer(), sizes.decoding_layer()).values()
    kernels = [Point(step.kernel, step.shape) for steps in layers for step in steps if step.ours]
    rows = sum(2 * len(steps) for steps in layers)
    rows += len(TOTALS) * (len(LAYERS) + DEPTH * len(STACKS))  # a row of a stack is longer
    device_s, host_s = 2 * device_time_s(kernels), ROW_HOST_S / 2 * rows
    return Estimate(
        device_s + host_s,
        f"{rows} rows: {device_s:.0f} s on the device as for other rows, and {ROW_HOST_S / 2:g} s "
        f"a row around it, for no inputs are drawn (assumed)",
    )


def run(day: Day) -> None:
    """Measure ops and totals of all layers, stacks of them, then the ops once more as graphs."""
    bench = Bench(day)
    for layer in LAYERS:
        if bench.lacks(layer):
            if not day.has_time():
                return
            bench.time_ops(layer)
            for mode in TOTALS:
                bench.time_total(layer, mode)
    for stack in STACKS:
        for mode in TOTALS:
            bench.time_stack(stack, mode)
    for layer in LAYERS:
        bench.time_ops_as_graphs(layer)


class Bench:
    """Times the layers of a day, and keeps the rows."""

    def __init__(self, day: Day) -> None:
        """Take up the rows that are there."""
        self._day = day
        self._table, known = day.table(STACK, STACK_COLUMNS, STACK_ROWS)
        self._errors = {(row["layer"], row["mode"], row["op"]): row["error"] for row in known}
        self._tapes: dict[str, Tape] = {}
        self._played: set[str] = set()

    def lacks(self, layer: str) -> bool:
        """Return whether rows are missing for which the layer must be played in order."""
        sizes = self._day.sizes
        steps = planned(sizes.training_layer(), sizes.decoding_layer())[layer]
        keys = [(layer, EAGER, step.op) for step in steps if not self._day.excludes(step.kernel)]
        totals = [(layer, mode, TOTAL) for mode in TOTALS]
        follows = layer == FORWARD and self.lacks(BACKWARD)
        return follows or any(key not in self._errors for key in (*keys, *totals))

    def time_ops(self, layer: str) -> None:
        """Time each op on what those before it made, as far as there is time."""
        tape, before = self._tape(layer), None
        for step in tape.steps:
            run = tape.bound(step)
            if self._day.excludes(step.kernel):
                continue
            if (layer, EAGER, step.op) not in self._errors:
                if not self._day.has_time():
                    return
                self._time(layer, EAGER, step, run, after=before)
            elif not self._leaves_out(layer, step):
                run()
            if not self._leaves_out(layer, step):
                before = run
        self._played.add(layer)

    def time_total(self, layer: str, mode: str) -> None:
        """Time a whole layer whose ops were played."""
        done = (layer, mode, TOTAL) in self._errors
        if layer not in self._played or done or not self._day.has_time():
            return
        self._time(layer, mode, None, self._whole(layer, mode), without=self._left_out(layer))

    def time_stack(self, stack: str, mode: str) -> None:
        """Time layers behind each other, as far as they are made of what was timed."""
        if (stack, mode, TOTAL) in self._errors or not self._day.has_time():
            return
        for layer in STACKS[stack]:
            if layer not in self._played:
                self._play(layer)
        runs = [self._whole(layer, mode) for layer in STACKS[stack] for _ in range(DEPTH)]
        without = [f"{layer}: {op}" for layer in STACKS[stack] for op in self._left_out(layer)]
        self._time(stack, mode, None, lambda: [run() for run in runs], without=without)

    def time_ops_as_graphs(self, layer: str) -> None:
        """Time the ops of a layer as graphs of one op each."""
        sizes = self._day.sizes
        steps = planned(sizes.training_layer(), sizes.decoding_layer())[layer]
        todo = [
            step.op
            for step in steps
            if (layer, GRAPH, step.op) not in self._errors and not self._leaves_out(layer, step)
        ]
        if todo and not self._day.has_time():
            return
        if todo and layer not in self._played:
            self._play(layer)
        before = None
        for step in self._tape(layer).steps if todo else ():
            run = self._tape(layer).bound(step)
            if step.op in todo:
                if not self._day.has_time():
                    return
                self._time(layer, GRAPH, step, run, after=before)
            if not self._leaves_out(layer, step):
                before = run

    def _whole(self, layer: str, mode: str) -> Run:
        """Return a function that plays a layer without what is left out."""
        then = self._day.machine.finish if mode == BLOCKING else None
        return self._tape(layer).bound_all(self._left_out(layer), then)

    def _left_out(self, layer: str) -> list[str]:
        return [step.op for step in self._tape(layer).steps if self._leaves_out(layer, step)]

    def _leaves_out(self, layer: str, step: Step) -> bool:
        """Return whether a step is wrong or failed, so that it is not played."""
        failed = bool(self._errors.get((layer, EAGER, step.op)))
        return failed or self._day.excludes(step.kernel)

    def _tape(self, layer: str) -> Tape:
        if layer not in self._tapes:
            device, sizes = self._day.machine.device, self._day.sizes
            trained = layer in (FORWARD, BACKWARD)
            self._tapes |= (
                training(sizes.training_layer(), device)
                if trained
                else decoding(sizes.decoding_layer(), device)
            )
        return self._tapes[layer]

    def _play(self, layer: str) -> None:
        """Play a layer, untimed, and the one that it follows."""
        if layer == BACKWARD and FORWARD not in self._played:
            self._play(FORWARD)
        self._whole(layer, EAGER)()
        self._played.add(layer)

    def _time(
        self,
        layer: str,
        mode: str,
        step: Step | None,
        run: Run,
        *,
        after: Run | None = None,
        without: list[str] | None = None,
    ) -> None:
        """Time one op, or without a step the total, and keep its row.

        Raises:
            MachineError: the device has failed.
        """
        day, timing = self._day, None
        point = Point(step.kernel, step.shape) if step else Point("stack", self._size(layer))
        op = step.op if step else TOTAL
        error = day.begin(f"{mode} {layer}: {op}", point)
        if not error:
            try:
                played = day.machine.capture(run) if mode == GRAPH else run
                if step and mode == EAGER:
                    day.machine.warm_up(played)
                launches = step is None and mode != GRAPH
                timing = day.machine.time(played, REPEATS, after=after, launches=launches)
            except MachineError:
                raise
            except Exception as failure:  # whatever a kernel raises belongs in its row
                check_alive(day.machine, failure)
                error = f"{type(failure).__name__}: {first_line(failure)}"
        self._errors[layer, mode, op] = error
        name = {"layer": layer, "mode": mode, "op": op, "where": step.where if step else "",
                "kernel": step.kernel if step else ""}  # fmt: skip
        self._table.append({**dict(self._cells(step, point, timing)), **name,
                            "without": "; ".join(without or ()), "error": error})  # fmt: skip

    def _cells(self, step: Step | None, point: Point, timing: Any) -> Iterator[tuple[str, Any]]:
        flops, bytes_ = work_of(point) if step and step.ours else (None, None)
        yield from (("shape", shape_text(point.shape)), ("flops", flops), ("bytes", bytes_))
        for cell, name in (("p20_s", "p20_s"), ("p50_s", "time_s"), ("p80_s", "p80_s"),
                           ("host_s", "host_s"), ("sm_clock_hz", "sm_clock_hz"),
                           ("power_w", "power_w"), ("temperature_c", "temperature_c")):  # fmt: skip
            yield cell, timing and getattr(timing, name)
        yield "runs", timing.repeats if timing else 0
        yield "device", self._day.machine.name
        yield "date", datetime.now(UTC).isoformat(timespec="seconds")

    def _size(self, name: str) -> dict[str, Any]:
        """Return the dimensions of a layer, and how many of them a stack has."""
        sizes, layers = self._day.sizes, STACKS.get(name, (name,))
        size = asdict(sizes.decoding_layer() if DECODE in layers else sizes.training_layer())
        return size | ({"layers": DEPTH} if name in STACKS else {})
