"""Times of a layer that nobody measured: rows like those of `calibration.gpu_day.parts.stack`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from calibration.gpu_day.files import (
    BLOCKING,
    EAGER,
    GRAPH,
    STACK_COLUMNS,
    TOTAL,
)
from calibration.measure.measurement import shape_text
from calibration.stack.dimensions import DEEPSEEK_V3, Dimensions
from calibration.stack.names import BACKWARD, DECODE, DEPTH, FORWARD, STACKS
from tests.unit.days import DEVICE, write_table


class Ran(NamedTuple):
    """One op: what ran, and its seconds on the device and of the host."""

    op: str
    where: str
    kernel: str
    shape: Mapping[str, Any]
    time_s: float = 1e-3
    host_s: float | None = 10e-6


OPS = {
    FORWARD: (
        Ran("norm", "attn(F)", "rmsnorm", {"m": 4096, "k": 7168, "residual": 1}),
        Ran("q_a", "attn(F)", "fp8_gemm", {"m": 4096, "n": 1536, "k": 7168}),
        Ran("core", "attn(F)", "mla_prefill", {"batch": 1, "length": 4096, "heads": 128}),
        Ran("more", "attn(F)", "torch.copy", {"tokens": 4096, "heads": 128, "dim": 256}),
        Ran("up", "mlp(F)", "grouped_gemm",
            {"counts": [8192] * 4, "n": 4096, "k": 7168, "masked": 0}),
    ),
    BACKWARD: (
        Ran("dgrad", "mlp(B)", "fp8_gemm", {"m": 4096, "n": 2048, "k": 7168}),
        Ran("wgrad", "attn(W)", "fp8_wgrad", {"counts": [4096], "m": 16384, "n": 7168}),
    ),
    DECODE: (
        Ran("q_a", "decode", "fp8_gemm", {"m": 128, "n": 1536, "k": 7168}),
        Ran("core", "decode", "mla_decode",
            {"batch": 128, "heads": 128, "length": 4096, "ragged": 0}),
    ),
}  # fmt: skip
"""Three short layers; all but `more` are ops of the workload."""


def op_row(layer: str, ran: Ran, mode: str = EAGER, **changed: Any) -> dict[str, Any]:
    """Return the row of an op."""
    told = {"op": ran.op, "where": ran.where, "kernel": ran.kernel, "host_s": ran.host_s}
    return _row(layer, mode, ran.time_s) | told | {"shape": shape_text(ran.shape)} | changed


def total_row(
    layer: str, mode: str, time_s: float, size: Dimensions = DEEPSEEK_V3, **changed: Any
) -> dict[str, Any]:
    """Return the row of a whole layer."""
    told = {"op": TOTAL, "shape": shape_text(asdict(size))}
    return _row(layer, mode, time_s) | told | changed


def stack_row(stack: str, mode: str, time_s: float, **changed: Any) -> dict[str, Any]:
    """Return the row of a stack of layers."""
    size = asdict(DEEPSEEK_V3) | {"layers": DEPTH}
    return total_row(stack, mode, time_s) | {"shape": shape_text(size)} | changed


def _row(layer: str, mode: str, time_s: float) -> dict[str, Any]:
    quantiles = {"p20_s": time_s, "p50_s": time_s, "p80_s": time_s}
    plain = {"layer": layer, "mode": mode, "runs": 30, "device": DEVICE}
    return dict.fromkeys(STACK_COLUMNS, "") | plain | quantiles


def stack_rows(
    ops: Mapping[str, Sequence[Ran]] = OPS, totals: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of layers, and of the stacks of them, whose totals are alike."""
    totals = totals or {EAGER: 3e-3, BLOCKING: 3e-3, GRAPH: 3e-3}
    layers = [
        row
        for layer, some in ops.items()
        for row in (
            *(op_row(layer, ran) for ran in some),
            *(total_row(layer, mode, seconds) for mode, seconds in totals.items()),
        )
    ]
    whole = [stack for stack, parts in STACKS.items() if set(parts) <= set(ops)]
    return layers + [stack_row(s, mode, each) for s in whole for mode, each in totals.items()]


def write_stack(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a file of rows; return it."""
    write_table(path, STACK_COLUMNS, rows)
    return path
