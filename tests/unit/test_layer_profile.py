"""The trace of a layer: made small, written once, and told what it is without."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="needs PyTorch and Triton")
pytest.importorskip("torch", reason="needs PyTorch and Triton")

import torch

from calibration.gpu_day.budget import Budget
from calibration.gpu_day.day import Day
from calibration.gpu_day.dry import DryMachine
from calibration.gpu_day.files import PROFILE
from calibration.gpu_day.parts import profile
from calibration.gpu_day.sizes import TinySizes
from calibration.read.torch_trace import read_trace
from calibration.stack import slim_trace
from calibration.stack.tape import Step, Tape
from hwmodels.errors import CalibrationError


def event(cat: str, name: str, start: float, **arguments: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 2, "ts": start, "dur": 5,
            "args": {"External id": 7, **arguments}}  # fmt: skip


TRACE = [
    {"ph": "M", "name": "process_name", "args": {"name": "python"}},
    event("user_annotation", "q_a_proj", 0),
    event("gpu_user_annotation", "q_a_proj", 100),
    event("cpu_op", "aten::add", 1),
    event("cuda_driver", "cuLaunchKernelEx", 2, correlation=11),
    event("cuda_runtime", "cudaEventRecord", 3, correlation=12),
    event("kernel", "_fp8_gemm_kernel", 100, correlation=11, stream=7, grid=[132, 1, 1],
          **{"est. achieved occupancy %": 12}),
    {"ph": "s", "cat": "ac2g", "id": 11, "ts": 2},
]  # fmt: skip


def test_a_slim_trace_reads_like_the_whole_one(tmp_path: Path) -> None:
    whole, small = tmp_path / "whole.json", tmp_path / "small.json.gz"
    whole.write_text(json.dumps({"traceEvents": TRACE}))
    slim_trace.write(small, TRACE, {"device": "none"})
    assert read_trace(small) == read_trace(whole)
    (kernel,) = read_trace(small)
    assert (kernel.name, kernel.annotation, kernel.stream) == ("_fp8_gemm_kernel", "q_a_proj", 7)
    document = json.loads(gzip.decompress(small.read_bytes()))
    assert document["about"] == {"device": "none"}
    kept = [(event["cat"], event["name"]) for event in document["traceEvents"]]
    assert kept == [
        ("user_annotation", "q_a_proj"),
        ("cuda_driver", "cuLaunchKernelEx"),
        ("kernel", "_fp8_gemm_kernel"),
    ]
    assert set(document["traceEvents"][2]["args"]) == {"correlation", "stream", "grid"}
    assert set(tmp_path.iterdir()) == {whole, small}


def test_a_trace_that_is_too_large_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(slim_trace, "MAX_BYTES", 100)
    with pytest.raises(CalibrationError, match="bytes of trace, at most 100"):
        slim_trace.write(tmp_path / "t.json.gz", TRACE, {})
    assert not list(tmp_path.iterdir())


def fails(_reads: Any, _writes: Any) -> None:
    raise ValueError("does not fit\nand more")


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A day whose layer has four steps: one is right, one fails, one is wrong, one is right."""
    buffers = {name: torch.zeros(1) for name in "xy"}
    add_one = {"run": lambda r, w: w[0].copy_(r[0] + 1), "reads": ("x",), "writes": ("y",)}
    steps = [
        Step("first", "x", "torch.add", {}, **add_one),
        Step("broken", "x", "rmsnorm", {}, **add_one | {"run": fails}),
        Step("wrong", "x", "quantize", {}, **add_one),
        Step("last", "x", "torch.add", {}, **add_one),
    ]
    monkeypatch.setattr(profile, "training", lambda *_: {"layer": Tape(buffers, {"x"}, steps)})
    machine = DryMachine()
    with Day(tmp_path / "day", machine, TinySizes(), Budget(100.0, machine.clock)) as one:
        one.wrong = {("quantize", ""), ("fp8_gemm", '{"warps":4}')}
        one.budget.begin_part(1.0, 0.0, 0.0)
        yield one


def document(day: Day) -> dict[str, Any]:
    return json.loads(gzip.decompress((day.out / PROFILE).read_bytes()))


def test_what_fails_and_what_is_wrong_is_told_in_the_file(day: Day) -> None:
    profile.run(day)
    about = document(day)["about"]
    assert about["failed"] == {"broken": "ValueError: does not fit"}
    assert about["wrong"] == ["quantize"]
    assert about["device"] == "interpreter, nothing measured"
    names = [event["name"] for event in document(day)["traceEvents"]]
    assert names == ["first", "broken", "last"]


def test_a_trace_that_is_there_is_left_as_it_is(day: Day) -> None:
    profile.run(day)
    before = (day.out / PROFILE).read_bytes()
    profile.run(day)
    assert (day.out / PROFILE).read_bytes() == before


def test_without_time_there_is_none(day: Day) -> None:
    day.machine.now_s = 101.0
    profile.run(day)
    assert not (day.out / PROFILE).exists()
    assert day.cut_off


def test_a_process_that_ended_in_it_does_not_try_again(day: Day) -> None:
    profile.run(day)
    (day.out / PROFILE).unlink()
    day.record["suspects"] = [day.record["doing"]]
    with pytest.raises(RuntimeError, match="the process ended or hung in it"):
        profile.run(day)
