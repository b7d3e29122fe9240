"""Prices of what crosses links: exchanges, the rates they run at, messages and rings."""

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.cluster import CLUSTERS
from hwmodels.formats import FORMATS
from simulator.price.collectives import (
    ExchangePricer,
    link_rates,
    message_s,
    ring_parts,
    scalar_sum_s,
)
from simulator.price.group_ports import GroupPorts
from tests.layer_work import exchange
from tests.prices import PRICER, PROFILE, RATES
from workloads.placement import Replicas
from workloads.routing import RoutingStatistics

BF16, FP8 = FORMATS["bf16"], FORMATS["fp8_1x128"]
CLUSTER = CLUSTERS.load("h800-2048-mpft")


# Exchange: 1,024 tokens of 1,000 bytes on 2 nodes of 4 GPUs; a token goes to 2 nodes and 4 GPUs

DISPATCH = exchange("dispatch", tokens=1024, hidden=1000, wire=FORMATS["fp8_e4m3"])
COMBINE = exchange("combine", tokens=1024, hidden=1000)
EVEN = np.ones(8)


def test_an_exchange_between_nodes_is_its_nic_bytes_over_its_rate():
    """Half of 2 nodes' copies stay at home: 1.024 MB out, 2.048 MB home, over 10 and 5 GB/s."""
    assert PRICER.exchange_s(DISPATCH, EVEN) == pytest.approx(1e-6 + 1.024e6 / 10e9, rel=1e-12)
    assert PRICER.exchange_s(COMBINE, EVEN) == pytest.approx(1e-6 + 2.048e6 / 5e9, rel=1e-12)


def test_nvlink_is_the_port_where_nics_are_fast():
    """4 GPUs' copies, of which 3/4 leave the GPU: 3.072 MB over 100 GB/s of forwarding."""
    fast = replace(PRICER, rates=replace(RATES, dispatch_nic=1e12))
    assert fast.exchange_s(DISPATCH, EVEN) == pytest.approx(1e-6 + 3.072e6 / 100e9, rel=1e-12)


def test_inside_one_node_nothing_meets_a_nic_and_nvlink_runs_at_its_own_rate():
    """4 GPUs of one node: 3/4 of 2.5 copies over 200 GB/s."""
    routing = RoutingStatistics(nodes=1, gpus=4, nodes_per_token=1.0, gpus_per_token=2.5)
    pricer = ExchangePricer(RATES, (GroupPorts.of(routing),))
    assert pricer.exchange_s(DISPATCH, np.ones(4)) == pytest.approx(
        5e-7 + 1.024e6 * 2.5 * 0.75 / 200e9, rel=1e-12
    )


def test_an_exchange_is_as_slow_as_its_slowest_port():
    """A NIC carries its node's mean load, NVLink its own GPU's: nodes of 0.7 and 1.3."""
    load = np.array([0.7, 0.7, 0.7, 0.7, 1.3, 1.3, 1.3, 1.3])
    assert PRICER.exchange_s(DISPATCH, load) == pytest.approx(
        1e-6 + 1.3 * 1.024e6 / 10e9, rel=1e-12
    )
    one_hot = np.array([1, 1, 1, 1, 0.2, 1.8, 1, 1])
    assert PRICER.exchange_s(DISPATCH, one_hot) == PRICER.exchange_s(DISPATCH, EVEN)
    fast = replace(PRICER, rates=replace(RATES, dispatch_nic=1e12))
    assert fast.exchange_s(DISPATCH, one_hot) == pytest.approx(
        1e-6 + 1.8 * 3.072e6 / 100e9, rel=1e-12
    )


def test_many_exchanges_at_once_cost_what_each_costs_alone():
    """Loads of two draws of three layers, and NICs of one layer; to the last bit."""
    rng = np.random.default_rng(0)
    load = rng.lognormal(0, 0.3, (2, 3, 8))
    load /= load.mean(axis=-1, keepdims=True)
    nic, nvlink = rng.uniform(1, 3, (3, 8)), rng.uniform(1, 30, (2, 1, 8))
    for comm in (DISPATCH, COMBINE):
        together = PRICER.exchange_s(comm, load, nic, nvlink)
        plain = PRICER.exchange_s(comm, load)
        assert together.shape == plain.shape == (2, 3)
        assert len({*together.ravel().tolist(), *plain.ravel().tolist()}) == 12
        for draw, slot in np.ndindex(2, 3):
            own = load[draw, slot]
            assert plain[draw, slot] == PRICER.exchange_s(comm, own)
            alone = PRICER.exchange_s(comm, own, nic[slot], nvlink[draw, 0])
            assert together[draw, slot] == alone


