"""How a day times the layers of a stack: in which order, what fails, and what it goes on with."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="needs PyTorch and Triton")
pytest.importorskip("torch", reason="needs PyTorch and Triton")

import torch

from calibration.gpu_day.budget import Budget
from calibration.gpu_day.day import Day
from calibration.gpu_day.dry import DryMachine
from calibration.gpu_day.files import (
    BLOCKING,
    EAGER,
    GRAPH,
    STACK,
    STACK_COLUMNS,
    STACK_ROWS,
    TOTAL,
)
from calibration.gpu_day.parts import stack
from calibration.gpu_day.sizes import TinySizes
from calibration.measure.append_csv import whole_rows
from calibration.stack.names import BACKWARD, DECODE, DEPTH, FORWARD, LAYERS, STACKS
from calibration.stack.tape import Tape
from hwmodels.errors import MachineError
from tests.unit.tapes import adding

ROWS = 3 * (2 + 3 + 2) + 2 * 3
"""Of three fake layers two ops, three totals, two ops as graphs; of two stacks three totals."""


class Clockwork(DryMachine):
    """A machine that notes what it times, a tenth of a second each; its graphs are none."""

    def __init__(self) -> None:
        super().__init__()
        self.timed: list[tuple[Callable[[], object], Any, bool]] = []

    def time(self, run, repeats, *, sustained=False, after=None, launches=False):
        self.timed.append((run, after, launches))
        self.now_s += 0.1
        return super().time(run, repeats)

    def capture(self, run):
        return partial(run)


def fake_layers(fails: str, played: list[str]) -> dict[str, Tape]:
    """Return three layers of two steps each, `a` by a kernel of ours; one op may fail.

    Args:
        played: takes the name of every step that is played.
    """

    def run(name: str) -> Callable[..., object]:
        def add_one(reads, writes) -> None:
            if name == fails:
                raise ValueError(f"{name} does not fit\nand more")
            played.append(name)
            writes[0].copy_(reads[0] + 1)

        return add_one

    made = {}
    for layer in (FORWARD, BACKWARD, DECODE):
        buffers = {name: torch.zeros(1) for name in "xyz"}
        ours = {"kernel": "quantize", "shape": {"m": 1, "k": 8}}
        steps = [adding("a", ("x",), ("y",), run=run(f"{layer} a"), **ours),
                 adding("b", ("y",), ("z",), run=run(f"{layer} b"))]  # fmt: skip
        made[layer] = Tape(buffers, {"x"}, steps)
    return made


@pytest.fixture
def open_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Opens a day in the same folder again and again, with layers that are fake."""
    days: list[Day] = []

    def opened(
        *,
        fails: str = "",
        budget_s: float = 100.0,
        machine: Any = None,
        played: list[str] | None = None,
    ) -> Day:
        made = fake_layers(fails, [] if played is None else played)
        trained = {layer: made[layer] for layer in (FORWARD, BACKWARD)}
        monkeypatch.setattr(stack, "training", lambda *_: trained)
        monkeypatch.setattr(stack, "decoding", lambda *_: {DECODE: made[DECODE]})
        machine = machine or Clockwork()
        day = Day(tmp_path / "day", machine, TinySizes(), Budget(budget_s, machine.clock))
        day.budget.begin_part(1.0, 0.0, 0.0)
        days.append(day)
        return day

    stack.planned.cache_clear()
    yield opened
    stack.planned.cache_clear()
    for day in days:
        day.__exit__()


def rows(day: Day) -> list[dict[str, str]]:
    return whole_rows(day.out / STACK, STACK_COLUMNS, STACK_ROWS)


def keys(day: Day) -> list[tuple[str, str, str]]:
    return [(row["layer"], row["mode"], row["op"]) for row in rows(day)]


def test_ops_and_totals_come_layer_by_layer_and_graphs_of_ops_last(open_day) -> None:
    day = open_day()
    stack.run(day)
    whole = [(EAGER, "a"), (EAGER, "b"), (EAGER, TOTAL), (BLOCKING, TOTAL), (GRAPH, TOTAL)]
    layers = (FORWARD, BACKWARD, DECODE)
    assert keys(day) == [
        *((layer, *key) for layer in layers for key in whole),
        *((deep, mode, TOTAL) for deep in STACKS for mode in stack.TOTALS),
        *((layer, GRAPH, op) for layer in layers for op in "ab"),
    ]
    assert not any(row["error"] or row["without"] for row in rows(day))
    assert {row["runs"] for row in rows(day)} == {str(stack.REPEATS)}
    by_kernel = {row["kernel"] for row in rows(day)}
    assert by_kernel == {"quantize", "torch.add", ""}
    for row in rows(day):
        assert bool(row["bytes"]) == (row["kernel"] == "quantize"), row


def test_an_op_is_timed_after_the_one_before_it_and_only_a_total_with_its_launches(
    open_day,
) -> None:
    machine = Clockwork()
    stack.run(open_day(machine=machine))
    (first, nothing, _), (_second, after, _), *totals = machine.timed[:5]
    assert nothing is None
    assert after is first
    assert [total[1:] for total in totals] == [(None, True), (None, True), (None, False)]
    assert [launches for *_, launches in machine.timed[:2]] == [False, False]


