"""What a trace of anybody's training says of its kernels: rows and slowdowns, known beforehand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.fit.traced_kernels import traced_factors, traced_rows
from calibration.read.device_time import DeviceTime
from calibration.read.kernel_classes import KernelClass
from calibration.read.torch_trace import TorchTrace, TraceKernel
from calibration.read.trace_events import HostOp
from calibration.rows import Setting

GEMM = "nvjet_tst_128x128"
SLOWDOWN = 1.25
MM = HostOp("aten::mm", ((8, 4), (4, 16)), ("c10::BFloat16",) * 2, ())
LONGER = HostOp("aten::mm", ((64, 4), (4, 16)), ("c10::BFloat16",) * 2, ())
OTHER = HostOp("aten::mm", ((8, 4), (4, 32)), ("c10::BFloat16",) * 2, ())
SETTING = Setting("h100", "pytorch", "2.11")


def kernel(name: str, start: float, length: float, stream: int = 7, **more: Any) -> TraceKernel:
    more = {"annotation": "", "occurrence": 0} | more
    annotation, occurrence = more.pop("annotation"), more.pop("occurrence")
    return TraceKernel(
        name, "kernel", stream, start, length, start, (112,), annotation, occurrence, **more
    )


def device(*kernels: TraceKernel) -> DeviceTime:
    return DeviceTime.of(TorchTrace(Path("t"), kernels, 0, {}, {}, {}, "", None, None))


def overlapped(**more: Any) -> list[TraceKernel]:
    """Ten products of one second alone; every other one runs beside an exchange for half of its
    work, which takes a quarter longer there.
    """
    found, now = [], 0.0
    for number in range(10):
        beside_s = 0.5 * SLOWDOWN if number % 2 else 0.0
        length = 1 - beside_s / SLOWDOWN + beside_s
        each = {name: value(number) for name, value in more.items()}
        found.append(kernel(GEMM, now, length, **each))
        if beside_s:
            found.append(kernel("deep_ep::internode::dispatch<8>", now, beside_s, 27))
        now += length
    return found


@pytest.mark.parametrize(
    "known",
    [
        {"op": lambda _: MM, "call": lambda number: number},
        {"annotation": lambda _: "mlp(F)", "occurrence": lambda number: number},
    ],
)
def test_the_slowdown_beside_transfers_is_found(known: dict[str, Any]) -> None:
    (kind, factor), *others = traced_factors(device(*overlapped(**known))).items()
    assert kind == KernelClass("gemm", "bf16", "GEMM")
    assert factor.value == pytest.approx(SLOWDOWN, rel=1e-3)
    assert not others


def test_kernels_that_nothing_says_are_alike_show_no_slowdown() -> None:
    assert traced_factors(device(*overlapped())) == {}


def test_an_overlap_that_does_not_vary_shows_no_slowdown() -> None:
    assert traced_factors(device(*(kernel(GEMM, n, 1, op=MM, call=n) for n in range(9)))) == {}


def test_rows_are_one_a_shape_and_free_of_the_slowdown() -> None:
    known: dict[str, Any] = {"op": lambda _: MM, "call": lambda number: number}
    time = device(*overlapped(**known), kernel(GEMM, 100, 3, op=OTHER, call=50))
    (rows,) = traced_rows(time, traced_factors(time), SETTING, "a test")
    assert (rows.kind, rows.family, rows.setting) == ("gemm", "bf16", SETTING)
    assert rows.shape["n"].tolist() == [16, 32]
    assert rows.time_s == pytest.approx([1, 3], rel=1e-3)
    assert len(np.unique(rows.site)) == 2
    assert rows.shape["tensor_family"] == "bf16"


def test_the_time_of_a_call_is_that_of_all_its_products() -> None:
    """A sum over split depths belongs to the product; a cast that the op launched does not."""
    time = device(
        kernel(GEMM, 0, 2, op=MM, call=1),
        kernel("void cublasLt::splitKreduce_kernel<32>", 2, 1, op=MM, call=1),
        kernel("per_token_cast_to_fp8", 3, 9, op=MM, call=1),
        kernel(GEMM, 12, 5, op=LONGER, call=2),
    )
    (rows,) = traced_rows(time, {}, SETTING, "a test")
    assert rows.time_s.tolist() == [3, 5]
    assert rows.site.tolist() == [0, 0]
    assert rows.size.tolist() == [8, 64]


def test_kernels_without_shapes_are_no_rows() -> None:
    time = device(kernel(GEMM, 0, 2), kernel(GEMM, 2, 0, op=MM, call=3))
    assert traced_rows(time, {}, SETTING, "a test") == []
