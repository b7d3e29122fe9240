"""Which path a flow takes, and which it takes around what is dead."""

import numpy as np
import pytest

from simulator.network.links import Network
from simulator.network.routing import port_paths, reachable
from tests.clusters import cluster

WIDE = cluster(nodes=256)
PORTS = np.arange(0, 2048, 8)  # of plane 0, 32 a leaf


def fabric_links(network, source, target, flow=0):
    """Return paths as links of the topology."""
    return port_paths(network, source, target, flow) - 2 * network.gpus


def all_pairs(ports):
    source, target = (axis.ravel() for axis in np.meshgrid(ports, ports))
    return source[source != target], target[source != target]


@pytest.mark.parametrize("routing", ["static", "ecmp", "adaptive"])
def test_paths_begin_and_end_at_their_ports_and_hang_together(routing):
    network = Network.of(WIDE, routing)
    source, target = all_pairs(PORTS[::9])
    route = fabric_links(network, source, target)
    assert (route[:, 0] == source).all()
    last = (route >= 0).sum(axis=1) - 1
    assert (route[np.arange(len(route)), last] == 2048 + target).all()
    if routing != "adaptive":
        tail, head = network.topology.tail, network.topology.head
        for hop in range(route.shape[1] - 1):
            on = route[:, hop + 1] >= 0
            assert (head[route[on, hop]] == tail[route[on, hop + 1]]).all()


def test_static_routing_loads_all_uplinks_of_an_all_to_all_alike():
    """By destination: 224 targets elsewhere and 32 uplinks, 7 for each, from each of 32 ports."""
    source, target = all_pairs(PORTS)
    route = port_paths(Network.of(WIDE), source, target)
    between = route[(route >= 0).sum(axis=1) == 4][:, 1:3]
    for hop in range(2):
        _, flows = np.unique(between[:, hop], return_counts=True)
        assert set(flows.tolist()) == {7 * 32}


def test_static_routing_of_shifts_collides_nowhere_in_three_layers():
    """Each port sends to the one `n` pods on: as many links busy as flows, none twice."""
    deep = cluster("h800-2048-ft3", nodes=256)
    topology = deep.topology()
    network = Network.of(deep)
    ports = np.arange(topology.endpoints)
    assert topology.clos.layers == 3
    pod = topology.clos.pod_leaves * 32
    for shift in (32, pod, 3 * 32 + pod):
        route = port_paths(network, ports, (ports + shift) % ports.size)
        used = route[route >= 0]
        assert np.unique(used).size == used.size


def test_ecmp_follows_its_seed_and_tells_flows_apart():
    source, target = all_pairs(PORTS[::5])
    first, again, other = (
        port_paths(Network.of(WIDE, "ecmp", seed), source, target) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    network = Network.of(WIDE, "ecmp")
    assert not np.array_equal(*(port_paths(network, source, target, flow) for flow in (0, 1)))


def test_ecmp_spreads_evenly_over_the_choices():
    """64 flows for each of 32 uplinks of a leaf on average; a fair hash stays within 5 sigma."""
    network = Network.of(WIDE, "ecmp")
    source, target = np.repeat(PORTS[:32], 64), np.tile(PORTS[32:96], 32)
    route = fabric_links(network, source, target)
    _, flows = np.unique(route[:, 1], return_counts=True)
    assert flows.size == 32
    assert np.abs(flows - 64).max() < 5 * np.sqrt(64)


@pytest.mark.parametrize("routing", ["static", "ecmp"])
@pytest.mark.parametrize("fault", ["link:0.3.7", "spine:0.1"])
def test_dead_cables_are_avoided(routing, fault):
    broken = Network.of(cluster(nodes=256, faults=[fault]), routing)
    source, target = all_pairs(PORTS[::7])
    route = port_paths(broken, source, target)
    assert (broken.bytes_per_s[route[route >= 0]] > 0).all()
    whole = port_paths(Network.of(WIDE, routing), source, target)
    alive = ((broken.bytes_per_s[whole] > 0) | (whole < 0)).all(axis=1)
    assert not alive.all()
    assert np.array_equal(route[alive], whole[alive])


def test_adaptive_routing_loses_the_bundles_capacity():
    broken = Network.of(cluster(nodes=256, faults=["link:0.3.7"]), "adaptive")
    whole = Network.of(WIDE, "adaptive")
    lost = whole.bytes_per_s - broken.bytes_per_s
    assert sorted(lost[lost > 0].tolist()) == [50e9, 50e9]


def test_what_reaches_what():
    leafless = Network.of(cluster(nodes=256, faults=["leaf:0.3", "nic:0.1"]))
    assert reachable(leafless, np.array([0, 0, 0]), np.array([8, 9, 3 * 256])).tolist() == [
        True,  # one leaf
        False,  # another plane
        False,  # under the dead leaf
    ]
    assert not reachable(leafless, np.array([1, 9]), np.array([9, 1])).any()
    faults = [f"link:0.1.{uplink}" for uplink in range(32)]
    cut = Network.of(cluster(nodes=256, faults=faults))
    under = 32 * 8
    assert reachable(cut, np.array([under, under]), np.array([under + 8, 0])).tolist() == [
        True,  # under the leaf itself
        False,
    ]
