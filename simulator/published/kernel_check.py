"""Kernels of DeepSeek's H800 training trace beside their prices, kernel by kernel.

A measured kernel ran partly beside communication; its price is slowed by the same share. Sums and
errors are over one layer pair, the mean of the trace's four. Kernels find each other by block,
pass, family and shape (`workloads.joins`); what finds none is in no sum and is told.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hwmodels.costs import slowdown, work_share
from simulator.driver.program import program_of
from simulator.experiment import Experiment
from simulator.price.kernels import KernelPricer
from workloads.joins import Kernels, Shape, compute_ops, join
from workloads.ops import Gemm, MemoryOp

TRACE = Path(__file__).parents[1] / "presets" / "published" / "h800_trace.toml"


class MeasuredKernel(NamedTuple):
    """One op of the trace: microseconds, share of it beside a transfer, routed rows / balanced, and
    what it is joined by.
    """

    where: str
    op: str
    time_us: float
    beside: float
    load: float
    family: str
    shapes: tuple[Shape, ...]

    @property
    def kernels(self) -> Kernels:
        """What it is joined by."""
        return Kernels(self.where, self.op, self.family, self.shapes)


@dataclass(frozen=True, slots=True)
class KernelCheck:
    """Seconds of one layer pair.

    Attributes:
        gemm_error: sum of |price - measured| over FP8 GEMMs / their measured time.
        glue_s: priced time of all memory-bound kernels.
        notes: what was measured and is not in the workload, and the other way round.
    """

    gemm_error: float
    glue_s: float
    notes: tuple[str, ...] = ()


@cache
def measured_kernels() -> tuple[MeasuredKernel, ...]:
    """Return the kernels of the trace."""
    rows = tomllib.loads(TRACE.read_text(encoding="utf-8"))["kernels"]["measured"]
    return tuple(
        MeasuredKernel._make((*of_trace, tuple(map(tuple, shapes)))) for *of_trace, shapes in rows
    )


def kernel_check(experiment: Experiment) -> KernelCheck:
    """Compare the kernels of the trace with their prices on the SMs and profile of `experiment`."""
    chip, stages = experiment.cluster.node.chip, program_of(experiment).stages
    kernels = KernelPricer(chip, experiment.profile, experiment.compute_sms)
    moe_layer = next(layer for stage in stages for layer in stage if layer.kind == "moe")
    measured = measured_kernels()
    joined = join(compute_ops(moe_layer), [kernel.kernels for kernel in measured])
    missed_s = gemm_s = glue_s = 0.0
    for kernel, op in zip(measured, joined.ops, strict=True):
        if op is None:
            continue
        costs = kernels.price([op], kernel.load)
        factor = costs.beside_factor[0]
        slower = slowdown(factor, work_share(factor, kernel.beside))
        price_s = float(costs.duration_s[0, 0] * slower)
        if isinstance(op, MemoryOp):
            glue_s += price_s
        elif isinstance(op, Gemm) and op.format.family == "fp8":
            gemm_s += kernel.time_us * 1e-6
            missed_s += abs(price_s - kernel.time_us * 1e-6)
    return KernelCheck(missed_s / gemm_s, glue_s, joined.notes)