def test_a_total_that_blocks_waits_after_every_op(open_day) -> None:
    machine, waited = Clockwork(), []
    machine.finish = lambda: waited.append(len(waited))
    stack.run(open_day(machine=machine))
    for number, waits in enumerate((0, 2, 0)):  # totals stand behind the two ops of a layer
        before = len(waited)
        machine.timed[2 + number][0]()
        assert len(waited) - before == waits


def test_a_stack_is_its_layers_behind_each_other(open_day) -> None:
    machine, played = Clockwork(), list[str]()
    stack.run(open_day(machine=machine, played=played))
    first = len(LAYERS) * (2 + len(stack.TOTALS))
    for number, stacked in enumerate(STACKS):
        played.clear()
        machine.timed[first + number * len(stack.TOTALS)][0]()
        assert played == [
            f"{layer} {op}" for layer in STACKS[stacked] for _ in range(DEPTH) for op in "ab"
        ]


def test_each_op_works_on_what_the_ones_before_it_made(open_day) -> None:
    day = open_day()
    seen = []
    warm_up = day.machine.warm_up

    def noted(run: Callable[[], object]) -> float:
        taken = warm_up(run)
        seen.append([day_tape.buffers[name].item() for name in "xyz"])
        return taken

    day_tape = stack.training(None, None)[FORWARD]
    day.machine.warm_up = noted
    stack.run(day)
    assert seen[:2] == [[0, 1, 0], [0, 1, 2]]


def test_what_fails_is_a_row_and_the_total_says_that_it_is_without(open_day) -> None:
    day = open_day(fails=f"{BACKWARD} a")
    stack.run(day)
    told = {(row["layer"], row["mode"], row["op"]): row for row in rows(day)}
    failed = told[BACKWARD, EAGER, "a"]
    assert failed["error"] == f"ValueError: {BACKWARD} a does not fit"
    assert (failed["p50_s"], failed["runs"]) == ("", "0")
    for mode in (EAGER, BLOCKING, GRAPH):
        assert told[BACKWARD, mode, TOTAL]["without"] == "a"
        assert told[BACKWARD, mode, TOTAL]["p50_s"]
        assert told[FORWARD, mode, TOTAL]["without"] == ""
    assert (BACKWARD, GRAPH, "a") not in told  # what fails eagerly is not captured
    assert told[BACKWARD, EAGER, "b"]["p50_s"]
    assert told["train_stack", EAGER, TOTAL]["without"] == f"{BACKWARD}: a"
    assert told["decode_stack", EAGER, TOTAL]["without"] == ""


def test_a_kernel_with_wrong_numbers_is_left_out(open_day) -> None:
    day = open_day()
    day.wrong = {("quantize", "")}
    stack.run(day)
    assert {op for *_, op in keys(day)} == {"b", TOTAL}
    layers = [row for row in rows(day) if row["op"] == TOTAL and row["layer"] not in STACKS]
    assert {row["without"] for row in layers} == {"a"}


def test_without_graphs_every_row_of_theirs_says_why(open_day) -> None:
    day = open_day(machine=DryMachine())
    stack.run(day)
    graphs = [row for row in rows(day) if row["mode"] == GRAPH]
    assert len(graphs) == 3 * (2 + 1) + 2
    for row in graphs:
        assert row["error"] == (
            "RuntimeError: CUDA graphs are not available: there is no CUDA device"
        )
        assert row["p50_s"] == ""


@pytest.mark.parametrize(
    "budget_s", [10.0, 0.5, 0.9, 1.1, 1.3, 1.7, 2.1, 2.5, 3.5, 3.7, 3.9, 4.1, 4.3, 4.7]
)
def test_a_day_that_was_cut_off_goes_on_and_measures_nothing_twice(
    open_day, budget_s: float
) -> None:
    """A row takes 0.5 s of the clock, or 0.1 where nothing warms up: 5.1 s in all. Cut off among
    ops, among totals, among stacks, among graphs.
    """
    cut = open_day(budget_s=budget_s)
    stack.run(cut)
    first = keys(cut)
    assert cut.cut_off == (len(first) < ROWS)
    rest = open_day()
    stack.run(rest)
    assert len(keys(rest)) == len(set(keys(rest))) == ROWS
    assert keys(rest)[: len(first)] == first
    last = open_day()
    stack.run(last)
    assert not last.machine.timed
    assert last.budget.spent_s == 0


def test_an_op_in_which_a_process_ended_is_passed_over(open_day) -> None:
    day = open_day()
    planned = stack.planned(None, None)[FORWARD][1]
    point = stack.Point(planned.kernel, planned.shape)
    day.record["suspects"] = [[f"{EAGER} {FORWARD}: b", *point.key]]
    stack.run(day)
    told = {(row["layer"], row["mode"], row["op"]): row for row in rows(day)}
    assert told[FORWARD, EAGER, "b"]["error"] == "the process ended or hung in it"
    assert told[FORWARD, EAGER, TOTAL]["without"] == "b"


def test_a_device_that_failed_ends_it(open_day) -> None:
    machine = Clockwork()

    def fails(*_args, **_options):
        raise MachineError("the GPU failed")

    machine.time = fails
    day = open_day(machine=machine)
    with pytest.raises(MachineError):
        stack.run(day)
    assert rows(day) == []
