"""Fit the parameters of `hwmodels.costs` to one DualPipe trace.

Measured times are first divided by the slowdown beside communication. Then, per family:

    GEMM        tensor_efficiency (time per k-step) and tile_overhead_cycles (time per tile); the
                others keep their defaults but for a fixed 128x128 tile and perfect overlap of
                memory (TMA pipelines). Grouped GEMMs share the dense tile overhead: four ops of
                two depths do not identify their own. Nor does the router's one weight gradient,
                which has that of the FP8 ones: its tiles are added to in FP32 too.
    attention   tensor_efficiency
    memory      hbm_efficiency each, and one launch time shared by all that stream
    small ones  the launch time alone: their tensors are too small to stream

Squares of the relative error are weighted by time, so that what takes long is priced well. What
one trace cannot tell (L2 rate, latency floor, per-SM bandwidth) is left at its default.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares, lsq_linear

from calibration.fit.interference import Factor, interference_factors, undisturbed_s
from calibration.fit.pricing import Pricer
from calibration.read.dualpipe_trace import COMPUTE_SMS
from calibration.read.trace_rows import LAYERS, TraceData, TraceRow, read_trace_data
from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec
from hwmodels.costs import AttentionParameters, GemmParameters, MemoryParameters, Parameters
from hwmodels.errors import CalibrationError
from workloads.ops import MemoryOp

FITTED_GEMMS = ("fp8_block", "fp8_block_grouped", "fp8_block_wgrad")
ROUTER_GEMMS = ("bf16_narrow", "bf16_narrow_wgrad")
"""Three ops for three constants: fitted too, but nothing is left over to judge them by."""
OVERHEAD_OF = {"fp8_block_grouped": "fp8_block", "bf16_narrow_wgrad": "fp8_block_wgrad"}
"""Families of products that take the time per tile of another."""
PRODUCTS = (*FITTED_GEMMS, *ROUTER_GEMMS)
LAUNCH_FAMILIES = ("small", "expert_map")
_WAVES = GemmParameters(tile=(128, 128), overlap_exponent=12.0, wave_quantisation=1.0)


@dataclass(frozen=True, slots=True)
class FitResult:
    """Parameters fitted to some layers of a trace.

    Attributes:
        chip: measured on.
        layers: layer pairs fitted, from 0.
        families: parameters by family; `bf16` is not in it (see `gemm_table`).
        factors: slowdown beside communication by family.
        launch_gap_s: between kernels.
        transfer_s: mean seconds of each transfer kernel.
    """

    chip: ChipSpec
    layers: tuple[int, ...]
    families: dict[str, Parameters]
    factors: dict[str, Factor]
    launch_gap_s: float
    transfer_s: dict[str, float]

    @property
    def slowdowns(self) -> dict[str, float]:
        """Slowdown beside communication by family."""
        return {family: factor.value for family, factor in self.factors.items()}

    def predict_s(self, rows: Sequence[TraceRow]) -> Floats:
        """(rows,) seconds alone on the compute SMs of the trace."""
        return Pricer(self.chip, COMPUTE_SMS, self.families).time_s(rows)


def fit_trace(trace: Path, chip: ChipSpec, layers: Sequence[int] = LAYERS) -> FitResult:
    """Return the parameters that fit the given layer pairs of a trace file.

    Raises:
        CalibrationError: the trace cannot be read, or a family has too few rows.
    """
    return fit_rows(read_trace_data(trace), chip, layers)


def fit_rows(data: TraceData, chip: ChipSpec, layers: Sequence[int] = LAYERS) -> FitResult:
    """Fit rows already read.

    Raises:
        CalibrationError: nothing is left to fit.
    """
    rows = [row for row in data.rows if row.layer in layers]
    if not rows:
        raise CalibrationError(f"fit: the trace has no layers {sorted(layers)}")
    factors = interference_factors(rows)
    alone = _Alone.of(rows, factors)
    found: dict[str, Parameters] = {}
    for family in PRODUCTS:
        found[family] = _fit_gemm(
            chip, *alone.part([family]), found.get(OVERHEAD_OF.get(family, ""))
        )
    for family in ("attention_forward", "attention_backward"):
        found[family] = _fit_attention(chip, *alone.part([family]))
    found |= _fit_memory_ops(chip, alone)
    return FitResult(chip, tuple(layers), found, factors, data.launch_gap_s, dict(data.transfer_s))


def families_without(
    data: TraceData, whole: FitResult, key: tuple[str, str]
) -> dict[str, Parameters]:
    """Return parameters fitted without one op, by (phase, name), of its family and memory ops.

    The time per tile that its family takes from another is that of `whole`, a fit of all rows, and
    so are the slowdowns of other families: the op has no part in them.
    """
    family = next(row.op.family for row in data.rows if row.key == key)
    rows = [row for row in data.rows if row.key != key]
    own = [row for row in rows if row.op.family == family]
    alone = _Alone.of(rows, whole.factors | interference_factors(own))
    if family in PRODUCTS:
        overhead = whole.families.get(OVERHEAD_OF.get(family, ""))
        return {family: _fit_gemm(whole.chip, *alone.part([family]), overhead)}
    return _fit_memory_ops(whole.chip, alone)


@dataclass(frozen=True, slots=True)
class _Alone:
    """Rows, and what each takes with no communication beside it: (rows,) seconds."""

    rows: Sequence[TraceRow]
    time_s: Floats

    @classmethod
    def of(cls, rows: Sequence[TraceRow], factors: Mapping[str, Factor]) -> "_Alone":
        slowdowns = {family: factor.value for family, factor in factors.items()}
        return cls(rows, undisturbed_s(rows, slowdowns))

    def part(self, families: Iterable[str]) -> tuple[list[TraceRow], Floats]:
        wanted = {family: place for place, family in enumerate(families)}
        index = [n for n, row in enumerate(self.rows) if row.op.family in wanted]
        index.sort(key=lambda n: wanted[self.rows[n].op.family])
        return [self.rows[n] for n in index], self.time_s[index]


def _fit_memory_ops(chip: ChipSpec, alone: _Alone) -> dict[str, Parameters]:
    memory = {row.op.family for row in alone.rows if isinstance(row.op, MemoryOp)}
    streaming = sorted(memory - set(LAUNCH_FAMILIES))
    return {
        **_fit_memory(chip, *alone.part(streaming)),
        **_fit_launches(*alone.part(LAUNCH_FAMILIES)),
    }


def _fitted(
    chip: ChipSpec,
    rows: Sequence[TraceRow],
    alone_s: Floats,
    start: Sequence[float],
    bounds: tuple[Sequence[float], Sequence[float]],
    build: Callable[[Floats], Parameters],
) -> Parameters:
    """Return the parameters with the least time-weighted squares of relative error."""
    if not rows:
        raise CalibrationError("fit: a kernel family has no rows")
    family = rows[0].op.family
    weight = np.sqrt(alone_s / alone_s.sum())
    scale = np.asarray(start, np.float64)

    def residual(unit: Floats) -> Floats:
        pricer = Pricer(chip, COMPUTE_SMS, {family: build(unit * scale)})
        return np.asarray(weight * (pricer.time_s(rows) / alone_s - 1))

    low, high = (np.asarray(side) / scale for side in bounds)
    solution = least_squares(residual, np.ones(len(scale)), bounds=(low, high), xtol=1e-10)
    return build(np.asarray(solution.x * scale))


def _fit_gemm(
    chip: ChipSpec,
    rows: Sequence[TraceRow],
    alone_s: Floats,
    overhead_of: Parameters | None,
) -> GemmParameters:
    if isinstance(overhead_of, GemmParameters):
        base = _WAVES.model_copy(update={"tile_overhead_cycles": overhead_of.tile_overhead_cycles})
    else:
        base = _WAVES
    names = ("tensor_efficiency", "tile_overhead_cycles")[: 1 if overhead_of else 2]

    def build(values: Floats) -> GemmParameters:
        return base.model_copy(update=dict(zip(names, map(float, values), strict=True)))

    start, low, high = (0.6, 3000.0), (0.4, 0.0), (1.09, 12000.0)
    count = len(names)
    bounds = (low[:count], high[:count])
    found = _fitted(chip, rows, alone_s, start[:count], bounds, build)
    assert isinstance(found, GemmParameters), "build returns nothing else"
    return found


def _fit_attention(
    chip: ChipSpec, rows: Sequence[TraceRow], alone_s: Floats
) -> AttentionParameters:
    def build(values: Floats) -> AttentionParameters:
        return AttentionParameters(tensor_efficiency=float(values[0]))

    found = _fitted(chip, rows, alone_s, (0.6,), ((0.05,), (1.09,)), build)
    assert isinstance(found, AttentionParameters), "build returns nothing else"
    return found


def _fit_memory(
    chip: ChipSpec, rows: Sequence[TraceRow], alone_s: Floats
) -> Mapping[str, MemoryParameters]:
    """Return one efficiency per family and the launch time they share: linear in their inverse."""
    names = sorted({row.op.family for row in rows})
    matrix = np.zeros((len(rows), len(names) + 1))
    for number, row in enumerate(rows):
        assert isinstance(row.op, MemoryOp), "the caller passes memory-bound families only"
        ideal_s = row.op.bytes * row.load / chip.hbm_bytes_per_s
        matrix[number, names.index(row.op.family)] = ideal_s
        matrix[number, -1] = row.op.launches * 1e-6
    weight = 1 / np.sqrt(alone_s)
    low = np.append(np.ones(len(names)), 0.0)
    solution = lsq_linear(matrix * weight[:, None], alone_s * weight, bounds=(low, np.inf)).x
    launch_s = float(solution[-1]) * 1e-6
    return {
        name: MemoryParameters(hbm_efficiency=float(1 / inverse), launch_s=launch_s)
        for name, inverse in zip(names, solution, strict=False)
    }


def _fit_launches(rows: Sequence[TraceRow], alone_s: Floats) -> Mapping[str, MemoryParameters]:
    """Return the mean time of a launch for families that are nothing else."""
    found = {}
    for name in LAUNCH_FAMILIES:
        index = [number for number, row in enumerate(rows) if row.op.family == name]
        if index:
            launches = sum(rows[number].op.launches for number in index)
            launch_s = float(alone_s[index].sum() / launches)
            found[name] = MemoryParameters(hbm_efficiency=1.0, launch_s=launch_s)
    return found
