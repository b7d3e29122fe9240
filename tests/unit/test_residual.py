"""What measured rows add to a price: all of it at a row, nothing far away."""

import numpy as np
import pytest

from hwmodels.errors import CalibrationError
from hwmodels.residual import Residual

GRID = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), axis=-1).reshape(-1, 2)


def test_rows_that_agree_are_taken_at_their_word() -> None:
    """Nearly: one row in ten says that there is nothing to add."""
    residual = Residual(GRID / 4, np.full(len(GRID), np.log(1.2)))
    np.testing.assert_allclose(residual.factor(GRID / 4 + 0.05), 1.2, rtol=0.02)


def test_far_from_all_rows_nothing_is_added() -> None:
    residual = Residual(GRID, np.full(len(GRID), np.log(1.5)))
    np.testing.assert_allclose(residual.factor(np.array([[20.0, 0.0], [5.0, -9.0]])), 1.0)


@pytest.mark.parametrize(
    ("features", "log_ratio"),
    [
        (np.zeros((0, 2)), np.zeros(0)),
        (np.zeros((3, 2)), np.zeros(2)),
        (np.zeros((1, 2)), np.array([np.nan])),
    ],
)
def test_rows_that_are_none_are_refused(features: np.ndarray, log_ratio: np.ndarray) -> None:
    with pytest.raises(CalibrationError, match="residual: "):
        Residual(features, log_ratio)
