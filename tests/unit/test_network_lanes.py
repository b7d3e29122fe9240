"""Which NIC ports carry what one GPU sends another, and who hands it over."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError
from simulator.network.lanes import lanes
from simulator.network.links import Network
from tests.clusters import cluster

NETWORK = Network.of(cluster(nodes=4))
FAT = Network.of(cluster("h800-2048-ft2", nodes=4))


def ends(network, source, target, forward="sender"):
    """Return [(port out, port in, share)] as (node, port) pairs."""
    found = lanes(network, source, target, forward)
    ports = network.cluster.node.ports
    return [
        (divmod(int(a), ports), divmod(int(b), ports), float(share))
        for a, b, share in zip(found.source, found.target, found.share, strict=True)
    ]


def test_gpus_of_one_plane_meet_directly():
    assert ends(NETWORK, 3, 8 + 3) == [((0, 3), (1, 3), 1.0)]


def test_across_planes_the_sender_or_the_receiver_forwards():
    """GPU 3 to GPU 5 of node 1: out of the NIC of plane 5, or into that of plane 3."""
    assert ends(NETWORK, 3, 8 + 5) == [((0, 5), (1, 5), 1.0)]
    assert ends(NETWORK, 3, 8 + 5, "receiver") == [((0, 3), (1, 3), 1.0)]


def test_in_one_fat_tree_own_ports_reach_each_other():
    assert ends(FAT, 3, 8 + 5) == [((0, 3), (1, 5), 1.0)]


def test_rails_are_kept_where_that_saves_switches():
    """Nodes under one leaf of a rail: one switch on the rail against three across rails."""
    rails = Network.of(cluster("h800-2048-mrft", nodes=64))
    assert ends(rails, 3, 8 + 5) == [((0, 5), (1, 5), 1.0)]
    assert ends(rails, 3, 8 * 40 + 5) == [((0, 3), (40, 5), 1.0)]


def test_nics_of_several_ports_use_all_planes_alike():
    several = Network.of(cluster(nodes=2, node__nic__ports=4, fabric__planes=4))
    assert ends(several, 2, 8 + 5) == [((0, 8 + p), (1, 20 + p), 0.25) for p in range(4)]


def test_a_message_of_one_gpu_has_one_port_where_its_own_is_dead_and_a_slow_one_is_kept():
    broken = Network.of(cluster(nodes=4, faults=["nic:1.5", "nic:2.5=0.1"]))
    assert ends(broken, 3, 8 + 5) == [((0, 7), (1, 7), 1.0)]
    assert ends(broken, 3, 16 + 5) == [((0, 5), (2, 5), 1.0)]


def test_detours_of_different_nodes_part_company():
    """One dead plane of eight: messages of GPU 3 to 14 nodes go by all others, two each."""
    broken = Network.of(cluster(nodes=16, faults=["plane:3"]))
    target = np.arange(1, 15) * 8 + 3
    found = ends(broken, np.full(14, 3), target)
    ports = [source[1] for source, _, _ in found]
    assert sorted(ports) == sorted([p for p in range(8) if p != 3] * 2)


def test_messages_by_dead_ports_go_by_others_that_nothing_uses():
    """GPUs 4, 5 and 6 to those beside them: 4 has its port; 5 and 6 get 2 and 1."""
    broken = Network.of(cluster(nodes=4, faults=["nic:1.5", "nic:0.6"]))
    found = ends(broken, np.array([4, 5, 6]), np.array([12, 13, 14]))
    assert found == [((0, p), (1, p), 1.0) for p in (4, 2, 1)]


def test_where_all_gpus_send_a_dead_port_is_spread_over_those_left():
    broken = Network.of(cluster(nodes=4, faults=["nic:1.5"]))
    found = ends(broken, np.arange(8), np.arange(8, 16))
    living = [p for p in range(8) if p != 5]
    assert found[:7] == [((0, p), (1, p), 1.0) for p in living]
    assert [(a, b) for a, b, _ in found[7:]] == [((0, p), (1, p)) for p in living]
    assert [share for _, _, share in found[7:]] == pytest.approx([1 / 7] * 7)


def test_an_end_that_lives_is_kept_where_any_port_reaches_it():
    broken = Network.of(cluster("h800-2048-ft2", nodes=4, faults=["nic:0.3"]))
    assert ends(broken, 3, 8 + 5) == [((0, 5), (1, 5), 1.0)]
    assert ends(broken, 8 + 5, 3) == [((1, 5), (0, 5), 1.0)]


def test_nodes_without_a_port_at_the_same_place_use_any_that_reach():
    """In one fat tree: node 0 has port 0 left, node 1 port 1."""
    faults = [f"nic:0.{p}" for p in range(1, 8)]
    faults += [f"nic:1.{p}" for p in range(8) if p != 1]
    broken = Network.of(cluster("h800-2048-ft2", nodes=4, faults=faults))
    assert ends(broken, 3, 8 + 5) == [((0, 0), (1, 1), 1.0)]


def test_several_flows_keep_their_shares_apart():
    broken = Network.of(cluster(nodes=4, faults=["nic:1.5", "plane:2"]))
    source, target = np.array([0, 1, 2, 3]), np.array([8 + 5, 8 + 1, 16 + 2, 16 + 3])
    found = lanes(broken, source, target)
    total = np.bincount(found.flow, weights=found.share)
    assert total == pytest.approx(1)
    assert np.bincount(found.flow).tolist() == [1, 1, 1, 1]
    nodes = found.source // 8, found.target // 8
    assert np.array_equal(nodes[0], source[found.flow] // 8)
    assert np.array_equal(nodes[1], target[found.flow] // 8)


def test_nodes_that_are_cut_off_are_named():
    faults = [f"nic:1.{p}" for p in range(4)] + [f"nic:2.{p}" for p in range(4, 8)]
    broken = Network.of(cluster(nodes=4, faults=faults))
    ends(broken, 0, 8)
    with pytest.raises(InfeasibleError, match="node 1 are cut off from those on node 2"):
        lanes(broken, np.array([8, 0]), np.array([16, 8]))
