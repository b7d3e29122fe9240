"""How fast a skewed dispatch of 64 GPUs on 8 nodes is priced: by its slowest port, and as flows.

An event is one exchange: 50 us each are 20,000 events a second. Times are never asserted.
"""

import numpy as np
import pytest

from hwmodels.cluster import CLUSTERS
from hwmodels.library import LIBRARIES
from simulator.network.expert_exchange import normal_exchange, play_normal
from simulator.network.port_rates import PortRates
from simulator.network.slowest_port import direct_ports, normal_ports, port_times
from workloads.blocks.moe import MoESpec
from workloads.routing import expected_copies
from workloads.routing_matrix import expected_matrix

pytestmark = pytest.mark.bench

MOE = MoESpec(routed_experts=256, top_k=8, expert_width=1, group_score="max")
SIZE, CALLS = 7392.0, 100
RATES = PortRates(44e9, 122e9, 4e-6, "")


@pytest.fixture(scope="module")
def matrix():
    load = np.random.default_rng(0).lognormal(0, 0.4, 64)
    return expected_matrix(expected_copies(MOE, 64, 8, 4), 4096, 8, load / load.mean())


def count(times):
    """Every exchange of a skewed matrix takes longer than its mean port's 2.4 ms."""
    assert all(2.4e-3 < time_s < 20e-3 for time_s in times)
    return 64, 1, len(times)


@pytest.mark.parametrize("ports", [normal_ports, direct_ports])
def test_the_slowest_port(table, matrix, ports):
    def play():
        found = (ports(matrix) for _ in range(CALLS))
        return [float(port_times(each.nic, each.nvlink, SIZE, RATES).seconds) for each in found]

    times = table.timed(f"slowest port, {ports.__name__}", play, count, repeats=100)
    assert len(set(times)) == 1


def test_an_exchange_with_all_that_is_told_and_the_same_as_flows(table, matrix):
    """What the formula gives is what flows take."""
    given = (
        "dispatch", matrix, SIZE, CLUSTERS.load("h800-2048-mpft"), LIBRARIES.load("deepep-h800")
    )  # fmt: skip
    (formula, *_) = table.timed(
        "normal_exchange", lambda: [normal_exchange(*given).time_s for _ in range(CALLS)], count, 20
    )
    (flows, *_) = table.timed("as flows", lambda: [play_normal(*given).time_s], count, 5)
    assert flows == pytest.approx(formula, rel=0.03)
