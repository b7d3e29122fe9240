"""The links of a cluster: numbers, rates after faults, names; which ports are beside which GPU."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, InputError
from simulator.network.links import Network
from simulator.network.placement import place
from simulator.network.run import run_collective
from tests.clusters import cluster

SMALL = cluster(nodes=4)
NETWORK = Network.of(SMALL)


def test_nvlink_comes_first_then_the_fabric():
    links = SMALL.topology().directed_links
    assert len(NETWORK.bytes_per_s) == 2 * 32 + links
    assert set(NETWORK.bytes_per_s[:64]) == {200e9}
    assert set(NETWORK.bytes_per_s[64:]) == {50e9}


def test_achieved_rates_replace_the_datasheets():
    network = Network.of(SMALL, nvlink_bytes_per_s=160e9, nic_bytes_per_s=44e9)
    assert set(network.bytes_per_s[:64]) == {160e9}
    assert network.bytes_per_s[64:] == pytest.approx(44e9, rel=1e-12)
    half = NETWORK.rates(nvlink_efficiency=0.5, nic_efficiency=0.8)
    assert (half[0], half[-1]) == (100e9, 40e9)


def test_faults_of_nics_and_nodes_are_felt():
    network = Network.of(cluster(nodes=4, faults=["nic:1.2=0.5", "node:3"]))
    assert network.bytes_per_s[64 + 10] == 25e9
    assert set(network.bytes_per_s[24:32]) == {0}
    assert set(network.bytes_per_s[64 + 24 : 64 + 32]) == {0}
    assert network.dead_nodes == {3}


def test_adaptive_routing_joins_the_links_of_a_leaf():
    wide = cluster(nodes=64)
    spread, single = Network.of(wide, "adaptive"), Network.of(wide)
    assert spread.bytes_per_s.sum() == single.bytes_per_s.sum()
    first = 2 * 512 + 2 * 512
    assert spread.bytes_per_s[first] == 32 * 50e9
    assert spread.link_name(first) == "all 32 of link:0.0 up"


@pytest.mark.parametrize(
    ("link", "name"),
    [
        (3, "nvlink out of gpu 3"),
        (32 + 3, "nvlink into gpu 3"),
        (64 + 17, "nic:2.1 out"),
        (64 + 32 + 17, "nic:2.1 in"),
    ],
)
def test_links_have_names(link, name):
    assert NETWORK.link_name(link) == name


def test_each_gpu_has_the_ports_of_its_nics():
    assert NETWORK.own_ports.tolist() == [[port] for port in range(8)]
    several = Network.of(cluster(nodes=2, node__nic__ports=4, fabric__planes=4))
    assert several.own_ports[2].tolist() == [8, 9, 10, 11]
    assert several.endpoints_of(np.array([9])).tolist() == [[36, 37, 38, 39]]
    shared = Network.of(cluster(nodes=2, node__nics=4, fabric__planes=4))
    assert shared.own_ports.ravel().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert shared.owner(np.array([1, 5])).tolist() == [2, 10]
    for network in (NETWORK, several, shared):
        gpu = np.arange(16)
        ports = network.endpoints_of(gpu)
        assert network.owns(gpu[:, None], ports).all()
        assert not network.owns(gpu[::-1, None], ports).any()
        assert network.owns(network.owner(ports), ports).all()


def test_bad_networks_are_refused():
    with pytest.raises(InputError, match="routing: unknown 'valiant'"):
        Network.of(SMALL, "valiant")
    with pytest.raises(InputError, match="nic_bytes_per_s: must be above 0"):
        Network.of(SMALL, nic_bytes_per_s=0)
    with pytest.raises(InfeasibleError, match="switched: must be true"):
        Network.of(cluster(nodes=2, node__scale_up__switched=False))
    with pytest.raises(InfeasibleError, match="not routed yet"):
        Network.of(cluster("h800-32928-slim-fly"))


def test_ranks_on_a_dead_node_are_refused_by_name():
    network = Network.of(cluster(nodes=4, faults=["node:1"]))
    with pytest.raises(InfeasibleError, match="node 1 is down, and with it GPUs 8 to 15"):
        run_collective("all_gather", 1e6, place(SMALL, 16)[0], network)
    run_collective("all_gather", 1e6, range(16, 32), network)
