"""Join measured ops with the ops of the workload: what was measured is exactly what is priced.

A row is one op of one layer pair. Its shape comes from the blocks of `workloads` at balanced
routing and is scaled by the rows that the rank really had (`load`); its time comes from the trace.
They find each other by block, pass, family and shape (`workloads.joins`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.read.dualpipe_ops import TRACED
from calibration.read.dualpipe_trace import (
    COMPUTE_STREAM,
    TENSOR_MAPS,
    TRANSFER_OPS,
    MeasuredOp,
    label,
)
from calibration.read.torch_trace import launch_gap_s, read_trace
from hwmodels.arrays import Floats
from hwmodels.errors import CalibrationError
from workloads.blocks import Site
from workloads.joins import compute_ops, join
from workloads.model import MODELS
from workloads.ops import Op
from workloads.recipes import recipe
from workloads.stages import stage_layers

MODEL = "deepseek-v3"
"""What the trace is of."""
LAYERS = (0, 1, 2, 3)
LOCAL_EXPERTS, TOKENS = 4, 4096
GPUS_PER_TOKEN = 7.48
"""Distinct GPUs one token is sent to, EP64 on 8 nodes: Monte-Carlo of the routing rule, top-8 of
256 experts from 4 of 8 groups."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One op of one layer pair.

    Attributes:
        op: its shape at balanced routing.
        phase: block of the trace.
        layer: layer pair, from 0.
        load: routed rows / balanced ones; 1 for ops that are not routed.
        time_s: measured.
        beside: share of that time beside a dispatch or combine transfer.
    """

    op: Op
    phase: str
    layer: int
    load: float
    time_s: float
    beside: float

    @property
    def key(self) -> tuple[str, str]:
        """Phase and name: what makes rows of different layers the same op."""
        return self.phase, self.op.name


@dataclass(frozen=True, slots=True)
class TraceData:
    """Everything the fit takes from one trace.

    Attributes:
        rows: ops of the compute stream.
        transfer_s: mean seconds of each transfer kernel, by op name.
        launch_gap_s: mean gap between kernels of the compute stream.
    """

    rows: tuple[TraceRow, ...]
    transfer_s: dict[str, float]
    launch_gap_s: float


def layer_ops(model_name: str = MODEL) -> dict[tuple[str, str], Op]:
    """Return the ops of one MoE layer of a model as the trace ran it, by phase and traced name.

    Raises:
        UnknownPresetError: there is no such model.
        CalibrationError: the trace and the layer do not have the same kernels.
    """
    model = MODELS.load(model_name)
    site = Site(
        model.hidden,
        sequences=1,
        length=TOKENS,
        recipe=recipe("fp8-blockwise"),
        local_experts=LOCAL_EXPERTS,
        gpus_per_token=GPUS_PER_TOKEN,
    )
    _, (layer,) = stage_layers(model, site, (("dense",), ("moe",)))
    joined = join(compute_ops(layer), TRACED)
    if joined.notes:
        more = f" and {len(joined.notes) - 1} more" if len(joined.notes) > 1 else ""
        raise CalibrationError(f"trace: {joined.notes[0]}{more}")
    return {
        (kernels.where, kernels.name): op
        for kernels, op in zip(TRACED, joined.ops, strict=True)
        if op is not None
    }


def read_trace_data(path: Path, model: str = MODEL) -> TraceData:
    """Read, label and join a DualPipe trace.

    Raises:
        CalibrationError: the trace cannot be read or labelled, or an op has no measurement.
    """
    kernels = read_trace(path)
    measured = label(kernels)
    transfers = {
        name: float(np.mean([op.time_s for op in measured if op.name == name]))
        for name in TRANSFER_OPS
    }
    return TraceData(
        _join(measured, layer_ops(model)), transfers, launch_gap_s(kernels, COMPUTE_STREAM)
    )


def _join(
    measured: Iterable[MeasuredOp], ops: Mapping[tuple[str, str], Op]
) -> tuple[TraceRow, ...]:
    balanced = TOKENS * 8
    rows = []
    for found in measured:
        half = found.phase.partition("(")[0]
        if half not in ("attn", "mlp") or found.name == TENSOR_MAPS:
            continue
        op = ops.get((found.phase, found.name))
        if op is None:
            raise CalibrationError(f"trace: {found.phase}: the workload has no op {found.name!r}")
        load = found.rows / balanced if op.routed else 1.0
        rows.append(TraceRow(op, found.phase, found.layer, load, found.time_s, found.beside))
    missing = set(ops) - {row.key for row in rows}
    if missing:
        raise CalibrationError(f"trace: no measurement of {sorted(missing)[0]}")
    return tuple(rows)


def time_s(rows: Sequence[TraceRow]) -> Floats:
    """(rows,) measured seconds."""
    return np.array([row.time_s for row in rows])
