"""Prices of exchanges, and the rates they run at."""

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.cluster import CLUSTERS
from hwmodels.errors import SpecError
from hwmodels.formats import FORMATS
from simulator.network.exchange_pricer import NEEDED, ExchangePricer, ExchangeRates
from simulator.network.group_ports import GroupPorts
from simulator.network.machine import Machine
from tests.layer_work import exchange
from tests.prices import PRICER, PROFILE, RATES, exchange_rates
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
    fast = replace(PRICER, rates=exchange_rates(dispatch_nic=1e12))
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
    fast = replace(PRICER, rates=exchange_rates(dispatch_nic=1e12))
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
    fast = replace(PRICER, rates=exchange_rates(dispatch_nic=1e12))
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
        pricer = ExchangePricer(rates_of(CLUSTER, parameters), ports)
        busiest = load.reshape(8, 8).mean(axis=1).max()
        for direction, size in (("dispatch", 7392), ("combine", 14336)):
            leaves = 4096 * size * 3.95 * 7 / 8
            assert (
                pricer.exchange_s(exchange(direction, tokens=4096), load) >= leaves * busiest / wire
            )


def rates_of(cluster, library, sms=20):
    machine = Machine.of_ports(cluster, library, sms)
    return ExchangeRates.of(machine, [1, 8])


def test_rates_without_a_profile_are_the_datasheets():
    rates = rates_of(CLUSTER, None)
    for direction in ("dispatch", "combine"):
        inside, between = (rates.ports[direction, nodes] for nodes in (1, 8))
        assert (between.nic_bytes_per_s, between.nvlink_bytes_per_s) == (50e9, 200e9)
        assert inside.nvlink_bytes_per_s == 200e9
        assert inside.latency_s == 3.33e-6
        # Eight nodes share a leaf: one switch (ISCA'25 Table 5), and NVLink behind it.
        assert between.latency_s == pytest.approx(2.8e-6 + 3.33e-6, rel=1e-9)
    assert (rates.dispatch_beside_compute, rates.combine_beside_compute) == (1, 1)


def test_rates_grow_with_the_sms_of_communication_up_to_saturation():
    """In proportion below the profile's saturating number."""
    exchange = PROFILE.communication.exchange
    full = exchange.saturating_sms
    half, saturated, more = (
        rates_of(CLUSTER, PROFILE.communication, sms) for sms in (full / 2, full, 2 * full)
    )
    for key, ports in saturated.ports.items():
        for name in ("nic_bytes_per_s", "nvlink_bytes_per_s"):
            if key[1] > 1 or name == "nvlink_bytes_per_s":
                slow, fast = getattr(half.ports[key], name), getattr(ports, name)
                assert slow == pytest.approx(fast / 2, rel=1e-12)
    assert saturated.ports == more.ports
    assert saturated.ports["dispatch", 8].nic_bytes_per_s == exchange.dispatch_nic_bytes_per_s


def test_on_other_links_achieved_rates_scale_with_the_datasheet():
    """Twice the NIC, twice each NIC rate; NVLink rates stay."""
    node = CLUSTER.node
    nic = node.nic.model_copy(update={"link_bytes_per_s": 100e9})
    wide = node.model_copy(update={"nic": nic, "pcie_bytes_per_s": 126e9})
    base = rates_of(CLUSTER, PROFILE.communication)
    rates = rates_of(CLUSTER.model_copy(update={"node": wide}), PROFILE.communication)
    for direction in ("dispatch", "combine"):
        wider, was = rates.ports[direction, 8], base.ports[direction, 8]
        assert wider.nic_bytes_per_s == pytest.approx(2 * was.nic_bytes_per_s, rel=1e-12)
        assert wider.nvlink_bytes_per_s == was.nvlink_bytes_per_s


def test_nics_are_scaled_as_far_as_pcie_feeds_them():
    node = CLUSTER.node
    wide = node.model_copy(update={"nic": node.nic.model_copy(update={"link_bytes_per_s": 100e9})})
    rates = rates_of(CLUSTER.model_copy(update={"node": wide}), PROFILE.communication)
    base = rates_of(CLUSTER, PROFILE.communication)
    fed, was = (each.ports["dispatch", 8].nic_bytes_per_s for each in (rates, base))
    assert fed == pytest.approx(63 / 50 * was, rel=1e-12)
    assert rates.basis.endswith(", NICs as fast as PCIe feeds them")
    assert "PCIe" not in base.basis


@pytest.mark.parametrize("name", NEEDED)
def test_a_library_says_what_training_needs_of_it(name):
    owner, _, last = name.rpartition(".")
    library = PROFILE.communication
    if owner:
        lacking = {"exchange": library.exchange.model_copy(update={last: None})}
    else:
        lacking = {last: None}
    with pytest.raises(SpecError, match=f"must have {name} for training, got none"):
        rates_of(CLUSTER, library.model_copy(update=lacking))
