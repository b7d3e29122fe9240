"""The day on a borrowed GPU, without one: its budget, its record, and what fails in it."""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton", reason="needs PyTorch and Triton")
pytest.importorskip("torch", reason="needs PyTorch and Triton")

from calibration.gpu_day.__main__ import main
from calibration.gpu_day.budget import Budget
from calibration.gpu_day.day import Day, refuse_folder
from calibration.gpu_day.dry import DryMachine
from calibration.gpu_day.run import run_parts
from calibration.gpu_day.sizes import TinySizes
from calibration.gpu_day.supervise import supervise
from calibration.measure import ahead
from calibration.measure.measurement import Point, read_rows
from hwmodels.errors import CalibrationError, MachineError

INF, NAN = float("inf"), float("nan")


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def part(run, number: int = 1, share: float = 0.5, least_s: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(NUMBER=number, SHARE=share, LEAST_S=least_s, run=run)


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A day of 100 s whose kernels do not run, each row taking a second."""
    machine = DryMachine()
    monkeypatch.setattr(machine, "warm_up", lambda _run: advance(machine))
    with Day(tmp_path / "day", machine, TinySizes(), Budget(100.0, machine.clock)) as one:
        yield one


def advance(machine: DryMachine, seconds: float = 1.0) -> float:
    machine.now_s += seconds
    return 0.0


def distinct(count: int) -> list[Point]:
    return [Point("quantize", {"m": m + 1, "k": 8}) for m in range(count)]


@given(
    total_s=st.floats(10, 1000),
    wants=st.lists(
        st.tuples(st.floats(0.01, 1), st.floats(0, 30), st.integers(0, 50), st.floats(0.1, 5)),
        min_size=1,
        max_size=8,
    ),
)
def test_no_row_begins_without_time_and_what_is_left_over_flows_on(total_s, wants) -> None:
    """Parts of any share and need: each begins while the one before is over, at its fair share or
    its least; the sum is at most the budget and one row."""
    clock = Clock()
    budget = Budget(total_s, clock)
    to_come = sum(share for share, *_ in wants)
    for share, least_s, rows, row_s in wants:
        to_come -= share
        before_s = budget.left_s
        budget.begin_part(share, max(0.0, to_come), least_s)
        fair_s = before_s * share / (share + max(0.0, to_come))
        assert budget.part_left_s == pytest.approx(min(before_s, max(least_s, fair_s)))
        done = 0
        while done < rows and budget.part_left_s > 0:
            clock.now_s += row_s
            done += 1
        if done < rows:
            assert budget.part_left_s == 0
        if budget.left_s == 0:
            break
    assert clock.now_s <= total_s + max(row_s for *_, row_s in wants) + 1e-9


def test_the_last_part_has_all_that_is_left(day: Day) -> None:
    quick, endless = part(lambda _day: None), part(lambda day: day.measure(distinct(200)), 2)
    run_parts(day, {"quick": quick, "endless": endless})
    assert day.record["parts"]["quick"]["state"] == "done"
    assert day.record["parts"]["endless"] | {"rows": 0} == {
        "state": "cut off", "seconds": pytest.approx(100.0), "rows": 0, "error": "",
    }  # fmt: skip
    assert 99 <= len(read_rows(day.out / "rows.csv")) <= 101


def test_a_part_that_was_cut_off_goes_on_in_the_time_that_others_left(day: Day) -> None:
    """Two of equal share, a row a second: the first is cut off at 50 of 80, the second takes 5."""
    long, short = part(lambda day: day.measure(distinct(80))), part(lambda _day: None, 2)
    run_parts(day, {"long": long, "short": short})
    assert day.record["parts"]["long"] == {
        "state": "done", "seconds": pytest.approx(80, abs=1), "rows": 80, "error": "",
    }  # fmt: skip
    assert len(read_rows(day.out / "rows.csv")) == 80


def test_what_was_done_of_a_part_before_counts_when_a_day_goes_on(day: Day) -> None:
    day.record["parts"]["all"] = {"state": "done", "seconds": 7.0, "rows": 9, "error": ""}
    run_parts(day, {"all": part(lambda day: day.measure(distinct(3)))})
    told = day.record["parts"]["all"]
    assert (told["state"], told["rows"], told["seconds"]) == ("done", 12, pytest.approx(10))


def test_a_folder_of_something_else_is_no_day_to_go_on_with(tmp_path: Path) -> None:
    refuse_folder(tmp_path / "new", resume=True)
    refuse_folder(tmp_path, resume=True)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(CalibrationError, match="holds no day to go on with, but other files"):
        refuse_folder(tmp_path, resume=True)


def test_a_part_that_fails_is_told_and_the_next_one_runs(day: Day) -> None:
    def fails(_day: Day) -> None:
        raise ZeroDivisionError("of no importance")

    run_parts(day, {"fails": part(fails), "runs": part(lambda day: day.measure(distinct(3)), 2)})
    record = json.loads((day.out / "day.json").read_text())["parts"]
    assert record["fails"]["state"] == "failed"
    assert record["fails"]["error"] == "ZeroDivisionError: of no importance"
    assert record["runs"]["rows"] == 3


def test_a_device_that_failed_ends_the_day(day: Day) -> None:
    def fails(_day: Day) -> None:
        raise MachineError("the GPU failed")

    with pytest.raises(MachineError):
        run_parts(day, {"fails": part(fails), "never": part(lambda _day: None, 2)})
    record = json.loads((day.out / "day.json").read_text())["parts"]
    assert list(record) == ["fails"]
    assert record["fails"]["error"] == "the GPU failed"


def test_a_kernel_with_wrong_numbers_is_never_timed(day: Day) -> None:
    day.wrong = {("quantize", ""), ("fp8_gemm", '{"warps":4}')}
    shape = {"m": 16, "n": 16, "k": 128}
    points = [
        Point("quantize", {"m": 1, "k": 8}),
        Point("quantize", {"m": 1, "k": 8}, config='{"rows":8}'),
        Point("fp8_gemm", shape),
        Point("fp8_gemm", shape, config='{"warps":4}'),
    ]
    run_parts(day, {"all": part(lambda day: day.measure(points))})
    assert [(r["kernel"], r["config"]) for r in read_rows(day.out / "rows.csv")] == [
        ("fp8_gemm", "")
    ]


def test_a_kernel_that_compiles_for_ever_is_a_row_that_says_so(day: Day) -> None:
    late = SimpleNamespace(wait=lambda point, _s: "late" if point.shape["m"] == 2 else "compiled")
    day._compilers = late
    late.close, late.failures = lambda: None, list
    run_parts(day, {"all": part(lambda day: day.measure(distinct(3)))})
    errors = [row["error"] for row in read_rows(day.out / "rows.csv")]
    assert errors == ["", "not compiled within 60 s", ""]


def test_what_cannot_be_compiled_is_told_once_and_the_day_goes_on(day: Day) -> None:
    """Each kernel, configuration and reason; also what no part has come to measure."""
    points = distinct(3)
    other = Point("fp8_gemm", {"m": 1, "n": 16, "k": 128}, config='{"warps":4}')
    found = [*((point, "PTXASError: no such thing") for point in points), (other, "ValueError: 4")]
    day._compilers = SimpleNamespace(
        wait=lambda *_: "compiled", failures=lambda: found, close=lambda: None
    )
    run_parts(day, {"all": part(lambda day: day.measure(points))})
    told = [
        {"kernel": "quantize", "config": "", "error": "PTXASError: no such thing",
         "shape": {"m": 1, "k": 8}},
        {"kernel": "fp8_gemm", "config": '{"warps":4}', "error": "ValueError: 4",
         "shape": {"m": 1, "n": 16, "k": 128}},
    ]  # fmt: skip
    assert json.loads((day.out / "day.json").read_text())["not_compiled"] == told
    assert [row["error"] for row in read_rows(day.out / "rows.csv")] == ["", "", ""]
    with Day(day.out, day.machine, TinySizes(), day.budget) as again:
        assert again.record["not_compiled"] == told


def test_a_compiler_that_ends_its_process_costs_its_rows_alone(day: Day) -> None:
    """A launch would compile the same in the process that measures, and end that."""
    day._compilers = SimpleNamespace(
        wait=lambda point, _s: "ended" if point.shape["m"] == 2 else "compiled",
        failures=list, close=lambda: None,
    )  # fmt: skip
    run_parts(day, {"all": part(lambda day: day.measure(distinct(3)))})
    errors = [row["error"] for row in read_rows(day.out / "rows.csv")]
    assert errors == ["", "not compiled: the compiling process ended", ""]


# A process that fails or hangs in the second of three rows until it is told to pass that over.
CHILD = """
import json, os, signal, sys, time
from pathlib import Path
record, way = Path(sys.argv[1]), sys.argv[2]
known = json.loads(record.read_text()) if record.exists() else {"suspects": [], "rows": []}
for row in (["time", "a"], ["time", "b"], ["time", "c"]):
    if row in known["rows"] or row in known["suspects"]:
        continue
    known["doing"] = row
    record.write_text(json.dumps(known))
    if row[1] == "b":
        {"ends": lambda: os.kill(os.getpid(), signal.SIGSEGV),
         "hangs": lambda: time.sleep(60),
         "fails": lambda: sys.exit(3)}[way]()
    known["rows"].append(row)
known["doing"] = None
record.write_text(json.dumps(known))
"""


@pytest.mark.parametrize("way", ["ends", "hangs", "fails"])
def test_a_row_that_ends_its_process_costs_itself_alone(tmp_path: Path, way: str) -> None:
    record, started = tmp_path / "day.json", []

    def command(resume: bool, left_s: float) -> list[str]:
        started.append((resume, left_s))
        return [sys.executable, "-c", CHILD, str(record), way]

    assert supervise(command, record, 600.0, resume=False, stall_s=2.0) == 0
    known = json.loads(record.read_text())
    assert known["rows"] == [["time", "a"], ["time", "c"]]
    assert known["suspects"] == [["time", "b"]]
    assert [resume for resume, _ in started] == [False, True]
    assert started[1][1] < started[0][1]


def test_a_process_that_never_began_is_not_tried_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit(3)"]
    assert supervise(lambda *_: command, tmp_path / "day.json", 600.0, resume=False) == 3


def test_a_suspect_is_passed_over_and_told(day: Day) -> None:
    first, second = distinct(2)
    day.record["suspects"] = [["time", *first.key]]
    run_parts(day, {"all": part(lambda day: day.measure([first, second]))})
    errors = [row["error"] for row in read_rows(day.out / "rows.csv")]
    assert errors == ["the process ended or hung in it", ""]
    assert json.loads((day.out / "day.json").read_text())["doing"] is None


def test_a_point_compiles_ahead_in_another_process(tmp_path: Path, monkeypatch) -> None:
    """What a launch compiles lies in the cache by then; a library has nothing to compile."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    ours, theirs = (
        Point("probe_copy", {"bytes": 4096}),
        Point("probe_copy", {"bytes": 4096}, "torch"),
    )
    compilers = ahead.Ahead([ours, theirs], capability=90, sms=132, workers=1)
    try:
        assert compilers.wait(ours, 120) == "compiled"
        assert compilers.wait(theirs, 120) == "compiled"
        assert compilers.wait(Point("probe_copy", {"bytes": 8192}), 0) == "unknown"
    finally:
        compilers.close()
    assert list(tmp_path.rglob("*.cubin"))


