"""Fit one family of kernels to its rows, and say what the fit is worth on sites it has not seen.

The constants that ship are fitted to all rows; the errors are of `FOLDS` fits, each without the
sites it prices. A parent, such as the same family on a sibling of the chip, is where a fit starts
and what it is pulled to: with it, some thirty rows are enough.
"""

from dataclasses import dataclass

import numpy as np

from calibration.fit.constants import at_bound, fit_from_starts, not_identified
from calibration.fit.errors import Errors
from calibration.fit.families import CostModel, cost_model
from calibration.rows import KernelRows
from hwmodels.arrays import Floats, Ints
from hwmodels.chip import ChipSpec
from hwmodels.costs import Parameters
from hwmodels.costs.kernel import kernel_features
from hwmodels.errors import CalibrationError
from hwmodels.measured_rows import MeasuredFamily, residual_of
from hwmodels.profile import KernelProfile
from hwmodels.transfer import adapted

ROWS_MAX = 1500
"""Rows a fit of constants takes: more change none of them by as much as another seed does."""

ROWS_PER_CONSTANT = 2
"""Rows needed for each free constant where no parent says what it should be."""

ENOUGH_ROWS = 20
"""Rows for each free constant from which on a fit needs no parent."""


@dataclass(frozen=True, slots=True)
class FamilyFit:
    """Constants of one family, and what they are worth.

    Attributes:
        rows: that they were fitted to.
        parent: where the fit started, and what it was pulled to; None where nothing was.
        free: constants fitted; the others are structure, or the parent's.
        at_bound: those of them that ended at an end of their range.
        not_identified: those with which no price moves: their values say nothing.
        held_out: (rows,) log(price / measured), each by a fit without its site.
        held_out_with_rows: the same of prices that the rows of the other sites correct.
    """

    rows: KernelRows
    parameters: Parameters
    parent: str | None
    free: tuple[str, ...]
    at_bound: tuple[str, ...]
    not_identified: tuple[str, ...]
    held_out: Floats
    held_out_with_rows: Floats

    @property
    def errors(self) -> Errors:
        """Errors on sites left out, by constants alone."""
        return Errors.of(self.held_out)

    @property
    def errors_with_rows(self) -> Errors:
        """Errors on sites left out, corrected by the rows of the others."""
        return Errors.of(self.held_out_with_rows)


def fit_family(rows: KernelRows, chip: ChipSpec, parent: KernelProfile | None = None) -> FamilyFit:
    """Fit the constants of one family.

    Args:
        chip: that the rows were measured on.
        parent: where a fit starts, and what it is pulled to, that has few rows.

    Raises:
        CalibrationError: too few rows for the constants.
    """
    parameters = fitted_constants(rows, chip, parent)
    model = cost_model(rows, chip)
    prior = _prior(rows, chip, model, parent)
    held_out, with_rows = np.zeros(len(rows)), np.zeros(len(rows))
    for seen, unseen in rows.folds():
        fitted, here = _constants(seen, chip, model, prior), np.isin(rows.site, unseen.site)
        held_out[here] = unseen.log_error(chip, fitted)
        residual = residual_of(chip, fitted, MeasuredFamily(seen.time_s, seen.shape))
        factor = residual.factor(kernel_features(chip, fitted, unseen.shape))
        with_rows[here] = held_out[here] + np.log(factor)
    return FamilyFit(
        rows=rows,
        parameters=parameters,
        parent=parent.name if parent and prior is not None else None,
        free=tuple(model.free),
        at_bound=at_bound(parameters, model.free),
        not_identified=not_identified(
            parameters, model.free, lambda constants: rows.log_error(chip, constants)
        ),
        held_out=held_out,
        held_out_with_rows=with_rows,
    )


def fitted_constants(
    rows: KernelRows, chip: ChipSpec, parent: KernelProfile | None = None
) -> Parameters:
    """Return the constants fitted to rows, and nothing of what they are worth.

    Raises:
        CalibrationError: too few rows for the constants.
    """
    model = cost_model(rows, chip)
    return _constants(rows, chip, model, _prior(rows, chip, model, parent))


def _constants(
    rows: KernelRows, chip: ChipSpec, model: CostModel, prior: Parameters | None
) -> Parameters:
    some = rows.take(spread_sample(rows, ROWS_MAX))
    starts = model.starts if prior is None else (prior,)
    return fit_from_starts(
        starts, model.free, lambda constants: some.log_error(chip, constants), prior
    )


def _prior(
    rows: KernelRows, chip: ChipSpec, model: CostModel, parent: KernelProfile | None
) -> Parameters | None:
    """Return a parent's constants, carried over to the chip, in the structure of the library; None
    where rows are many.

    Raises:
        CalibrationError: rows are few, and there is no parent that knows the family.
    """
    start = model.starts[0]
    if len(rows) >= ENOUGH_ROWS * len(model.free):
        return None
    if parent is not None and parent.knows(rows.family):
        found = adapted(parent.parameters(rows.family), parent.chip, chip)
        if type(found) is type(start):
            return start.model_copy(update={name: getattr(found, name) for name in model.free})
    needed = ROWS_PER_CONSTANT * len(model.free)
    if len(rows) < needed:
        raise CalibrationError(
            f"{rows.family}, {rows.setting}: {len(rows)} rows for {len(model.free)} constants, "
            f"needs {needed}, or a parent that knows the family"
        )
    return None


def spread_sample(rows: KernelRows, count: int) -> Ints:
    """Return positions of at most `count` rows, spread evenly over their sizes and sites."""
    if len(rows) <= count:
        return np.arange(len(rows))
    shuffled = np.random.default_rng(0).permutation(len(rows))
    by_size = shuffled[np.argsort(rows.size[shuffled], kind="stable")]
    return np.sort(by_size[np.linspace(0, len(rows) - 1, count).round().astype(int)])
