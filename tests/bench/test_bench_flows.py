"""How fast flows are divided: exchanges of a whole cluster, in balance and not.

Counts and ends are asserted, times never. An event is the end of a row.
"""

import sys

import numpy as np
import pytest

from simulator.network.fair import fair_rates, finish
from simulator.network.fair_loops import compiled
from simulator.network.flows import Flows, link_bytes

pytestmark = pytest.mark.bench

PLANES, NODES, LEAF_NODES = 8, 256, 32
LEAVES = NODES // LEAF_NODES
SPINES = LEAVES
ENDPOINTS = PLANES * NODES
UPLINKS = PLANES * LEAVES * SPINES
LINKS = 2 * ENDPOINTS + 2 * UPLINKS
NIC_BYTES_PER_S = 50e9
UPLINK_BYTES_PER_S = LEAF_NODES // SPINES * NIC_BYTES_PER_S
"""Leaves send up as much as they take in; what balances them is a flow's choice of a spine."""

MESSAGE_BYTES, GPUS_PER_NODE, GROUP = 1e6, 8, 8


@pytest.fixture(scope="module", autouse=True)
def warm():
    """Compile the loops, or read them from disk."""
    compiled()
    skewed = Flows.of([[0], [0], [0]], [1, 2, 4])
    finish(skewed, [1])
    fair_rates(skewed, [1])


def capacities():
    return np.repeat([NIC_BYTES_PER_S, UPLINK_BYTES_PER_S], [2 * ENDPOINTS, 2 * UPLINKS])


def fabric_flows(source, target, spine):
    """(planes, pairs) flows between nodes, in each plane over the NIC, the leaf and the spine."""
    plane = np.arange(PLANES)[:, None]
    source_leaf, target_leaf = source // LEAF_NODES, target // LEAF_NODES
    up = 2 * ENDPOINTS + (plane * LEAVES + source_leaf) * SPINES + spine
    down = 2 * ENDPOINTS + UPLINKS + (plane * LEAVES + target_leaf) * SPINES + spine
    near = source_leaf == target_leaf
    ports = (plane * NODES + source, ENDPOINTS + plane * NODES + target)
    hops = (*ports, np.where(near, -1, up), np.where(near, -1, down))
    route = np.stack(np.broadcast_arrays(*hops), axis=-1).reshape(-1, len(hops))
    return Flows.of(route, MESSAGE_BYTES, GPUS_PER_NODE)


def whole_cluster():
    """Every node with every other, spines in turn: all leaves send as much to each."""
    source, target = np.nonzero(~np.eye(NODES, dtype=bool))
    return fabric_flows(source, target, (source + target) % SPINES)


def random_groups():
    """32 groups of 8 nodes that lie anywhere, spines at random: flows meet on their way."""
    rng = np.random.default_rng(0)
    groups = rng.permutation(NODES).reshape(-1, GROUP)
    one, other = np.nonzero(~np.eye(GROUP, dtype=bool))
    source, target = groups[:, one].ravel(), groups[:, other].ravel()
    return fabric_flows(source, target, rng.integers(SPINES, size=(PLANES, len(source))))


def skewed_exchange(ranks=64):
    """Each rank with every other, sizes at random."""
    source, target = np.nonzero(~np.eye(ranks, dtype=bool))
    sizes = np.random.default_rng(0).lognormal(0, 0.3, len(source)) * MESSAGE_BYTES
    return Flows.of(np.stack([source, ranks + target], axis=1), sizes)


def timed(table, what, flows, bytes_per_s, batch=0.01, repeats=3):
    return table.timed(
        what,
        lambda: finish(flows, bytes_per_s, batch),
        lambda times: (len(flows), 1, len(times.end_s)),
        repeats,
    )


def test_an_exchange_of_the_whole_cluster_has_a_closed_form(table):
    flows = whole_cluster()
    assert len(flows) == 522_240
    times = timed(table, "balanced, closed form", flows, capacities(), repeats=5)
    assert (times.closed_form, times.allocations) == (True, 0)
    per_nic_s = (NODES - 1) * GPUS_PER_NODE * MESSAGE_BYTES / NIC_BYTES_PER_S
    assert times.end_s == pytest.approx(per_nic_s, rel=1e-12)


def test_random_groups_meet_on_uplinks(table):
    flows = random_groups()
    assert len(flows) == 14_336
    exact = timed(table, "random groups, exact", flows, capacities(), 0, repeats=1)
    assert exact.allocations > 1_000
    late = timed(table, "random groups, 1 %", flows, capacities())
    assert late.allocations < 400
    assert late.last_s == pytest.approx(exact.last_s, rel=0.01)
    bound_s = (link_bytes(flows, LINKS) / capacities()).max()
    assert late.last_s >= bound_s * (1 - 1e-12)
    tell("random groups", exact, late)


def test_a_skewed_exchange(table):
    flows, bytes_per_s = skewed_exchange(), np.full(128, NIC_BYTES_PER_S)
    exact = timed(table, "skewed, exact", flows, bytes_per_s, 0, repeats=1)
    assert exact.allocations == len(flows) == 4_032
    late = timed(table, "skewed, 1 %", flows, bytes_per_s, repeats=5)
    assert late.allocations < 250
    assert exact.last_s <= late.last_s <= exact.last_s * 1.01
    tell("skewed", exact, late)


def test_skewed_groups_of_a_whole_cluster(table):
    """129,024 flows of 32 groups of 64 ranks on links of their own: each on a clock of its own."""
    ranks, groups = 64, 32
    source, target = np.nonzero(~np.eye(ranks, dtype=bool))
    first = 2 * ranks * np.arange(groups)[:, None]
    route = np.stack([first + source, first + ranks + target], axis=-1).reshape(-1, 2)
    sizes = np.random.default_rng(0).lognormal(0, 0.3, len(route)) * MESSAGE_BYTES
    bytes_per_s = np.full(2 * ranks * groups, NIC_BYTES_PER_S)
    flows = Flows.of(route, sizes)
    assert len(flows) == 129_024
    late = timed(table, "skewed groups, 1 %", flows, bytes_per_s, repeats=1)
    assert late.allocations < 250 * groups


def tell(what, exact, late):
    """Print what batching saves and costs."""
    sys.stdout.write(
        f"\n{what}: {exact.allocations:,} divisions, {late.allocations:,} at 1 %; "
        f"the last end is {late.last_s / exact.last_s - 1:+.3%}\n"
    )
