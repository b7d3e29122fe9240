"""Flows as rows: what they are refused for, and which loops play them."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, InputError
from simulator.network import fair_loops
from simulator.network.fair import fair_rates, finish
from simulator.network.flows import PART_ROWS, Flows, link_bytes


def test_numbers_stand_for_all_rows():
    flows = Flows.of([[0, 1], [1, -1]], 2.5, 3)
    assert len(flows) == 2
    assert (flows.route.dtype, flows.moved_bytes.dtype) == (np.int32, np.float64)
    assert (flows.moved_bytes.tolist(), flows.weight.tolist()) == ([2.5, 2.5], [3, 3])


@pytest.mark.parametrize(
    ("route", "moved_bytes", "weight", "message"),
    [
        ([0, 1], 1, 1, "route must have shape (flows, hops), got (2,)"),
        ([[0.5]], 1, 1, "route must hold link numbers, got float64"),
        ([[2**31]], 1, 1, "links must be below 2**31, got 2147483648"),
        ([[-2]], 1, 1, "a link is 0 or more, or -1 for none, got -2"),
        ([[0, 1, -1], [2, 3, 2]], 1, 1, "flow 1 crosses link 2 twice"),
        ([[0]], -1, 1, "moved_bytes must be 0 or lie in 1e-30 to 1e+30, got -1.0 for flow 0"),
        ([[0], [0]], [1, np.nan], 1, "moved_bytes must be 0 or lie in 1e-30 to 1e+30, got nan"),
        ([[0]], np.inf, 1, "moved_bytes must be 0 or lie in 1e-30 to 1e+30, got inf for flow 0"),
        ([[0]], 1, 0, "weight must lie in 1e-30 to 1e+30, got 0.0 for flow 0"),
        ([[0], [1]], [1, 2, 3], 1, "moved_bytes has shape (3,), there are 2 flows"),
        ([[0], [1]], 1, [[1, 2]], "weight has shape (1, 2), there are 2 flows"),
    ],
)
def test_wrong_flows_are_refused(route, moved_bytes, weight, message):
    with pytest.raises(InputError) as refused:
        Flows.of(np.array(route), moved_bytes, weight)
    assert str(refused.value).startswith(f"flows: {message}")
    assert "\n" not in str(refused.value)


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(InputError, match=r"route \(1, 1\), moved_bytes \(2,\) and weight \(1,\)"):
        Flows(np.zeros((1, 1), np.int32), np.ones(2), np.ones(1))


@pytest.mark.parametrize("ask", [finish, fair_rates])
@pytest.mark.parametrize(
    ("bytes_per_s", "message"),
    [
        ([1, 1], "flows: route must lie in 0 to 1, the last link, got 2"),
        ([1, -1, 1], "link 1: bytes/s must be 0 or lie in 1e-30 to 1e+30, got -1.0"),
        ([1, 1, np.inf], "link 2: bytes/s must be 0 or lie in 1e-30 to 1e+30, got inf"),
        ([[1, 1, 1]], "links: bytes/s must have shape (links,), got (1, 3)"),
    ],
)
def test_wrong_links_are_refused(ask, bytes_per_s, message):
    with pytest.raises(InputError) as refused:
        ask(Flows.of([[0, 2]], 1), bytes_per_s)
    assert str(refused.value) == message


def test_bytes_never_cross_a_dead_link():
    flows = Flows.of([[0, -1], [0, 1], [1, -1]], [1, 2, 0], 3)
    with pytest.raises(InfeasibleError) as refused:
        finish(flows, [5, 0])
    assert str(refused.value) == (
        "link 1: it has 0 bytes/s, so the 6 bytes that must cross it never do"
    )
    assert fair_rates(flows, [5, 0]) == pytest.approx([5 / 3, 0, 0], rel=1e-15)


def test_a_dead_link_that_nothing_crosses_hurts_nobody():
    assert finish(Flows.of([[0], [1]], [4, 0]), [2, 0]).end_s.tolist() == [2, 0]


@pytest.mark.parametrize("batch", [-0.01, 1.01, np.nan])
def test_wrong_batches_are_refused(batch):
    with pytest.raises(InputError, match=r"^finish: batch must lie in 0 to 1, got "):
        finish(Flows.of([[0]], 1), [1], batch)


def test_bytes_of_a_link_are_those_of_all_flows_of_its_rows():
    flows = Flows.of([[0, 2], [2, -1], [-1, -1]], [1, 10, 100], [2, 3, 1])
    assert link_bytes(flows, 4).tolist() == [2, 0, 32, 0]


def test_rows_are_looked_at_in_parts():
    """Three parts, the last of one row."""
    rows = np.arange(2 * PART_ROWS + 1)
    flows = Flows.of(rows[:, None] % 2, 1 + rows % 3)
    assert link_bytes(flows, 2).tolist() == [flows.moved_bytes[own::2].sum() for own in range(2)]
    assert finish(flows, [1e3, 1e3]).last_s == pytest.approx(
        link_bytes(flows, 2).max() / 1e3, rel=0.01
    )


def test_small_work_is_not_compiled(monkeypatch):
    """Loops run as they stand until a process has had enough of it."""
    asked = []

    def compiled():
        asked.append(True)
        return "compiled"

    compiled.cache_info = lambda: type("Info", (), {"currsize": len(asked)})
    monkeypatch.setattr(fair_loops, "compiled", compiled)
    monkeypatch.setattr(fair_loops, "_interpreted", 0)
    assert fair_loops.loops_for(fair_loops.PATIENCE) is fair_loops.PLAIN
    assert fair_loops.loops_for(1) == "compiled"
    assert fair_loops.loops_for(0) == "compiled"
