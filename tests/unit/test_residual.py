"""What measured rows add to a price: steps and slopes of it inside, nothing far away."""

import numpy as np
import pytest

from hwmodels.errors import CalibrationError
from hwmodels.residual import Residual


def grid(side: int) -> np.ndarray:
    """side^2 points of the square from 0 to 6."""
    values = np.linspace(0.0, 6.0, side)
    return np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, 2)


def test_rows_that_agree_are_taken_at_their_word() -> None:
    """Nearly: of every leaf of some thirty rows, five say that there is nothing to add."""
    residual = Residual(grid(40), np.full(1600, np.log(1.2)))
    np.testing.assert_allclose(residual.factor(grid(7)), 1.2, rtol=1e-3)


def test_a_step_between_two_kernels_is_kept_sharp() -> None:
    where = grid(40)
    residual = Residual(where, np.where(where[:, 0] > 3.0, np.log(1.3), 0.0))
    np.testing.assert_allclose(residual.factor(np.array([[2.8, 1.0], [3.2, 1.0]])), [1, 1.3], 1e-3)


def test_a_slope_is_followed_between_the_rows() -> None:
    where = grid(40)
    residual = Residual(where, 0.05 * where[:, 0] - 0.03 * where[:, 1])
    between = grid(39)[40:-40]
    wanted = np.exp(0.05 * between[:, 0] - 0.03 * between[:, 1])
    np.testing.assert_allclose(residual.factor(between), wanted, rtol=0.02)


def test_one_glitch_moves_little() -> None:
    where, ratio = grid(40), np.zeros(1600)
    ratio[820] = np.log(50.0)
    elsewhere = np.linalg.norm(where - where[820], axis=1) > 0.5
    factor = Residual(where, ratio).factor(where[elsewhere])
    np.testing.assert_allclose(factor, 1.0, atol=0.05)


def test_far_from_all_rows_nothing_is_added() -> None:
    residual = Residual(grid(20), np.full(400, np.log(1.5)))
    np.testing.assert_allclose(residual.factor(np.array([[20.0, 0.0], [5.0, -9.0]])), 1.0)
    near, far = residual.factor(np.array([[6.5, 3.0], [7.5, 3.0]]))
    assert 1.5 > near > far > 1.0


def test_a_few_rows_are_enough_and_order_does_not_matter_to_the_last_bit() -> None:
    where = grid(5)
    ratio = np.log(1.1) + 0.0 * where[:, 0]
    once, again = (Residual(where, ratio).factor(where) for _ in range(2))
    assert (once == again).all()
    np.testing.assert_allclose(once, 1.1, rtol=0.02)


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
