"""Measuring without a GPU: plans, rows, resuming, and how it fails."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs PyTorch and Triton")
torch = pytest.importorskip("torch", reason="needs PyTorch and Triton")

from calibration.measure import bench as bench_module  # noqa: E402
from calibration.measure import machine as measuring  # noqa: E402
from calibration.measure import run_plan, timing  # noqa: E402
from calibration.measure.__main__ import main  # noqa: E402
from calibration.measure.bench import Ceilings, bench_row  # noqa: E402
from calibration.measure.measurement import (  # noqa: E402
    COLUMNS,
    Point,
    RowWriter,
    finished,
    points_as_json,
    read_plan,
    read_rows,
)
from calibration.measure.timing import Timing  # noqa: E402
from hwmodels.errors import CalibrationError, MachineError  # noqa: E402
from kernels import rmsnorm  # noqa: E402

CHECKOUT = Path(__file__).resolve().parents[2]
NORM = {"m": 4, "k": 64, "residual": 0}


class StandIn:
    """A machine whose kernels take a millisecond, and twice that on half of its SMs."""

    device = torch.device("cpu")
    name, sms, driver = "stand-in", 8, "0"

    def __init__(self) -> None:
        self.holding: list[tuple[int, bool]] = []
        self.fail: Exception | None = None

    def warm_up(self, _run) -> float:
        if self.fail:
            raise self.fail
        return 0.0

    def time(self, _run, repeats: int, *, sustained: bool = False) -> Timing:
        return Timing(2e-3 if sustained else 1e-3, 0.9e-3, 1.2e-3, repeats, sm_clock_hz=1e9)

    @contextlib.contextmanager
    def held(self, sms: int, *, copying: bool):
        self.holding.append((sms, copying))
        yield


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    one = StandIn()
    monkeypatch.setattr(run_plan, "find_gpu", lambda: one)
    monkeypatch.setattr(bench_module, "find_gpu", lambda: one)
    return one


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    points = [
        Point("rmsnorm", NORM),
        Point("rmsnorm", NORM, "torch"),
        Point("rmsnorm", NORM, mode="beside", held_sms=2),
        Point("rmsnorm", NORM, sustained=True),
    ]
    path.write_text(points_as_json(points, 1.0), encoding="utf-8")
    return path


def test_a_plan_reads_as_it_was_written(plan_file: Path) -> None:
    points = read_plan(plan_file)
    assert [p.mode for p in points] == ["isolated", "isolated", "beside", "isolated"]
    assert points[0] == Point("rmsnorm", NORM)
    assert len({point.key for point in points}) == 4


def test_rows_are_measured_and_resumed(machine: StandIn, plan_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    assert main([str(plan_file), "--out", str(out)]) == 0
    rows = read_rows(out)
    assert [float(row["time_s"]) for row in rows] == [1e-3, 1e-3, 1e-3, 2e-3]
    assert [row["library"] for row in rows[:2]] == ["triton", "torch"]
    assert rows[2]["sms"] == "6"
    assert machine.holding == [(2, True)]
    assert float(rows[0]["bytes"]) == 4 * 64 * 4 + 4 * 4 + 64 * 2
    # A kill in the middle of the last row: it is measured again, the others are not.
    out.write_text(out.read_text()[:-20])
    assert len(read_rows(out)) == 3
    assert main([str(plan_file), "--out", str(out), "--resume"]) == 0
    again = read_rows(out)
    assert len(again) == 4
    assert again[:3] == rows[:3]
    assert main([str(plan_file), "--out", str(out), "--resume"]) == 0
    assert read_rows(out) == again


def test_a_file_is_not_overwritten(
    machine: StandIn, plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.csv"
    out.write_text("something,else\n1,2\n")
    assert main([str(plan_file), "--out", str(out)]) == 2
    assert main([str(plan_file), "--out", str(out), "--resume"]) == 2
    assert out.read_text() == "something,else\n1,2\n"
    assert "--resume" in capsys.readouterr().err


def test_a_failing_shape_is_a_row_with_its_error(machine: StandIn, tmp_path: Path) -> None:
    machine.fail = ValueError("does not fit\nand more")
    row = measuring.measure(Point("rmsnorm", NORM), machine)
    assert row.error == "ValueError: does not fit"
    assert row.time_s is None
    machine.fail = None
    for bad in (
        Point("rmsnorm", NORM, "cutlass"),
        Point("rmsnrm", NORM),
        Point("rmsnorm", {"m": 3}),
        Point("rmsnorm", NORM, mode="limited", held_sms=8),
    ):
        assert measuring.measure(bad, machine).error
    out = tmp_path / "rows.csv"
    with RowWriter(out, resume=False) as rows:
        rows.write(row)
    assert read_rows(out)[0]["time_s"] == ""
    assert finished(out) == set(), "a failed point is tried again"


def test_a_failing_machine_keeps_the_rows(
    machine: StandIn, plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = machine.time, []

    def fails_third(run, repeats: int, *, sustained: bool = False) -> Timing:
        calls.append(1)
        if len(calls) == 3:
            raise MachineError("the GPU fell off the bus")
        return real(run, repeats, sustained=sustained)

    machine.time = fails_third
    out = tmp_path / "rows.csv"
    assert main([str(plan_file), "--out", str(out)]) == 3
    assert len(read_rows(out)) == 2
    assert "the GPU fell off the bus" in capsys.readouterr().err


class Late:
    """Streams and events of a device on which holders start late or end early."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def query(self) -> bool:
        return True

    record = synchronize = __call__ = __init__