def fails_to_compile(point: Point, *_: object) -> str:
    """In place of a compiler: one shape has an error, another ends the process."""
    if point.shape["m"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return "ValueError: no" if point.shape["m"] == 1 else ""


def serve_failing(*arguments: object) -> None:
    """Serve `Ahead` so."""
    ahead.compile_point = fails_to_compile
    ahead._serve(*arguments)


def test_who_compiles_ahead_tells_what_failed_and_goes_on(monkeypatch) -> None:
    """Also where the compiler took its process along, of which the pool says nothing."""
    monkeypatch.setattr(ahead, "_serve", serve_failing)
    first, second, third = distinct(3)
    compilers = ahead.Ahead([first, second, third, first], capability=90, sms=132, workers=1)
    try:
        assert compilers.wait(third, 120) == "compiled"
        assert compilers.wait(second, 120) == "ended"
        assert compilers.wait(first, 0) == "compiled"
        assert compilers.failures() == [
            (first, "ValueError: no"), (second, "the compiling process ended"),
        ]  # fmt: skip
    finally:
        compilers.close()


def test_a_process_that_cannot_even_begin_leaves_compiling_to_the_launch(monkeypatch) -> None:
    monkeypatch.setattr(ahead, "_serve", os._exit)  # which wants another argument
    (point,) = distinct(1)
    compilers = ahead.Ahead([point], capability=90, sms=132, workers=1)
    try:
        assert compilers.wait(point, 120) == "compiled"
        assert compilers.failures() == [
            (point, "no compiling process: it ended before it began"),
        ]  # fmt: skip
    finally:
        compilers.close()


def test_a_day_without_points_needs_no_compiler() -> None:
    compilers = ahead.Ahead([], capability=90, sms=132, workers=1)
    assert not compilers.failures()
    assert compilers.left == 0
    compilers.close()


@pytest.mark.parametrize("facts", [{"name": "H20"}, {"sms": 78}, {"capability": 100}])
def test_a_day_goes_on_on_its_own_device_only(
    day: Day, monkeypatch, capsys: pytest.CaptureFixture[str], facts: dict[str, object]
) -> None:
    """Also before any process compiles for the other one."""
    before = (day.out / "day.json").read_text()
    other = DryMachine()
    here = other.facts() | facts
    other.facts = lambda: here
    monkeypatch.setattr("calibration.measure.machine.find_gpu", lambda: other)
    monkeypatch.setattr("calibration.gpu_day.__main__.end_with_parent", lambda: None)
    monkeypatch.setattr(ahead, "Ahead", None)
    assert main(["--alone", "--resume", "--out", str(day.out)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "another device needs another folder" in told
    assert (day.out / "day.json").read_text() == before
    with pytest.raises(CalibrationError, match="holds a day of interpreter"):
        Day(day.out, other, TinySizes(), day.budget)


@pytest.mark.parametrize(
    ("got", "want", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([3.0, 4.0], [3.0, 5.0], 1 / 34**0.5),
        ([-INF, 1.0], [-INF, 1.0], 0.0),  # the lse of no keys
        ([0.0, 1.0], [-INF, 1.0], INF),
        ([NAN, 1.0], [1.0, 1.0], INF),  # poison that nobody overwrote
        ([1.0], [1.0, 1.0], INF),
        ([], [], 0.0),
    ],
)
def test_an_output_is_as_near_as_its_relative_error(got, want, error) -> None:
    import torch

    from calibration.measure.numerics import closeness

    found = closeness(torch.tensor(got), torch.tensor(want), "bf16")
    assert found.error == pytest.approx(error)
    assert found.ok == (error <= 4e-3)
    assert bool(found.note) != found.ok
