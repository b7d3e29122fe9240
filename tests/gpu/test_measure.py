"""Measuring on the GPU that is here: plausible times, holders that hold, rows that say where."""

import pytest

pytest.importorskip("triton", reason="needs PyTorch and Triton")

import torch

from calibration.measure.bench import ceilings
from calibration.measure.machine import find_gpu, measure
from calibration.measure.measurement import Point
from calibration.stack.dimensions import DEEPSEEK_V3
from calibration.stack.layer import training
from calibration.stack.names import BACKWARD, FORWARD

GEMM = {"m": 4096, "n": 4096, "k": 7168}


@pytest.fixture(scope="module")
def gpu():
    return find_gpu()


def test_a_row_says_how_long_where_and_at_which_clock(gpu) -> None:
    row = measure(Point("fp8_gemm", GEMM), gpu)
    assert not row.error
    assert 0 < row.p20_s <= row.time_s <= row.p80_s
    assert row.device == gpu.name
    assert row.sm_clock_hz is None or 1e8 < row.sm_clock_hz < 5e9


def test_nothing_beats_the_probes(gpu) -> None:
    top = ceilings(gpu)
    row = measure(Point("fp8_gemm", GEMM), gpu)
    assert row.flops / row.time_s < top.fp8_flops_per_s
    row = measure(Point("rmsnorm", {"m": 32768, "k": 7168, "residual": 1}), gpu)
    assert row.bytes / row.time_s < 1.1 * top.copy_bytes_per_s


@pytest.mark.parametrize("kernel", ["fp8_gemm", "probe_copy"])
def test_held_sms_are_missed(gpu, kernel: str) -> None:
    """With half of the SMs held, arithmetic takes about twice as long; nothing gets faster."""
    shape = GEMM if kernel == "fp8_gemm" else {"bytes": 1 << 28}
    alone = measure(Point(kernel, shape), gpu)
    half = measure(Point(kernel, shape, mode="limited", held_sms=gpu.sms // 2), gpu)
    assert not half.error
    assert half.time_s > 0.95 * alone.time_s
    if kernel == "fp8_gemm":
        assert half.time_s > 1.5 * alone.time_s


def test_a_copying_neighbour_slows_a_copy(gpu) -> None:
    shape = {"m": 32768, "k": 7168}
    idle = measure(Point("quantize", shape, mode="limited", held_sms=20), gpu)
    busy = measure(Point("quantize", shape, mode="beside", held_sms=20), gpu)
    assert busy.time_s > idle.time_s


def test_a_failing_shape_is_a_row(gpu) -> None:
    row = measure(Point("fp8_gemm", {"m": 4, "n": 4, "k": 128}), gpu)
    assert "16 bytes" in row.error
    assert row.time_s is None
    assert not measure(Point("fp8_gemm", GEMM), gpu).error


def test_a_layer_as_a_graph_computes_what_it_does_eagerly(gpu) -> None:
    """Two tapes of the same random numbers, one played as a CUDA graph; all results bit by bit."""
    eager, captured = (training(DEEPSEEK_V3, gpu.device) for _ in range(2))
    for layer in (FORWARD, BACKWARD):
        eager[layer].bound_all()()
        replay = gpu.capture(captured[layer].bound_all())
        for name in captured[layer].held - eager[layer].given:
            captured[layer].buffers[name].zero_()
        replay()
    gpu.finish()
    for name in ("out", "sent", "d.x", "d.sent"):
        got, want = (tapes[BACKWARD].buffers[name] for tapes in (captured, eager))
        assert got.isfinite().all(), name
        assert got.equal(want), name


def test_launches_count_where_they_are_asked_for(gpu) -> None:
    """A hundred sums of nothing: the host is slower than the device."""
    x = torch.zeros(1, device=gpu.device)

    def run() -> None:
        for _ in range(100):
            x.add_(1)

    assert gpu.time(run, 10, launches=True).time_s > gpu.time(run, 10).time_s


def test_a_launch_is_timed_beside_the_kernel(gpu) -> None:
    """Of a hundred sums of nothing the host's time is all there is; of a large one it is little."""
    x, large = torch.zeros(1, device=gpu.device), torch.zeros(1 << 28, device=gpu.device)

    def run() -> None:
        for _ in range(100):
            x.add_(1)

    host = gpu.time(run, 10, launches=True)
    assert host.host_s is not None
    assert host.time_s == pytest.approx(host.host_s, rel=0.5)
    device = gpu.time(lambda: large.add_(1), 10)
    assert device.host_s is not None
    assert device.host_s < device.time_s / 10


def test_waiting_for_every_launch_takes_longer(gpu) -> None:
    x = torch.zeros(1 << 20, device=gpu.device)

    def run(then) -> None:
        for _ in range(100):
            x.add_(1)
            then()

    eager = gpu.time(lambda: run(lambda: None), 10, launches=True)
    blocking = gpu.time(lambda: run(gpu.finish), 10, launches=True)
    assert blocking.time_s > eager.time_s


def test_what_ran_before_leaves_its_results_in_the_l2(gpu) -> None:
    x, y = (torch.ones(1 << 22, device=gpu.device) for _ in range(2))
    cold = gpu.time(lambda: torch.add(x, 1.0, out=y), 30)
    warm = gpu.time(lambda: torch.add(x, 1.0, out=y), 30, after=lambda: x.fill_(1.0))
    assert warm.time_s < cold.time_s
