"""Switches that copy a dispatched token, and sum a combined one: what NICs still carry."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hwmodels.cluster import CLUSTERS
from hwmodels.fabrics import FabricSpec
from simulator import Experiment, run
from simulator.network.comm_times import Slow
from simulator.network.exchange_pricer import ExchangePricer, once_on_nics
from simulator.network.group_ports import GroupPorts
from simulator.network.machine import Machine
from simulator.network.moe_exchange import ExpertTraffic, moe_exchange
from tests.layer_work import exchange
from workloads.blocks.moe import MoESpec
from workloads.model import MODELS
from workloads.routing import copies_on

V3 = MODELS.load("deepseek-v3").moe
FREE = MoESpec(routed_experts=64, top_k=4, expert_width=64)
CLUSTER = CLUSTERS.load("h800-2048-mpft")
EIGHT = copies_on(V3, (8,) * 8)


def with_abilities(cluster=CLUSTER, **abilities):
    fabric = cluster.fabric.model_copy(update=abilities)
    return cluster.model_copy(update={"fabric": fabric})


def pricer(routing=EIGHT, **abilities):
    return ExchangePricer.of(Machine.of_ports(with_abilities(**abilities), routing=(routing,)))


# How many tokens leave


@pytest.mark.parametrize("nodes", [1, 2, 4, 8])
def test_any_of_some_nodes_is_what_is_not_drawn_from_the_others(nodes):
    """Without groups, 4 of 64 experts: 1 - C(64 - 64 j / n, 4) / C(64, 4)."""
    routing = copies_on(FREE, (2,) * nodes)
    for named in range(nodes + 1):
        missed = math.comb(64 - 64 * named // nodes, 4) / math.comb(64, 4)
        assert routing.any_of(range(named)) == pytest.approx(1 - missed, rel=1e-12)
    assert routing.any_of([0]) == pytest.approx(routing.node_hits[0], rel=1e-12)


def test_any_of_one_drawn_node_is_its_hits():
    """V3's groups are eight nodes: four of them at most, so that any five are met for certain."""
    assert EIGHT.any_of([3]) == pytest.approx(EIGHT.nodes_per_token / 8, rel=1e-12)
    assert [EIGHT.any_of(range(named)) for named in (0, 8)] == [0, 1]
    chances = [EIGHT.any_of(range(named)) for named in range(9)]
    assert (np.diff(chances) >= 0).all()
    assert (np.diff(chances, 2) <= 1e-12).all()  # the next node adds ever less


def test_where_nodes_hold_unlike_many_it_is_the_most_it_can_be():
    routing = copies_on(FREE, (6, 2))
    assert routing.none_of == ()
    assert routing.any_of([1]) == routing.node_hits[1]
    assert routing.any_of([0, 1]) == 1.0


# What NICs carry


def test_a_token_is_sent_once_and_received_as_often_as_before():
    """3.46 copies out become at most one; what comes in, and what NVLink passes on, stays."""
    plain, once = GroupPorts.of(EIGHT), GroupPorts.of(EIGHT, once=True)
    assert plain.nic == pytest.approx(EIGHT.remote_nodes_per_token, rel=1e-12)
    assert once.nic * once.nic_sent == pytest.approx(EIGHT.any_of(range(7)), rel=1e-12)
    assert 0.99 < EIGHT.any_of(range(7)) <= 1.0
    for name in ("nic", "nic_received", "nvlink", "nvlink_sent", "nvlink_received"):
        assert np.array_equal(getattr(once, name), getattr(plain, name))


@pytest.mark.parametrize("members", [(8,), (8, 8), (8, 4), (6, 2), (4, 4, 4, 4), (8,) * 32])
def test_it_never_adds_bytes_to_a_port(members):
    for moe in (V3, FREE):
        if moe.routed_experts % sum(members):
            continue
        plain, once = (GroupPorts.of(copies_on(moe, members), each) for each in (False, True))
        assert once.nic <= plain.nic
        for name in ("nic_sent", "nic_received"):
            now, was = once.nic * getattr(once, name), plain.nic * getattr(plain, name)
            assert (now <= was * (1 + 1e-12)).all()
        assert once.nvlink == plain.nvlink


def test_fabrics_say_what_they_do():
    assert once_on_nics(CLUSTER.fabric) == ()
    both = with_abilities(multicast=True, reduction=True)
    assert once_on_nics(both.fabric) == ("dispatch", "combine")
    assert once_on_nics(CLUSTERS.load("gb200-nvl72").fabric) == ()
    assert both.fabric.shape == CLUSTER.fabric.shape  # wired as it was
    assert "multicast" not in FabricSpec.kinds["scale_up_only"].model_fields


