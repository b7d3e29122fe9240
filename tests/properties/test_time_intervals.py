"""Intervals against a clock that ticks: what is counted tick by tick is what is summed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibration.read.intervals import Intervals

TICKS = 24
PAIRS = st.lists(
    st.tuples(st.integers(0, TICKS), st.integers(0, TICKS)).map(sorted), min_size=0, max_size=8
)


def intervals(pairs: list[list[int]]) -> Intervals:
    start, end = np.array(pairs, np.float64).reshape(-1, 2).T
    return Intervals(start, end)


def running(pairs: list[list[int]]) -> np.ndarray:
    """(intervals, ticks) whether each runs in each tick."""
    tick = np.arange(TICKS)
    start, end = np.array(pairs, np.int64).reshape(-1, 2).T
    return (start[:, None] <= tick) & (tick < end[:, None])


@given(PAIRS)
def test_covered_time_is_the_ticks_in_which_something_runs(pairs: list[list[int]]) -> None:
    assert intervals(pairs).covered_s == running(pairs).any(axis=0).sum()


@given(PAIRS)
def test_what_runs_together_shares_each_tick(pairs: list[list[int]]) -> None:
    ticks = running(pairs)
    shared = (ticks / np.maximum(1, ticks.sum(axis=0))).sum(axis=1)
    assert np.allclose(intervals(pairs).shares_s(), shared, atol=1e-12)


@given(PAIRS, PAIRS)
def test_time_beside_others_is_the_ticks_in_common(
    pairs: list[list[int]], others: list[list[int]]
) -> None:
    common = (running(pairs) & running(others).any(axis=0)).sum(axis=1)
    assert np.allclose(intervals(pairs).beside_s(intervals(others)), common, atol=1e-12)


def test_the_span_is_from_the_first_start_to_the_last_end() -> None:
    assert intervals([[3, 4], [9, 11], [5, 6]]).span_s == 8
    assert intervals([]).span_s == 0
