"""Fit one family of kernels to its rows, and say what the fit is worth on sites it has not seen.

The constants that ship are fitted to all rows; the errors are of `FOLDS` fits, each without the
sites it prices. A parent, such as the same family on a sibling of the chip, is where a fit starts
and what it is pulled to: with it, some thirty rows are enough.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibration.fit.constants import at_bound, fit_from_starts, not_identified
from calibration.fit.families import CostModel, cost_model
from calibration.rows import KernelRows
from hwmodels.arrays import Floats, Ints
from hwmodels.chip import ChipSpec
from hwmodels.costs import Parameters
from hwmodels.errors import CalibrationError

ROWS_MAX = 1500
"""Rows a fit of constants takes: more change none of them by as much as another seed does."""

SHAPES_PER_CONSTANT = 2
"""Sites needed for each free constant where no parent says what it should be."""


class Errors(NamedTuple):
    """Relative errors of prices, as fractions of the measured time.

    Attributes:
        median, p90: of |price / measured - 1|.
        bias: median of price / measured - 1.
        rows: how many.
    """

    median: float
    p90: float
    bias: float
    rows: int

    @classmethod
    def of(cls, log_error: Floats) -> "Errors":
        """Return the errors of log(price / measured)."""
        error = np.expm1(log_error)
        size = np.abs(error)
        return cls(
            float(np.median(size)),
            float(np.percentile(size, 90)),
            float(np.median(error)),
            len(error),
        )


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
    """

    rows: KernelRows
    parameters: Parameters
    parent: str | None
    free: tuple[str, ...]
    at_bound: tuple[str, ...]
    not_identified: tuple[str, ...]
    held_out: Floats

    @property
    def errors(self) -> Errors:
        """Errors on sites left out."""
        return Errors.of(self.held_out)


def fit_family(
    rows: KernelRows, chip: ChipSpec, parent: tuple[str, Parameters] | None = None
) -> FamilyFit:
    """Fit the constants of one family.

    Args:
        chip: that the rows were measured on.
        parent: name and constants of a profile to start from.

    Raises:
        CalibrationError: too few sites for the constants.
    """
    model = cost_model(rows, chip)
    _check_sites(rows, model, parent)
    prior = parent[1] if parent else None
    parameters = _constants(rows, chip, model, prior)
    held_out = np.zeros(len(rows))
    for seen, unseen in rows.folds():
        fitted = _constants(seen, chip, model, prior)
        held_out[np.isin(rows.site, unseen.site)] = unseen.log_error(chip, fitted)
    return FamilyFit(
        rows=rows,
        parameters=parameters,
        parent=parent[0] if parent else None,
        free=tuple(model.free),
        at_bound=at_bound(parameters, model.free),
        not_identified=not_identified(
            parameters, model.free, lambda constants: rows.log_error(chip, constants)
        ),
        held_out=held_out,
    )


def fitted_constants(
    rows: KernelRows, chip: ChipSpec, parent: Parameters | None = None
) -> Parameters:
    """Return the constants fitted to rows, and nothing of what they are worth."""
    return _constants(rows, chip, cost_model(rows, chip), parent)


def _constants(
    rows: KernelRows, chip: ChipSpec, model: CostModel, prior: Parameters | None
) -> Parameters:
    some = rows.take(spread_sample(rows, ROWS_MAX))
    starts = (prior,) if prior is not None else model.starts
    return fit_from_starts(
        starts, model.free, lambda constants: some.log_error(chip, constants), prior
    )


def spread_sample(rows: KernelRows, count: int) -> Ints:
    """Return positions of at most `count` rows, spread evenly over their sizes and sites."""
    if len(rows) <= count:
        return np.arange(len(rows))
    shuffled = np.random.default_rng(0).permutation(len(rows))
    by_size = shuffled[np.argsort(rows.size[shuffled], kind="stable")]
    return np.sort(by_size[np.linspace(0, len(rows) - 1, count).round().astype(int)])


def _check_sites(rows: KernelRows, model: CostModel, parent: tuple[str, Parameters] | None) -> None:
    needed = 2 if parent else max(2, SHAPES_PER_CONSTANT * len(model.free))
    found = len(np.unique(rows.site))
    if found < needed:
        raise CalibrationError(
            f"{rows.family}, {rows.setting}: {found} sites for {len(model.free)} constants, "
            f"needs {needed}{'' if parent else ', or a parent profile'}"
        )