def test_a_slow_nic_carries_its_nodes_mean_load_at_its_own_rate():
    """NICs of 102.4 us, NVLink of 30.72 us. One NIC of 8 at half its rate holds all up; a more
    loaded node hides a slowdown up to its own load. What a node receives may be half of the mean,
    but what its NICs carry the other way is its own tokens, and those are the mean.
    """
    slow = np.where(np.arange(8) == 5, 2.0, 1.0)
    assert PRICER.exchange_s(DISPATCH, EVEN, slow) == pytest.approx(
        1e-6 + 2 * 1.024e6 / 10e9, rel=1e-12
    )
    load = np.array([1.5, 1.5, 1.5, 1.5, 0.5, 0.5, 0.5, 0.5])
    for slowdown, held_up in ((1.2, 1.5), (2.0, 2.0), (4.0, 4.0)):
        slow = np.where(np.arange(8) == 5, slowdown, 1.0)
        assert PRICER.exchange_s(DISPATCH, load, slow) == pytest.approx(
            1e-6 + held_up * 1.024e6 / 10e9, rel=1e-12
        )


def test_a_slow_nvlink_shows_once_it_is_slower_than_the_nics():
    """30.72 us against 102.4 us: not at 3 times, at 4 times; and only on the GPU it is."""
    for slowdown, seconds in ((3.0, 1.024e6 / 10e9), (4.0, 4 * 3.072e6 / 100e9)):
        slow = np.where(np.arange(8) == 2, slowdown, 1.0)
        assert PRICER.exchange_s(DISPATCH, EVEN, nvlink_slowdown=slow) == pytest.approx(
            1e-6 + seconds, rel=1e-12
        )
    load = np.array([1, 1, 0.2, 1, 1.8, 1, 1, 1])
    fast = replace(PRICER, rates=replace(RATES, dispatch_nic=1e12))
    for slowdown, held_up in ((1.7, 1.8), (4.0, 4.0)):  # what it sends on is a load of 1
        slow = np.where(np.arange(8) == 2, slowdown, 1.0)
        assert fast.exchange_s(DISPATCH, load, nvlink_slowdown=slow) == pytest.approx(
            1e-6 + held_up * 3.072e6 / 100e9, rel=1e-12
        )


@pytest.mark.parametrize("seed", range(5))
def test_no_exchange_is_faster_than_its_bytes_over_the_wire(seed):
    """The busiest node's bytes over its NICs at datasheet rate bound every direction and load."""
    load = np.random.default_rng(seed).lognormal(0, 0.3, 64)
    load /= load.mean()
    routing = RoutingStatistics(nodes=8, gpus=64, nodes_per_token=3.95, gpus_per_token=7.5)
    wire = CLUSTER.node.scale_out_bytes_per_s_per_gpu
    for parameters in (None, PROFILE.communication):
        ports = (GroupPorts.of(routing),)
        pricer = ExchangePricer(link_rates(CLUSTER, parameters, 20), ports)
        busiest = load.reshape(8, 8).mean(axis=1).max()
        for direction, size in (("dispatch", 7392), ("combine", 14336)):
            leaves = 4096 * size * 3.95 * 7 / 8
            assert (
                pricer.exchange_s(exchange(direction, tokens=4096), load) >= leaves * busiest / wire
            )


def test_rates_without_a_profile_are_the_datasheets():
    rates = link_rates(CLUSTER, None, 20)
    assert (rates.dispatch_nic, rates.combine_nic, rates.message_nic) == (50e9, 50e9, 50e9)
    assert (rates.nvlink, rates.forwarding_nvlink) == (200e9, 200e9)
    assert (rates.dispatch_beside_compute, rates.combine_beside_compute) == (1, 1)
    assert rates.latency_s == pytest.approx(3.7e-6, rel=1e-9)  # ISCA'25 Table 5, across leaves


def test_rates_grow_with_the_sms_of_communication_up_to_saturation():
    """In proportion below the profile's saturating number; NVLink alone and messages need none."""
    full = PROFILE.communication.exchange.saturating_sms
    half, saturated, more = (
        link_rates(CLUSTER, PROFILE.communication, sms) for sms in (full / 2, full, 2 * full)
    )
    for name in ("dispatch_nic", "combine_nic", "forwarding_nvlink"):
        assert getattr(half, name) == pytest.approx(getattr(saturated, name) / 2, rel=1e-12)
    assert (half.nvlink, half.message_nic) == (saturated.nvlink, saturated.message_nic)
    assert saturated == more
    assert saturated.dispatch_nic == PROFILE.communication.exchange.dispatch_nic_bytes_per_s