@pytest.mark.parametrize(
    ("started", "says"),
    [(3, "RuntimeError: 3 of 4 SMs could be held"), (4, "RuntimeError: the kernel that holds SMs")],
)
def test_sms_that_cannot_be_held_cost_their_row_alone(
    machine: StandIn, monkeypatch: pytest.MonkeyPatch, started: int, says: str
) -> None:
    """Holders that never all started, or ended too soon: the device is well, the row is not."""
    monkeypatch.setattr(torch.cuda, "Stream", Late)
    monkeypatch.setattr(torch.cuda, "Event", Late)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    held, zeros = started, torch.zeros
    monkeypatch.setattr(timing.occupy, "launch", lambda started, **_: started.fill_(held))

    def unpinned(*size: int, pin_memory: bool = False, **on) -> torch.Tensor:
        return zeros(*size, **on)

    monkeypatch.setattr(torch, "zeros", unpinned)
    gpu = object.__new__(timing.Gpu)
    gpu.device, gpu.name, gpu.sms, gpu.driver = machine.device, machine.name, 8, ""
    gpu.finish, gpu.warm_up, gpu.time = Late(), machine.warm_up, machine.time
    row = measuring.measure(Point("rmsnorm", NORM, mode="limited", held_sms=4), gpu)
    assert row.error.startswith(says)
    assert row.time_s is None
    assert not measuring.measure(Point("rmsnorm", NORM), gpu).error


def test_an_error_of_tritons_compiler_is_told_with_its_reason() -> None:
    """It begins with a place, lists the source, and ends with what is wrong there."""
    error = ValueError("at 2:17:\ndef k(x):\n      ^\narange's range must be a power of 2")
    assert measuring.first_line(error) == "at 2:17: arange's range must be a power of 2"
    assert measuring.first_line(ValueError("at 2:17:")) == "at 2:17:"
    assert measuring.first_line(ValueError("ptxas fatal\nand more")) == "ptxas fatal"


def test_the_oldest_triton_that_measures_is_the_oldest_that_installs() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = " ".join(project["optional-dependencies"]["gpu"])
    assert "triton>=" + ".".join(map(str, measuring.TRITON_MIN)) + "," in wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no measuring plan"),
        ('{"points": 3}', "is no measuring plan"),
        ('{"points": []}', "has no points"),
        ('{"points": [{"kernel": "x"}]}', "shape"),
        ('{"points": [{"kernel": "x", "shape": {}, "mode": "alone"}]}', "isolated"),
        ('{"points": [{"kernel": "x", "shape": {}, "mode": "beside"}]}', "0 SMs held"),
        ('{"points": [{"kernel": "x", "shape": {}, "colour": 1}]}', "colour"),
    ],
)
def test_a_bad_plan_is_refused(
    machine: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    assert main([str(path), "--out", str(tmp_path / "rows.csv")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "rows.csv").exists()


def test_no_gpu_is_one_line_and_exit_3(plan_file: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    command = [sys.executable, "-m", "calibration.measure", str(plan_file), "--out", "rows.csv"]
    done = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "no GPU" in done.stderr
    assert not (CHECKOUT / "rows.csv").exists()


def test_progress_tells_time_left() -> None:
    stream = io.StringIO()
    progress = run_plan.Progress(10, stream)
    progress.tell(0, Point("rmsnorm", NORM))
    progress.tell(1, Point("rmsnorm", NORM))  # too soon for a second line
    assert stream.getvalue().splitlines() == ['0/10: rmsnorm {"k":64,"m":4,"residual":0}']


def test_bench_rows_have_rates_and_fractions(
    machine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_module, "COPY_BYTES", 1 << 12)
    monkeypatch.setattr(rmsnorm, "SHAPES", (NORM,))
    rows = list(bench_module.bench("rmsnorm"))
    assert {row.provider for row in rows} == {"moesim", "torch"}
    assert all(row.time_s == 1e-3 and row.of_copy > 0 for row in rows)
    measured = measuring.measure(Point("bf16_gemm", {"m": 8, "n": 8, "k": 8}), machine)
    row = bench_row(measured, Ceilings(2e6, 4e6, 1e6))
    assert row.flops_per_s == pytest.approx(1.024e6)
    assert row.of_peak == pytest.approx(0.512)
    assert row.of_copy == pytest.approx(0.384)


@pytest.mark.parametrize(("op", "provider"), [("rmsnrm", None), ("rmsnorm", "cutlass")])
def test_bench_of_something_unknown(machine: StandIn, op: str, provider: str | None) -> None:
    with pytest.raises(CalibrationError, match="known: "):
        list(bench_module.bench(op, provider))


def test_columns_are_what_the_fit_expects() -> None:
    assert COLUMNS[:5] == ("kernel", "provider", "library", "version", "shape")
    assert json.loads('{"k":64,"m":4,"residual":0}') == NORM


def test_a_file_cut_anywhere_keeps_its_whole_rows(tmp_path: Path) -> None:
    """Also in the middle of a character; what is no text at all is refused."""
    from calibration.measure.append_csv import AppendCsv, whole_rows

    path = tmp_path / "rows.csv"
    with AppendCsv(path, ("a", "b"), "rows", resume=False) as rows:
        rows.append({"a": "1", "b": "µs"}, {"a": "2", "b": "µs"})
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        ends = whole[:cut].count(b"\n")
        assert [row["a"] for row in whole_rows(path, ("a", "b"), "rows")] == ["1", "2"][
            : max(0, ends - 1)
        ]
    path.write_bytes(b"\xff\n")
    with pytest.raises(CalibrationError, match="got no text"):
        whole_rows(path, ("a", "b"), "rows")
