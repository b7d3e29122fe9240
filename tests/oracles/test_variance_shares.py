"""Shares of the variance against models whose shares are known on paper."""

import numpy as np
import pytest

from simulator.tell.intervals import CHANCE, draws_needed, intervals, is_constant, variance_shares
from simulator.uncertainty import Z90, standard_normals

DRAWS = 4096


def normals(*paths, draws=DRAWS):
    """Independent standard normals, [draw, input], as experiments sample them."""
    return np.stack([standard_normals(path, draws, 0) for path in paths], axis=1)


def told(y, x, paths="abcdefgh"):
    return intervals({"y": y}, list(paths)[: x.shape[1]], x)["y"]


def test_a_sum_of_two_inputs_splits_by_the_squares_of_their_slopes():
    """y = 2 a + b with equal spreads: 4 / 5 and 1 / 5; y is normal with variance 5."""
    x = normals("a", "b")
    found = told(10 + 2 * x[:, 0] + x[:, 1], x)
    assert found.variance_shares["a"] == pytest.approx(0.8, abs=0.02)
    assert found.variance_shares["b"] == pytest.approx(0.2, abs=0.02)
    assert found.variance_shares[CHANCE] == pytest.approx(0, abs=1e-9)
    # The standard error of a P10 of 4,096 independent draws is 0.027 standard deviations.
    assert found.p10 == pytest.approx(10 - Z90 * 5**0.5, abs=3 * 0.027 * 5**0.5)
    assert found.p90 == pytest.approx(10 + Z90 * 5**0.5, abs=3 * 0.027 * 5**0.5)
    assert found.median == pytest.approx(10, abs=0.1)


def test_chance_takes_the_rest():
    """y = a + e, both standard normal: a half each."""
    x, noise = normals("a"), np.random.default_rng(0).standard_normal(DRAWS)
    found = told(x[:, 0] + noise, x).variance_shares
    assert found["a"] == pytest.approx(0.5, abs=0.03)
    assert found[CHANCE] == pytest.approx(0.5, abs=0.03)


def test_an_input_that_matters_to_one_side_only_is_told_in_full():
    """One slope for max(a, 0) would explain (1/2)^2 / (1/2 - 1/2 pi) = 73 %."""
    x = normals("a", "b")
    found = told(x[:, 0].clip(min=0), x).variance_shares
    assert found["a"] == pytest.approx(1, abs=1e-9)
    assert found["b"] == pytest.approx(0, abs=1e-9)


def test_what_inputs_do_only_together_is_nobodys_share():
    """y = a b has no first-order effects at all."""
    x = normals("a", "b")
    assert told(x[:, 0] * x[:, 1], x).variance_shares[CHANCE] > 0.95


def test_inputs_without_effect_get_no_share_of_the_noise():
    """Twenty of them, 256 draws: 40 slopes fit 40 / 255 = 16 % of pure noise."""
    x = normals(*(f"input {i}" for i in range(20)), draws=256)
    noise = np.random.default_rng(1).standard_normal((50, 256))
    shares = variance_shares(noise, x)
    assert shares.sum(axis=1).mean() < 0.08
    assert shares.max() < 0.08


def test_an_input_that_never_varies_has_no_share_and_needs_no_draws():
    x = normals("a", "b", draws=8)
    x[:, 1] = 0
    assert draws_needed(x) == 8
    found = told(x[:, 0], x).variance_shares
    assert found["a"] == pytest.approx(1)
    assert found["b"] == 0


def test_a_side_that_an_input_never_reaches_needs_no_draws():
    x = normals("a", "b", draws=64).clip(min=0)
    assert draws_needed(x) == 8
    assert draws_needed(normals("a", "b")) == 16


def test_too_few_draws_tell_no_shares():
    x = normals("a", "b", draws=15)
    found = told(x.sum(axis=1), x)
    assert found.variance_shares == {}
    assert found.p10 < found.median < found.p90
    enough = normals("a", "b", draws=16)
    assert told(enough.sum(axis=1), enough).variance_shares.keys() == {"a", "b", CHANCE}


def test_a_constant_has_no_shares():
    x = normals("a", draws=64)
    found = told(np.full(64, 7.0), x)
    assert (found.p10, found.median, found.p90) == (7, 7, 7)
    assert found.variance_shares == {}


@pytest.mark.parametrize(
    ("values", "constant"),
    [
        ([0.0, 0.0], True),
        ([1.0, 1.0 + 1e-13], True),
        ([-3.0, -3.0], True),
        ([1.0, 1.0 + 1e-6], False),
        ([0.0, 1e-30], False),
        ([-1e-3, 1e-3], False),
    ],
)
def test_rounding_is_not_a_spread(values, constant):
    assert is_constant(np.array(values)) == constant


def test_shares_are_listed_largest_first_and_chance_last():
    x = normals("a", "b", "c")
    found = told(x[:, 0] + 3 * x[:, 1] + 2 * x[:, 2], x).variance_shares
    assert list(found) == ["b", "c", "a", CHANCE]
