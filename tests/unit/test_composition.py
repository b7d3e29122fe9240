"""What a trace's time is made of, on traces small enough to add up by hand."""

from pathlib import Path
from typing import Any

import pytest

from calibration.judge.composition import compose
from calibration.read.torch_trace import TorchTrace, TraceKernel
from hwmodels.errors import CalibrationError

GEMM, NORM, DISPATCH = "nvjet_tst_128x128", "rmsnorm_fwd", "deep_ep::internode::dispatch<8>"
NOTIFY, CAST = "deep_ep::internode::notify_dispatch<8>", "per_token_cast_to_fp8"


def kernel(name: str, start: float, length: float, stream: int = 7, **more: Any) -> TraceKernel:
    """A kernel with times in units of a second."""
    more = {"kind": "kernel", "grid": (100, 2)} | more
    kind, grid = more.pop("kind"), more.pop("grid")
    return TraceKernel(name, kind, stream, start, length, start, grid, "", 0, **more)


def trace(*kernels: TraceKernel, sms: int | None = 132) -> TorchTrace:
    return TorchTrace(Path("t.json"), kernels, 0, {}, {}, {}, "NVIDIA H100", sms, None)


STEP = trace(
    kernel(GEMM, 0, 4, grid=(112,)),
    kernel(NORM, 4, 1),
    kernel(GEMM, 6, 2, grid=(112,)),
    kernel(GEMM, 6, 4, stream=9, grid=(112,)),
    kernel("Memcpy DtoD", 12, 1, kind="memcpy", grid=()),
    kernel(CAST, 0, 1, stream=27),
    kernel(NOTIFY, 1, 2, stream=27, grid=(20,)),
    kernel(DISPATCH, 3, 2.5, stream=27, grid=(20,)),
)


def test_streams_have_roles_by_what_they_do_most() -> None:
    streams = {stream.number: stream for stream in compose(STEP).streams}
    assert {number: stream.role for number, stream in streams.items()} == {
        7: "compute",
        9: "compute",
        27: "communication",
    }
    assert (streams[7].kernels, streams[7].busy_s, streams[7].idle_s) == (4, 8, 5)
    assert streams[27].idle_s == 0


def test_parts_of_a_role_add_up_to_the_time_in_which_it_is_busy() -> None:
    """Products run alone for 4, two at a time for 2 and alone for 2 more: 8 of 10 seconds."""
    found = compose(STEP)
    assert found.busy_s == {"compute": 10, "communication": 5.5}
    parts = {(part.role, part.name): part for part in found.parts}
    assert parts["compute", "gemm"].time_s == 8
    assert parts["compute", "gemm"].share == pytest.approx(0.8)
    assert parts["compute", "gemm"].sms == 112
    assert parts["compute", "norm"].sms == 132  # 200 blocks: all SMs
    assert parts["compute", "copy"].sms is None
    assert parts["communication", "notify"].share == pytest.approx(2 / 5.5)
    assert found.shares() == pytest.approx({"GEMM": 0.8, "glue": 0.2})
    assert (found.kernels, found.copies, found.span_s) == (7, 1, 13)


def test_communication_is_hidden_where_something_computes() -> None:
    """Notify and dispatch run from 1 to 5.5; nothing computes from 5 on. A cast does not move
    anything, and a wait slows nobody: the first product is beside the dispatch for 1 of 4.
    """
    found = compose(STEP)
    assert found.communication_s == 4.5
    assert found.hidden_s == 4
    parts = {(part.role, part.name): part for part in found.parts}
    assert parts["communication", "dispatch"].beside == pytest.approx(2 / 2.5)
    assert parts["communication", "notify"].beside == 1
    assert parts["compute", "gemm"].beside == pytest.approx(1 / 10)
    assert parts["compute", "norm"].beside == 1


def test_gaps_between_kernels_leave_waits_out() -> None:
    gaps = trace(kernel(GEMM, 0, 1), kernel(GEMM, 1 + 3e-6, 1), kernel(GEMM, 3, 1))
    assert compose(gaps).streams[0].gap_s == pytest.approx(3e-6)
    assert compose(trace(kernel(GEMM, 0, 1))).streams[0].gap_s is None


def test_unclassified_kernels_are_told_with_their_share() -> None:
    found = compose(trace(kernel(GEMM, 0, 3), kernel("xyzzy", 3, 1), kernel("plugh", 4, 0)))
    assert [(each.name, each.share) for each in found.unclassified] == [
        ("xyzzy", 0.25),
        ("plugh", 0),
    ]
    assert compose(STEP).unclassified == ()


def test_of_several_gpus_the_busiest_is_told() -> None:
    found = compose(trace(kernel(GEMM, 0, 1), kernel(GEMM, 0, 2, device=3), sms=None))
    assert (found.device, found.kernels) == (3, 1)
    assert found.parts[0].sms == 200  # blocks, where nobody said how many SMs there are


def test_a_trace_without_a_device_says_what_it_lacks() -> None:
    with pytest.raises(CalibrationError, match=r"t\.json: no kernel on a device"):
        compose(trace())


def test_kernels_that_take_no_time_take_no_share() -> None:
    found = compose(trace(kernel(GEMM, 5, 0)))
    assert found.busy_s == {"compute": 0}
    assert [(part.time_s, part.share, part.beside) for part in found.parts] == [(0, 0, 0)]