def test_a_matrix_of_routes_is_sent_once_too():
    """By one pass over the matrix; the busiest port is then one that receives."""
    for direction, name, way in (
        ("dispatch", "multicast", "nic into"),
        ("combine", "reduction", "nic out of"),
    ):
        traffic = ExpertTraffic(64, tokens=512, moe=V3)
        plain, once = (
            moe_exchange(direction, "normal", traffic, cluster)
            for cluster in (CLUSTER, with_abilities(**{name: True}))
        )
        assert once.slowest == f"{way} gpu 0"
        assert replace(once, slowest="") == replace(plain, slowest="")


# What it is worth


@pytest.mark.parametrize("kind", ["dispatch", "combine"])
def test_an_even_exchange_is_no_faster_for_as_much_arrives(kind):
    """A finding: NICs send and receive at once, and the receiving side binds."""
    load = np.random.default_rng(0).lognormal(0, 0.2, (5, 64))
    load /= load.mean(axis=-1, keepdims=True)
    comm = exchange(kind, tokens=4096)
    plain, once = (
        each.times(comm, np.vstack([np.ones(64), load]))
        for each in (pricer(), pricer(multicast=True, reduction=True))
    )
    assert np.array_equal(once.seconds, plain.seconds)
    assert plain.lighter_s is plain.nic_s
    share = EIGHT.any_of(range(7)) / EIGHT.remote_nodes_per_token
    assert once.lighter_s == pytest.approx(plain.nic_s[0] * share, rel=1e-12)


def test_each_ability_is_of_one_kind_of_exchange():
    for name, kind, other in (("multicast", "dispatch", "combine"),
                              ("reduction", "combine", "dispatch")):  # fmt: skip
        able = pricer(**{name: True})
        spared, carried = (able.times(exchange(each, 4096), np.ones(64)) for each in (kind, other))
        assert spared.lighter_s < spared.nic_s / 3
        assert carried.lighter_s is carried.nic_s


def test_it_is_faster_where_sending_binds():
    """A NIC at a quarter of its rate on a node that receives half of the mean: out 3.46 copies at a
    quarter, then one; in 1.73 at a quarter.
    """
    load = np.where(np.arange(64) < 8, 0.5, 1 + 0.5 / 7)
    slow = Slow(nic=np.where(np.arange(64) == 3, 4.0, 1.0))
    comm = exchange("dispatch", tokens=4096)
    plain, once = (each.times(comm, load, slow) for each in (pricer(), pricer(multicast=True)))
    copies = EIGHT.remote_nodes_per_token
    rate = comm.token_bytes / 50e9
    assert plain.nic_s == pytest.approx(4 * copies * rate, rel=1e-12)
    assert once.nic_s == pytest.approx(4 * 0.5 * copies * rate, rel=1e-12)
    assert once.lighter_s == pytest.approx(4 * EIGHT.any_of(range(7)) * rate, rel=1e-12)


def test_groups_that_lie_in_several_ways_have_each_their_own():
    """One of 8 GPUs in a node, one that straddles two: as without, where nothing is spared."""
    ways = tuple(copies_on(FREE, members) for members in ((8,), (4, 4)))
    able = ExchangePricer.of(
        Machine.of_ports(with_abilities(multicast=True), routing=ways)
    )  # fmt: skip
    plain = ExchangePricer.of(Machine.of_ports(CLUSTER, routing=ways))
    comm, layout = exchange("dispatch", tokens=512), np.array([0, 1])
    once, was = (each.times(comm, np.ones((2, 8)), layout=layout) for each in (able, plain))
    assert np.array_equal(once.seconds, was.seconds)
    assert np.array_equal(once.lighter_s, was.nic_s)  # of two nodes a token goes to one other


# Where other traffic meets it

SHARED = {"communication.nics": "shared"}
ABLE = {"cluster.fabric.multicast": True, "cluster.fabric.reduction": True}


@pytest.mark.parametrize("play", ["folded", "explicit"])
def test_messages_and_gradients_get_what_exchanges_no_longer_need(play, small_experiment):
    """On shared NICs less is delayed; on separate ones nothing changes."""
    fits = {"cluster.node.chip.hbm_capacity_bytes": "8 TB", "ranks.play": play, "plan.ep": 16}

    def step(**changes):
        return run(small_experiment(*(fits | changes).items()))

    separate, able = step(), step(**ABLE)
    assert able.metrics == separate.metrics
    met, spared = step(**SHARED), step(**SHARED, **ABLE)
    assert separate.metrics.step_time_s < spared.metrics.step_time_s < met.metrics.step_time_s


def test_a_preset_without_abilities_says_so():
    fabric = Experiment.load("deepseek-v3-pretrain").cluster.fabric
    assert (fabric.multicast, fabric.reduction) == (False, False)
