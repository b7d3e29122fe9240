"""Laws of a host that launches kernels, whatever they take."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from simulator.driver.launches import as_graph_s, one_by_one_s

TIMES = st.integers(1, 30).flatmap(
    lambda count: arrays.arrays(
        np.float64, (2, count), elements=st.floats(0, 1e-2, allow_subnormal=False)
    )
)


def eager_s(kernels_s: np.ndarray, issue_s: np.ndarray, *, waits: bool = False) -> float:
    labels = [str(number) for number in range(len(kernels_s))]
    return one_by_one_s(labels, kernels_s, issue_s, waits=waits)


@given(TIMES)
def test_each_kernel_starts_when_it_is_queued_and_the_device_is_free(times: np.ndarray) -> None:
    """The recurrence itself: `end = max(end, queued) + kernel`."""
    kernels_s, issue_s = times
    end_s = 0.0
    for kernel_s, queued_s in zip(kernels_s, np.cumsum(issue_s), strict=True):
        end_s = max(end_s, queued_s) + kernel_s
    np.testing.assert_allclose(eager_s(kernels_s, issue_s), end_s, rtol=1e-12)


@given(TIMES)
def test_waiting_is_never_faster_and_a_graph_never_slower(times: np.ndarray) -> None:
    kernels_s, issue_s = times
    eager, rounding = eager_s(kernels_s, issue_s), 1e-12
    assert as_graph_s(kernels_s) <= eager + rounding
    assert issue_s.sum() <= eager + rounding
    assert eager <= eager_s(kernels_s, issue_s, waits=True) + rounding
    np.testing.assert_allclose(eager_s(kernels_s, issue_s, waits=True), times.sum())


@given(TIMES)
def test_without_a_host_launching_one_by_one_is_a_graph(times: np.ndarray) -> None:
    kernels_s = times[0]
    np.testing.assert_allclose(eager_s(kernels_s, np.zeros_like(kernels_s)), as_graph_s(kernels_s))
