"""A measured layer beside the simulated one: op by op, by family, in total, and within which bars.

Errors are simulated / measured - 1. The bars were set before anything was measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.gpu_day.files import EAGER, GRAPH
from calibration.validate.ops import op_of
from calibration.validate.rows import (
    MeasuredLayer,
    MeasuredOp,
    MeasuredStack,
    MeasuredTotal,
)
from calibration.validate.workload import listed_ops
from hwmodels.arrays import Floats
from workloads.joins import Kernels, join, shape_of
from workloads.ops import Op

TOTAL_BARS = {GRAPH: 0.05, EAGER: 0.08}
"""How far a total may be off; a host that waits for every op has no bar of its own."""

FAMILY_BAR = 0.10


@dataclass(frozen=True, slots=True)
class LayerOps:
    """The ops of a layer's totals as the workload has them.

    Attributes:
        layer: that was measured.
        ops: (ops,) of `layer.ops`: the workload's where it has them, else what the kernel is.
        is_listed: (ops,) whether the workload has them.
        unmeasured: ops of the workload that no kernel was, `attn(F): cast`.
    """

    layer: MeasuredLayer
    ops: tuple[Op, ...]
    is_listed: tuple[bool, ...]
    unmeasured: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpLine:
    """One op; `graph_s` and `host_s` as measured, `basis` of its price."""

    layer: str
    where: str
    op: str
    kernel: str
    family: str
    measured_s: float
    graph_s: float | None
    host_s: float | None
    simulated_s: float
    basis: str
    in_workload: bool


@dataclass(frozen=True, slots=True)
class FamilyLine:
    """All ops of a family in one layer; `bases` of their prices."""

    layer: str
    family: str
    ops: int
    measured_s: float
    simulated_s: float
    error: float
    within: bool
    bases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TotalLine:
    """A layer, or a stack of some, in one mode.

    Attributes:
        bar: that `error` has to keep, None where there is none.
        within: whether it does; None where that cannot be told, and `why` says so.
    """

    layer: str
    mode: str
    measured_s: float | None
    simulated_s: float | None
    error: float | None
    bar: float | None
    within: bool | None
    why: str


def layer_ops(layer: MeasuredLayer) -> LayerOps:
    """Join the ops of a layer with those of the workload, by block, pass, family and shape.

    Without dimensions there is nothing to join them with, and they are left out.

    Raises:
        CalibrationError: a kernel is none that is known.
        SpecError, InfeasibleError: no layer has these dimensions.
    """
    if layer.dimensions is None:
        return LayerOps(replace(layer, ops=()), (), (), ())
    own = [op_of(each.op, each.kernel, each.shape, layer.dimensions) for each in layer.ops]
    places = {each.where for each in layer.ops}
    listed = {where: ops for where, ops in listed_ops(layer.dimensions).items() if where in places}
    joined = join(listed, _kernels(layer.ops, own))
    return LayerOps(
        layer,
        tuple(op if found is None else found for op, found in zip(own, joined.ops, strict=True)),
        tuple(found is not None for found in joined.ops),
        joined.unmeasured,
    )


def _kernels(measured: Iterable[MeasuredOp], own: Iterable[Op]) -> list[Kernels]:
    return [
        Kernels(each.where, each.op, op.family, (shape_of(op),))
        for each, op in zip(measured, own, strict=True)
    ]


def issue_s(layers: Iterable[MeasuredLayer], given_s: float | None) -> dict[str, float]:
    """Return the host's seconds to launch an op of each kernel.

    Args:
        given_s: of every op, whatever was measured; without it the median over ops of a kernel.
    """
    by_kernel: dict[str, list[float]] = {}
    for op in (op for layer in layers for op in layer.ops):
        seconds = op.host_s if given_s is None else given_s
        if seconds is not None:
            by_kernel.setdefault(op.kernel, []).append(seconds)
    return {kernel: float(np.median(some)) for kernel, some in by_kernel.items()}


def op_lines(joined: LayerOps, simulated_s: Floats, bases: Sequence[str]) -> list[OpLine]:
    """Return every op of a layer beside its price.

    Args:
        simulated_s: (ops,) seconds of its kernels, gaps between them left out.
        bases: what the prices rest on.
    """
    rows = zip(
        joined.layer.ops, joined.ops, joined.is_listed, simulated_s.tolist(), bases, strict=True
    )
    return [
        OpLine(
            joined.layer.name, of.where, of.op, of.kernel, op.family, of.time_s, of.graph_s,
            of.host_s, priced_s, basis, is_listed,
        )
        for of, op, is_listed, priced_s, basis in rows
    ]  # fmt: skip


def family_lines(lines: Iterable[OpLine]) -> list[FamilyLine]:
    """Return the families of each layer, the longest first."""
    families: dict[tuple[str, str], list[OpLine]] = {}
    for line in lines:
        families.setdefault((line.layer, line.family), []).append(line)
    found = [_family(layer, family, some) for (layer, family), some in families.items()]
    layers = list(dict.fromkeys(layer for layer, _ in families))
    return sorted(found, key=lambda line: (layers.index(line.layer), -line.measured_s))


def _family(layer: str, family: str, lines: Sequence[OpLine]) -> FamilyLine:
    measured_s = sum(line.measured_s for line in lines)
    simulated_s = sum(line.simulated_s for line in lines)
    error = simulated_s / measured_s - 1
    return FamilyLine(
        layer,
        family,
        len(lines),
        measured_s,
        simulated_s,
        error,
        abs(error) <= FAMILY_BAR,
        tuple(dict.fromkeys(line.basis for line in lines)),
    )


def total_lines(
    measured: MeasuredLayer | MeasuredStack, simulated_s: Mapping[str, float], why_not: str
) -> list[TotalLine]:
    """Return the totals of layers in each mode that was measured.

    Args:
        simulated_s: by mode; those that are missing could not be simulated: `why_not`.
    """
    return [
        _total(measured.name, mode, total, simulated_s.get(mode), why_not)
        for mode, total in measured.totals.items()
    ]


def _total(
    layer: str, mode: str, total: MeasuredTotal, simulated_s: float | None, why_not: str
) -> TotalLine:
    bar = TOTAL_BARS.get(mode)
    left_out = f"without {', '.join(total.without)}" if total.without else ""
    if total.time_s is None or simulated_s is None:
        why = total.error if total.time_s is None else why_not
        return TotalLine(layer, mode, total.time_s, simulated_s, None, bar, None, why)
    error = simulated_s / total.time_s - 1
    within = None if bar is None else abs(error) <= bar
    return TotalLine(layer, mode, total.time_s, simulated_s, error, bar, within, left_out)
