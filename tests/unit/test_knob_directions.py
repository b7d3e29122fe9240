"""Links, domains and fabrics turned one by one: steps go where physics says."""

from functools import cache

import pytest

from hwmodels.errors import InputError
from hwmodels.prices import PRICES
from simulator import Experiment, run
from simulator.driver.point import point_of
from simulator.driver.program import program_of
from simulator.tell.network import network_facts

SHORT = {"batch.sequences": 4096}
RTOL = 1e-9


def changed(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return Experiment.load("deepseek-v3-pretrain", SHORT | dotted)


def step_s(**changes):
    return run(changed(**changes)).metrics.step_time_s


@cache
def base_s():
    return step_s()


def domain(gpus, nodes):
    """Nodes of so many GPUs, a NIC for each; of what they have the job takes 2,048."""
    return {"cluster__node__gpus": gpus, "cluster__node__nics": gpus, "cluster__nodes": nodes,
            "plan__dp": 128}  # fmt: skip


SLOWER = {
    "half the NVLink": {"cluster__node__chip__nvlink_bytes_per_s": "100 GB/s"},
    "half the NIC": {"cluster__node__nic__link_bytes_per_s": "200 Gb/s"},
    "PCIe that starves NICs": {"cluster__node__pcie_bytes_per_s": "25 GB/s"},
    "slow switches": {"cluster__fabric__hop_latency_s": "4.5 us"},
    "slow hosts": {"cluster__fabric__host_latency_s": "23.5 us"},
    "slow NVLink messages": {"cluster__node__scale_up__latency_s": "33 us"},
    "flows that collide": {"communication__routing": "ecmp"},
    "RoCE": {"cluster": "h800-2048-roce"},
    "few SMs": {"communication__sms": 10},
    "more nodes a token": {"communication__routed_nodes_max": 8},
}
FASTER = {
    "NVLink of an H100": {"cluster__node__chip__nvlink_bytes_per_s": "450 GB/s"},
    "NICs as fast as PCIe": {
        "cluster__node__nic__link_bytes_per_s": "800 Gb/s",
        "cluster__fabric__link_bytes_per_s": "800 Gb/s",
    },
    "fewer nodes a token": {"communication__routed_nodes_max": 2},
    "an engine": {"cluster__node__chip__exchange_engine": True},
}


@pytest.mark.parametrize("case", SLOWER)
def test_what_takes_away_makes_a_step_longer(case):
    assert step_s(**SLOWER[case]) > base_s() * (1 + RTOL)


@pytest.mark.parametrize("case", FASTER)
def test_what_adds_makes_it_shorter(case):
    assert step_s(**FASTER[case]) < base_s() * (1 - RTOL)


def test_wider_nics_are_worth_more_where_pcie_feeds_them():
    wide = FASTER["NICs as fast as PCIe"]
    assert step_s(**wide, cluster__node__pcie_bytes_per_s="126 GB/s") < step_s(**wide)


def test_adaptive_routing_is_worth_most_on_one_plane():
    """On eight planes a group of 64 sits under a leaf; on one, hashed flows collide above it."""
    one = {"cluster": "h800-2048-ft2"}
    assert step_s(**one) == pytest.approx(base_s(), rel=1e-3)
    loss = step_s(**one, communication__routing="ecmp") / step_s(**one)
    assert loss > step_s(communication__routing="ecmp") / base_s() > 1.001


def test_planes_are_worth_switches_and_not_seconds():
    """On four planes a group of 64 no longer fits under a leaf: two switches more on its way."""
    prices = PRICES.load("isca25-table3")
    assert 1 < step_s(cluster__fabric__planes=4) / base_s() < 1.0001
    eight, one = (
        network_facts(changed(cluster__fabric__planes=planes, cluster__nodes=nodes).cluster, prices)
        for planes, nodes in ((8, 2048), (1, 256))
    )
    assert eight["endpoints"] == 8 * one["endpoints"]
    assert eight["diameter_switches"] == one["diameter_switches"] == 3


# Scale-up domains of 8 to 576 GPUs


@pytest.mark.parametrize(("gpus", "nodes"), [(64, 32), (128, 16), (256, 8), (512, 4), (576, 4)])
def test_groups_inside_one_domain_take_nvlink_only(gpus, nodes):
    """All expert groups of 64 are inside one where domains hold a whole number of them."""
    experiment = changed(**domain(gpus, nodes))
    routing = program_of(experiment).routing
    assert [statistics.nodes for statistics in routing] == [1]
    pricer = point_of(experiment).pricer.exchanges
    narrow = {"cluster__node__nic__link_bytes_per_s": "100 Gb/s"}
    slow = point_of(changed(**domain(gpus, nodes), **narrow)).pricer.exchanges
    assert {key: rates.nvlink_bytes_per_s for key, rates in pricer.rates.ports.items()} == {
        key: rates.nvlink_bytes_per_s for key, rates in slow.rates.ports.items()
    }
    assert run(experiment).metrics.step_time_s < base_s()


def test_groups_that_straddle_two_domains_take_the_fullest_port():
    """72 GPUs: of groups of 64 some lie in one, others 56 and 8, whose few forward for many."""
    routing = program_of(changed(**domain(72, 29))).routing
    members = {statistics.members for statistics in routing}
    assert (64,) in members
    assert (8, 56) in members
    whole = step_s(**domain(64, 32))
    assert step_s(**domain(72, 29)) > whole


def test_larger_domains_are_no_worse_while_groups_fill_them_evenly():
    inside = step_s(**domain(64, 32))
    assert inside < step_s(**domain(32, 64)) < base_s()
    assert inside < step_s(**domain(16, 128)) < base_s()


REFUSED = {
    "a domain beyond all counting": (
        domain(4097, 1), "cluster.node.gpus: input should be less than or equal to 4096"
    ),
    "NICs that GPUs cannot share": (
        domain(72, 29) | {"cluster__node__nics": 5},
        "nics: must divide or be a multiple of gpus (72), got 5",
    ),
    "GPUs that no switch joins": (
        {"cluster__node__scale_up__switched": False},
        "cluster.node.scale_up.switched: must be true, as links of single pairs of GPUs are not "
        "routed, got false for node h800x8",
    ),
    "planes that NICs do not reach": (
        {"cluster__fabric__planes": 16}, "planes: must divide the 8 NIC ports of a node, got 16"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(case):
    changes, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        changed(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
