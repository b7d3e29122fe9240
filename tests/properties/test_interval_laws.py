"""Laws of intervals and shares over random samples, sensible or not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.tell.intervals import CHANCE, intervals


@st.composite
def samples(draw):
    """Outputs and deviations: smooth, stepped, constant or wildly scaled, few draws or many."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    draws, inputs = draw(st.integers(1, 80)), draw(st.integers(1, 4))
    x = rng.standard_normal((draws, inputs)) * 10.0 ** rng.integers(-12, 12, inputs)
    if draw(st.booleans()):
        x = np.sign(x) * (np.abs(x) > 0.5)
    slopes = rng.standard_normal(inputs) * draw(st.sampled_from([0.0, 1.0, 1e6]))
    y = x @ slopes + draw(st.sampled_from([0.0, 1e-3, 1e3])) * rng.standard_normal(draws)
    return y, x


@given(samples())
def test_quantiles_are_ordered_and_inside_the_sample(sample):
    y, x = sample
    told = intervals({"y": y}, "abcd"[: x.shape[1]], x)["y"]
    assert y.min() <= told.p10 <= told.median <= told.p90 <= y.max()


@given(samples())
def test_shares_are_shares_and_sum_to_one(sample):
    y, x = sample
    shares = intervals({"y": y}, "abcd"[: x.shape[1]], x)["y"].variance_shares
    assert all(0 <= share <= 1 for share in shares.values())
    if shares:
        assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
        assert list(shares)[-1] == CHANCE


@given(samples(), st.floats(0.01, 100), st.floats(-10, 10))
def test_shares_do_not_depend_on_the_unit_of_the_number(sample, scale, shift):
    y, x = sample
    named = "abcd"[: x.shape[1]]
    spread = float(np.ptp(y))
    one = intervals({"y": y}, named, x)["y"].variance_shares
    other = intervals({"y": scale * (y + shift * spread)}, named, x)["y"].variance_shares
    assert one.keys() == other.keys()
    for path, share in one.items():
        assert other[path] == pytest.approx(share, abs=1e-6)
