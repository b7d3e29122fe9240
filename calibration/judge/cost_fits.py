"""Which cost models fit the rows of a day, and how well on shapes that they have not seen.

Rows are those of our kernels as `choose` configures them, alone on the device or on part of its
SMs, for a moment. Shapes are dealt into `FOLDS`; each is priced by a fit without it, on all the SMs
it was measured on. What has too few shapes for its constants is not fitted, and says so.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

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
    """Return the preset of the day's device, as `chip_called`."""
    return chip_called(day.device, day.sms, name, day.path)


def chip_called(device: str, sms: int | None, name: str | None, path: Path) -> ChipSpec | None:
    """Return the preset of a device: the one named, or the one its driver's name holds.

    None where no preset is named so, or that one has another number of SMs.

    Args:
        sms: of the device, None where they are not known.
        path: that says of the device.

    Raises:
        UnknownPresetError: no preset has the name given.
        CalibrationError: the preset named has another number of SMs.
    """
    if name is not None:
        chip = CHIPS.load(name)
        if sms not in (None, chip.sms):
            raise CalibrationError(
                f"--chip {name}: has {chip.sms} SMs, and {device}, the device of {path}, has {sms}"
            )
        return chip
    words = set(re.findall(r"[a-z0-9]+", device.lower()))
    found = [CHIPS.load(known) for known in CHIPS.names() if known in words]
    return found[0] if len(found) == 1 and sms in (None, found[0].sms) else None


def cost_fits(day: Day, chip: ChipSpec) -> list[CostFit]:
    """Return a fit of every kernel of which there are rows, or why there is none."""
    return [_fit(kernel, rows, chip) for kernel, rows in _rows(day).items()]


def fitted_parameters(day: Day, chip: ChipSpec) -> dict[str, Parameters]:
    """Return the constants of every kernel that has a model, and not what they are worth.

    Where shapes are too few for all constants, the efficiency alone is fitted, with the median of
    what a launch takes the other kernels.
    """
    found: dict[str, Parameters] = {}
    few: dict[str, tuple[CostModel, list[Measurement]]] = {}
    for kernel, rows in _rows(day).items():
        brief = _brief(rows)
        model, why_not = _model(kernel, brief, chip)
        if model is None or not brief or _lacks_tensor(kernel, chip):
            continue
        if why_not:
            few[kernel] = model, brief
        else:
            found[kernel] = _constants(model, chip, brief)
    launches_s = [each.launch_s for each in found.values()]
    for kernel, (model, brief) in few.items():
        launch_s = float(np.median(launches_s)) if launches_s else model.start.launch_s
        start = model.start.model_copy(update={"launch_s": launch_s})
        found[kernel] = _efficiency(replace(model, start=start), chip, brief)
    return found


def _rows(day: Day) -> dict[str, list[Measurement]]:
    """Return the rows that are fitted to, kernel by kernel."""
    rows: dict[str, list[Measurement]] = defaultdict(list)
    for row in day.rows:
        if row.provider == OURS and not row.config and row.mode != "beside":
            rows[row.kernel].append(row)
    return dict(sorted(rows.items()))


def _brief(rows: Sequence[Measurement]) -> list[Measurement]:
    return [row for row in rows if not row.sustained]


def _shapes(rows: Sequence[Measurement]) -> int:
    return len({row.shape for row in rows})


def _model(
    kernel: str, rows: Sequence[Measurement], chip: ChipSpec
) -> tuple[CostModel | None, str]:
    """Return the cost model of a kernel, and why it cannot be fitted to these rows."""
    if kernel in NO_MODEL:
        return None, NO_MODEL[kernel]
    model = cost_model(kernel, chip, few_sms=any(row.sms < chip.sms for row in rows))
    if _lacks_tensor(kernel, chip):
        return model, f"{chip.name} has no {FORMATS[kernel].tensor_family} tensor cores"
    shapes, needed = _shapes(rows), max(FOLDS, SHAPES_PER_CONSTANT * len(model.free))
    if shapes < needed:
        return model, f"{shapes} shapes for {len(model.free)} constants, needs {needed}"
    return model, ""


def _lacks_tensor(kernel: str, chip: ChipSpec) -> bool:
    return kernel in FORMATS and FORMATS[kernel].tensor_family not in chip.tensor


def _fit(kernel: str, rows: Sequence[Measurement], chip: ChipSpec) -> CostFit:
    brief = _brief(rows)
    shapes = _shapes(brief)
    model, why_not = _model(kernel, brief, chip)
    if model is None or why_not:
        return _none(kernel, model.name if model else "", len(brief), shapes, why_not)
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


def _efficiency(model: CostModel, chip: ChipSpec, rows: Sequence[Measurement]) -> Parameters:
    """Return the constants of the start with an efficiency that misses no side of the rows."""
    name = "hbm_efficiency" if model.name == "memory_op" else "tensor_efficiency"

    def constants(value: float) -> Parameters:
        return model.start.model_copy(update={name: value})

    def error(value: float) -> float:
        return float(np.median(model.log_error(chip, constants(value), rows)))

    low, high = model.free[name]
    if error(low) <= 0:
        return constants(low)
    return constants(high if error(high) >= 0 else float(brentq(error, low, high)))


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
