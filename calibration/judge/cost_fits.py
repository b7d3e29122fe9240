"""Which cost models fit the rows of a day, and how well on shapes that they have not seen.

Rows are those of our kernels as `choose` configures them, alone on the device or on part of its
SMs, for a moment. Shapes are dealt into `FOLDS`; each is priced by a fit without it, on all the SMs
it was measured on. What has too few shapes for its constants is not fitted, and says so.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.fit.constants import at_bound, fit_constants, not_identified
from calibration.judge.cost_models import FORMATS, NO_MODEL, CostModel, cost_model
from calibration.judge.folder import OURS, Day
from calibration.judge.rates import seconds
from calibration.measure.measurement import Measurement
from hwmodels.arrays import Floats
from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.costs import Parameters
from hwmodels.errors import CalibrationError

FOLDS = 5
SHAPES_PER_CONSTANT = 2


@dataclass(frozen=True, slots=True)
class CostFit:
    """How well a cost model prices one kernel; errors are |log(price / measured)|.

    Attributes:
        model: its module in `hwmodels.costs`; empty where there is none.
        rows, shapes: that it was fitted to.
        constants: that were fitted, by name.
        at_bound: those of them that ended at the end of their range.
        not_identified: those with which no price moves: their values say nothing.
        sustained_fraction: of products, the best rate back to back until the clock has settled,
            over the chip's peak; None where none ran so.
        error_median: on the rows themselves.
        held_out_median, held_out_p90: on shapes that the fit had not seen.
        why_not: there is no fit; empty where there is one.
    """

    kernel: str
    model: str
    rows: int
    shapes: int
    constants: dict[str, float]
    at_bound: tuple[str, ...]
    not_identified: tuple[str, ...]
    sustained_fraction: float | None
    error_median: float | None
    held_out_median: float | None
    held_out_p90: float | None
    why_not: str


def chip_of(day: Day, name: str | None) -> ChipSpec | None:
    """Return the preset of the day's device: the one named, or the one its driver's name holds.

    None where no preset is named so, or that one has another number of SMs.

    Raises:
        UnknownPresetError: no preset has the name given.
        CalibrationError: the preset named has another number of SMs.
    """
    if name is not None:
        chip = CHIPS.load(name)
        if chip.sms != day.sms:
            raise CalibrationError(
                f"--chip {name}: has {chip.sms} SMs, and {day.device}, the device of {day.path}, "
                f"has {day.sms}"
            )
        return chip
    words = set(re.findall(r"[a-z0-9]+", day.device.lower()))
    found = [CHIPS.load(known) for known in CHIPS.names() if known in words]
    return found[0] if len(found) == 1 and found[0].sms == day.sms else None


def cost_fits(day: Day, chip: ChipSpec) -> list[CostFit]:
    """Return a fit of every kernel of which there are rows, or why there is none."""
    rows: dict[str, list[Measurement]] = defaultdict(list)
    for row in day.rows:
        if row.provider == OURS and not row.config and row.mode != "beside":
            rows[row.kernel].append(row)
    return [_fit(kernel, rows[kernel], chip) for kernel in sorted(rows)]


def _fit(kernel: str, rows: Sequence[Measurement], chip: ChipSpec) -> CostFit:
    brief = [row for row in rows if not row.sustained]
    shapes = len({row.shape for row in brief})
    if kernel in NO_MODEL:
        return _none(kernel, "", len(brief), shapes, NO_MODEL[kernel])
    few_sms = any(row.sms < chip.sms for row in brief)
    model = cost_model(kernel, chip, few_sms=few_sms)
    if kernel in FORMATS and FORMATS[kernel].tensor_family not in chip.tensor:
        why = f"{chip.name} has no {FORMATS[kernel].tensor_family} tensor cores"
        return _none(kernel, model.name, len(brief), shapes, why)
    needed = max(FOLDS, SHAPES_PER_CONSTANT * len(model.free))
    if shapes < needed:
        why = f"{shapes} shapes for {len(model.free)} constants, needs {needed}"
        return _none(kernel, model.name, len(brief), shapes, why)
    fitted = _constants(model, chip, brief)
    unseen = np.abs(_held_out(model, chip, brief))
    constants = {name: float(getattr(fitted, name)) for name in model.free}
    return CostFit(
        kernel=kernel,
        model=model.name,
        rows=len(brief),
        shapes=shapes,
        constants=constants,
        at_bound=at_bound(fitted, model.free),
        not_identified=not_identified(
            fitted, model.free, lambda constants: model.log_error(chip, constants, brief)
        ),
        sustained_fraction=_sustained(kernel, rows, chip),
        error_median=float(np.median(np.abs(model.log_error(chip, fitted, brief)))),
        held_out_median=float(np.median(unseen)),
        held_out_p90=float(np.percentile(unseen, 90)),
        why_not="",
    )


def _none(kernel: str, model: str, rows: int, shapes: int, why: str) -> CostFit:
    return CostFit(kernel, model, rows, shapes, {}, (), (), None, None, None, None, why)


def _constants(model: CostModel, chip: ChipSpec, rows: Sequence[Measurement]) -> Parameters:
    def log_error(parameters: Parameters) -> Floats:
        return model.log_error(chip, parameters, rows)

    return fit_constants(model.start, model.free, log_error)


def _held_out(model: CostModel, chip: ChipSpec, rows: Sequence[Measurement]) -> Floats:
    """(rows,) of log(price / measured), each by a fit without any row of its shape."""
    shapes = np.random.default_rng(0).permutation(sorted({row.shape for row in rows}))
    fold = {str(shape): number % FOLDS for number, shape in enumerate(shapes)}
    errors = np.zeros(len(rows))
    for number in range(FOLDS):
        unseen = [i for i, row in enumerate(rows) if fold[row.shape] == number]
        seen = [row for row in rows if fold[row.shape] != number]
        fitted = _constants(model, chip, seen)
        errors[unseen] = model.log_error(chip, fitted, [rows[i] for i in unseen])
    return errors


def _sustained(kernel: str, rows: Sequence[Measurement], chip: ChipSpec) -> float | None:
    if kernel not in FORMATS:
        return None
    peak = chip.tensor_flops_per_s(FORMATS[kernel].tensor_family)
    return max((row.flops / seconds(row) / peak for row in rows if row.sustained), default=None)
