"""Fit the constants of one library to timed exchanges, and score them on shapes not fitted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from calibration.read.deepep_rows import DeepEpRows
from hwmodels.arrays import Floats
from hwmodels.costs.exchange import ExchangeParameters, transfer_s
from hwmodels.costs.low_latency import LowLatencyParameters, low_latency_s

FOLDS = 5
_ERROR_SCALE, _SPAN = 0.05, 6.0
"""Relative error above which a row counts less; e-folds that a constant may leave its start by."""

Constants = Mapping[str, float]
"""By dotted path below the parameters: `dispatch_work.token_s`."""
Residual = Callable[[Constants], Floats]
"""log(modelled / measured) by constants, dispatch then combine: (2 rows,)."""
Errors = Callable[[DeepEpRows], Residual]
"""What constants miss of some rows."""


@dataclass(frozen=True, slots=True, eq=False)
class TableFit:
    """Constants of one table, and how well they do.

    Attributes:
        constants: by path, fitted to all rows.
        in_sample, held_out: (2 rows,) relative errors; held out: of a fit without the row's shape.
    """

    constants: dict[str, float]
    in_sample: Floats
    held_out: Floats

    def of(self, rows: npt.NDArray[np.bool_]) -> "TableFit":
        """Return the fit with the errors of (rows,) some rows alone."""
        both = np.tile(rows, 2)
        return TableFit(self.constants, self.in_sample[both], self.held_out[both])


def normal_errors(fixed: Constants) -> Errors:
    """Return the errors of normal mode with the constants `fixed` beside the free ones."""

    def errors(rows: DeepEpRows) -> Residual:
        shapes = {name: rows.normal(name) for name in rows.time_s}

        def residual(constants: Constants) -> Floats:
            found = ExchangeParameters.model_validate(nested({**fixed, **constants}))
            return np.concatenate(
                [
                    np.log(transfer_s(found, name, shape, rows.sms[name]) / rows.time_s[name])
                    for name, shape in shapes.items()
                ]
            )

        return residual

    return errors


def low_latency_errors(fixed: Constants, chip_sms: int) -> Errors:
    """Return the errors of low-latency mode on a chip of `chip_sms` SMs."""

    def errors(rows: DeepEpRows) -> Residual:
        shapes = {name: rows.low_latency(name, chip_sms) for name in rows.time_s}

        def residual(constants: Constants) -> Floats:
            found = LowLatencyParameters.model_validate(nested({**fixed, **constants}))
            return np.concatenate(
                [
                    np.log(low_latency_s(found, name, shape) / rows.time_s[name])
                    for name, shape in shapes.items()
                ]
            )

        return residual

    return errors


def fit_table(errors: Errors, start: Constants, rows: DeepEpRows) -> TableFit:
    """Fit the constants that `start` names to all rows; cross-validate over shapes in five parts.

    Constants are positive and fitted by their logarithms.
    """
    shapes = rows.shape_number
    part = np.random.default_rng(0).permutation(shapes.max() + 1)[shapes] % FOLDS
    constants = _fitted(errors, start, rows)
    held_out = np.empty(2 * len(shapes))
    for fold in range(FOLDS):
        left_out = part == fold
        if left_out.any():
            without = _fitted(errors, start, rows.take(~left_out))
            held_out[np.tile(left_out, 2)] = errors(rows.take(left_out))(without)
    return TableFit(constants, np.expm1(errors(rows)(constants)), np.expm1(held_out))


def _fitted(errors: Errors, start: Constants, rows: DeepEpRows) -> dict[str, float]:
    names, origin = list(start), np.log(list(start.values()))

    def named(position: Floats) -> dict[str, float]:
        return dict(zip(names, map(float, np.exp(position)), strict=True))

    missed = errors(rows)

    def residual(position: Floats) -> Floats:
        return missed(named(position))

    found = least_squares(
        residual,
        origin,
        bounds=(origin - _SPAN, origin + _SPAN),
        loss="soft_l1",
        f_scale=_ERROR_SCALE,
    )
    return named(found.x)


def nested(constants: Constants) -> dict[str, object]:
    """Return the constants as tables: `{"a.b": 1}` is `{"a": {"b": 1}}`."""
    tables: dict[str, object] = {}
    for path, value in constants.items():
        *parents, last = path.split(".")
        table = tables
        for key in parents:
            below = table.setdefault(key, {})
            assert isinstance(below, dict), f"{path}: a constant stands where a table does"
            table = below
        table[last] = value
    return tables