def test_on_other_links_achieved_rates_scale_with_the_datasheet():
    """Twice the NIC, twice each NIC rate; NVLink rates stay."""
    node = CLUSTER.node
    nic = node.nic.model_copy(update={"link_bytes_per_s": 100e9})
    wide = node.model_copy(update={"nic": nic, "pcie_bytes_per_s": 126e9})
    base = link_rates(CLUSTER, PROFILE.communication, 20)
    rates = link_rates(CLUSTER.model_copy(update={"node": wide}), PROFILE.communication, 20)
    for name in ("dispatch_nic", "combine_nic", "message_nic"):
        assert getattr(rates, name) == pytest.approx(2 * getattr(base, name), rel=1e-12)
    assert rates.nvlink == base.nvlink
    assert rates.forwarding_nvlink == base.forwarding_nvlink


def test_nics_are_scaled_as_far_as_pcie_feeds_them():
    node = CLUSTER.node
    wide = node.model_copy(update={"nic": node.nic.model_copy(update={"link_bytes_per_s": 100e9})})
    rates = link_rates(CLUSTER.model_copy(update={"node": wide}), PROFILE.communication, 20)
    base = link_rates(CLUSTER, PROFILE.communication, 20)
    assert rates.dispatch_nic == pytest.approx(63 / 50 * base.dispatch_nic, rel=1e-12)
    assert rates.basis.endswith(", NICs as fast as PCIe feeds them")
    assert "PCIe" not in base.basis


# Messages and rings


def test_a_message_takes_its_latency_and_its_bytes_over_one_nic():
    assert message_s(RATES, 0, crosses=True) == 1e-6
    assert message_s(RATES, 20e9, crosses=True) == 1 + 1e-6


def test_a_message_inside_a_node_takes_nvlink():
    assert message_s(RATES, 200e9, crosses=False) == 1 + 5e-7
    each = message_s(RATES, 200e9, np.array([[True, False]]))
    assert each.tolist() == [[10 + 1e-6, 1 + 5e-7]]


def ring_s(rates, size_bytes, *by_node):
    latency_s, nic_s, nvlink_s = ring_parts(rates, size_bytes, Replicas(by_node))
    return latency_s + max(nic_s, nvlink_s)


def test_a_ring_moves_all_but_its_own_share_and_hops_past_every_member():
    """size (p - 1) / p over the rate, and p - 1 latencies. With one member a node, a NIC each."""
    assert ring_s(RATES, 40e9, 1, 1, 1, 1) == pytest.approx(40 * 3 / 4 / 20 + 3e-6, rel=1e-12)
    assert ring_s(RATES, 40e9, 1) == 0


def test_a_ring_inside_a_node_runs_on_nvlink():
    assert ring_s(RATES, 40e9, 8) == pytest.approx(40 * 7 / 8 / 200 + 7 * 5e-7, rel=1e-12)


@pytest.mark.parametrize(("per_node", "rate"), [(2, 40), (8, 160), (16, 200)])
def test_rings_over_whole_nodes_use_every_nic_of_their_members(per_node, rate):
    """NICs of 20 GB/s each, and never more than NVLink's 200 GB/s."""
    nodes = (per_node,) * (64 // per_node)
    assert ring_s(RATES, 40e9, *nodes) == pytest.approx(40 * 63 / 64 / rate + 63e-6, rel=1e-12)
    wide = replace(RATES, message_nic=1e12)
    assert ring_s(wide, 40e9, *nodes) == pytest.approx(40 * 63 / 64 / 200 + 63e-6, rel=1e-12)


@pytest.mark.parametrize(("by_node", "rate"), [((1, 8, 8), 20), ((3, 5), 60), ((2, 8), 40)])
def test_the_emptiest_node_of_a_ring_has_as_many_nics_as_members(by_node, rate):
    """As many rings run side by side: each passes every node."""
    members = sum(by_node)
    seconds = 40 * (members - 1) / members / rate + (members - 1) * 1e-6
    assert ring_s(RATES, 40e9, *by_node) == pytest.approx(seconds, rel=1e-12)


def test_rings_of_one_member_a_node_do_not_need_nvlink():
    slow = replace(RATES, nvlink=1.0)
    assert ring_s(slow, 40e9, 1, 1) == ring_s(RATES, 40e9, 1, 1)


def test_a_number_is_summed_in_a_chain_a_node_and_a_tree_of_nodes_up_and_down():
    assert scalar_sum_s(RATES, Replicas((1,))) == 0
    assert scalar_sum_s(RATES, Replicas((8,))) == pytest.approx(2 * 7 * 5e-7, rel=1e-12)
    for nodes, hops in ((2, 1), (9, 4), (256, 8)):
        expected = 2 * (7 * 5e-7 + hops * 1e-6)
        assert scalar_sum_s(RATES, Replicas((8,) * nodes)) == pytest.approx(expected, rel=1e-12)
    assert scalar_sum_s(RATES, Replicas((3, 8))) == scalar_sum_s(RATES, Replicas((8, 8)))
