"""Reading profiler traces: what is taken from a good one, and how a bad one is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from calibration.read import torch_trace as trace_module
from calibration.read.dualpipe_trace import BLOCKS, label
from calibration.read.torch_trace import TraceKernel, launch_gap_s, overlap_s, read_trace
from hwmodels.errors import CalibrationError


def span(name: str, start: float, length: float) -> dict[str, Any]:
    return {"ph": "X", "cat": "user_annotation", "name": name, "ts": start, "dur": length}


def launch(correlation: int, at: float) -> dict[str, Any]:
    args = {"correlation": correlation}
    return {"ph": "X", "cat": "cuda_runtime", "name": "launch", "ts": at, "dur": 1, "args": args}


def kernel(correlation: int, start: float, length: float, **changes: Any) -> dict[str, Any]:
    args = {"correlation": correlation, "stream": 7, "grid": [112, 1, 1]}
    event = {"ph": "X", "cat": "kernel", "name": "gemm", "ts": start, "dur": length, "args": args}
    return event | changes


GOOD: list[dict[str, Any]] = [
    span("step", 0, 1000),
    span("attn(F)", 10, 20),
    span("attn(F)", 40, 20),
    launch(1, 15),
    launch(2, 45),
    launch(3, 70),
    kernel(2, 130, 5),
    kernel(1, 100, 28),
    kernel(3, 160, 4, cat="gpu_memset"),
    {"ph": "M", "name": "process_name"},
]


def write(path: Path, events: object) -> Path:
    path.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    return path


def test_kernels_carry_the_range_that_launched_them(tmp_path: Path) -> None:
    first, second, memset = read_trace(write(tmp_path / "t.json", GOOD))
    assert (first.annotation, first.occurrence) == ("attn(F)", 0)
    assert (second.annotation, second.occurrence) == ("attn(F)", 1)
    assert (memset.annotation, memset.kind) == ("step", "memset")
    assert first.start_s == 0
    assert second.start_s == pytest.approx(30e-6)
    assert first.end_s == pytest.approx(28e-6)
    assert first.grid == (112, 1, 1)


def test_gzip_is_read_like_plain_json(tmp_path: Path) -> None:
    packed = tmp_path / "t.json.gz"
    packed.write_bytes(gzip.compress(json.dumps({"traceEvents": GOOD}).encode()))
    assert read_trace(packed) == read_trace(write(tmp_path / "t.json", GOOD))


def test_gaps_between_kernels_leave_waits_out(tmp_path: Path) -> None:
    kernels = read_trace(write(tmp_path / "t.json", GOOD))
    assert launch_gap_s(kernels, 7) == pytest.approx(2e-6)
    with pytest.raises(CalibrationError, match="stream 8"):
        launch_gap_s(kernels, 8)


def test_overlap_is_the_time_shared(tmp_path: Path) -> None:
    first, second, _ = read_trace(write(tmp_path / "t.json", GOOD))
    around = TraceKernel("dispatch", "kernel", 27, 20e-6, 12e-6, 0.0, (), "", 0)
    assert overlap_s(first, [around]) == pytest.approx(8e-6)
    assert overlap_s(second, [around]) == pytest.approx(2e-6)
    assert overlap_s(first, []) == 0


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (kernel(9, 0, 1), "no launch with correlation 9"),
        (kernel(1, 0, -1), "dur: expected 0 or more microseconds, got -1"),
        (kernel(1, 0, 1, ts="soon"), "ts: expected a number, got 'soon'"),
        (kernel(1, 0, 1, ts=float("nan")), "ts: expected a number, got nan"),
        (kernel(1, 0, 1, ts=True), "ts: expected a number, got True"),
        (kernel(1, 0, 1, name=None), "name: expected a name, got None"),
        (kernel(1, 0, 1, args=None), "args: expected a table, got None"),
        (kernel(1, 0, 1, args={"correlation": 1}), "stream: expected a number, got None"),
        (
            kernel(1, 0, 1, args={"correlation": 1, "stream": 7, "grid": [0]}),
            "grid: expected block counts",
        ),
    ],
)
def test_a_broken_kernel_is_refused_in_one_line(
    tmp_path: Path, event: object, message: str
) -> None:
    with pytest.raises(CalibrationError) as caught:
        read_trace(write(tmp_path / "t.json", [launch(1, 0), event]))
    assert message in str(caught.value)
    assert "t.json: event 1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON, or cut off"),
        (json.dumps({"traceEvents": GOOD}).encode()[:-40], "not JSON, or cut off"),
        (gzip.compress(json.dumps({"traceEvents": GOOD}).encode())[:-20], "a broken archive"),
        (b"\x1f\x8b not gzip at all", "a broken archive"),
        (b"\xff\xfe\x00 no text", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"traceEvents": 3}', "no list of events"),
        (b'{"traceEvents": [1, 2]}', "no list of events"),
        (b'{"traceEvents": []}', "no GPU kernel"),
        (b"{}", "no list of events"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=message) as caught:
        read_trace(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="expected a profiler trace, got nothing there"):
        read_trace(tmp_path / "nowhere.json")


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "MAX_BYTES", 1000)
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(b" " * 10_000))
    with pytest.raises(CalibrationError, match="too large"):
        read_trace(path)


def layer_kernels() -> list[TraceKernel]:
    """One layer with exactly the kernels the table expects, 10 us each, one after another."""
    kernels: list[TraceKernel] = []
    for phase, runs in BLOCKS.items():
        for _, pattern, count in runs:
            for _ in range(count):
                start_s = 10e-6 * len(kernels)
                name = f"void {pattern}anything"
                kernels.append(
                    TraceKernel(name, "kernel", 7, start_s, 10e-6, start_s, (100,), phase, 0)
                )
    return kernels


def test_every_kernel_of_a_layer_gets_an_op() -> None:
    kernels = layer_kernels()
    ops = label(kernels)
    assert sum(op.kernels for op in ops) == len(kernels)
    assert sum(op.time_s for op in ops) == pytest.approx(10e-6 * len(kernels))
    assert {op.rows for op in ops} == {1600}  # 100 blocks of 16 rows


def test_a_kernel_out_of_place_is_not_guessed_at() -> None:
    kernels = layer_kernels()
    kernels[3], kernels[4] = kernels[4], kernels[3]
    with pytest.raises(CalibrationError, match=r"attn\(F\) of layer 0: kernel 3: expected"):
        label(kernels)


def test_a_missing_kernel_is_an_error() -> None:
    with pytest.raises(CalibrationError, match=r"attn\(F\) of layer 0: expected 69 kernels"):
        label(layer_kernels()[1:])


def test_an_unknown_block_is_an_error() -> None:
    stray = TraceKernel("memcpy", "memcpy", 7, 0.0, 1e-6, 0.0, (), "somewhere", 0)
    with pytest.raises(CalibrationError, match="somewhere of layer 0: unknown block"):
        label([*layer_kernels(), stray])
