"""The slowest-port formula against counting by hand, flows, and training's own price."""

import numpy as np
import pytest

from hwmodels.cluster import CLUSTERS
from hwmodels.costs.exchange import Direction
from hwmodels.library import LIBRARIES
from simulator.network.exchange_pricer import ExchangePricer
from simulator.network.expert_exchange import normal_exchange, normal_rates, play_normal
from simulator.network.low_latency import low_latency_exchange, play_low_latency
from simulator.network.machine import Machine
from simulator.network.slowest_port import direct_ports, normal_ports
from tests.clusters import cluster
from tests.layer_work import exchange
from workloads.blocks.moe import MoESpec
from workloads.routing import expected_copies
from workloads.routing_matrix import RoutingMatrix, drawn_matrix, expected_matrix

H800 = LIBRARIES.load("deepep-h800")
MPFT, MRFT = CLUSTERS.load("h800-2048-mpft"), CLUSTERS.load("h800-2048-mrft")
V3 = MoESpec(routed_experts=256, top_k=8, expert_width=1, group_score="max")
FP8, BF16 = 7392.0, 14336.0


def drawn(seed: int) -> RoutingMatrix:
    """A skewed matrix of 64 GPUs on 8 nodes: few tokens of popular experts, or many of hot GPUs."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.1, 1.0)
    limit = int(rng.choice([2, 4, 8]))
    if seed % 2:
        load = rng.lognormal(0, spread, 64)
        return expected_matrix(expected_copies(V3, 64, 8, limit), 4096, 8, load / load.mean())
    popularity = rng.lognormal(0, spread, 256)
    return drawn_matrix(V3, 64, 64, 8, rng, routed_nodes_max=limit, popularity=popularity)


def test_ports_of_the_normal_mode_counted_token_by_token() -> None:
    """Three nodes of two GPUs: every copy walked along its way."""
    rng = np.random.default_rng(5)
    moe = MoESpec(routed_experts=12, top_k=3, expert_width=1)
    matrix = drawn_matrix(moe, 20, 6, 2, rng)
    nic_out, nic_in, nvlink_out, nvlink_in = np.zeros((4, 6))
    for source in range(6):
        for node in range(3):
            forwarder = 2 * node + source % 2
            if node != source // 2:
                nic_out[source] += matrix.node_copies[source, node]
                nic_in[forwarder] += matrix.node_copies[source, node]
            for target in (2 * node, 2 * node + 1):
                if target != forwarder:
                    nvlink_out[forwarder] += matrix.gpu_copies[source, target]
                    nvlink_in[target] += matrix.gpu_copies[source, target]
    expected = np.stack([nic_out, nic_in, nvlink_out, nvlink_in])
    assert normal_ports(matrix).copies == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("over_nvlink", [True, False])
def test_ports_of_the_low_latency_mode_counted_copy_by_copy(over_nvlink: bool) -> None:
    moe = MoESpec(routed_experts=12, top_k=3, expert_width=1)
    matrix = drawn_matrix(moe, 20, 6, 2, np.random.default_rng(6))
    expected = np.zeros((4, 6))
    for source in range(6):
        for target in range(6):
            if source != target:
                near = over_nvlink and source // 2 == target // 2
                expected[2 * near, source] += matrix.expert_copies[source, target]
                expected[2 * near + 1, target] += matrix.expert_copies[source, target]
    assert direct_ports(matrix, over_nvlink).copies == pytest.approx(expected, rel=1e-12)


def test_combine_carries_back_what_dispatch_brought() -> None:
    """A port's in is its out."""
    ports = normal_ports(drawn(0))
    back = ports.carrying("combine")
    assert ports.carrying("dispatch") is ports
    assert back.copies.tolist() == ports.copies[[1, 0, 3, 2]].tolist()
    assert (back.nic, back.nvlink) == (ports.nic, ports.nvlink)


@pytest.mark.parametrize("seed", range(0, 50, 10))
@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_flows_carry_the_bytes_of_ports(seed: int, direction: Direction) -> None:
    """Through NICs what the formula counts; over NVLink the same to rounding."""
    matrix = drawn(seed)
    formula = normal_exchange(direction, matrix, FP8, MPFT)
    played = play_normal(direction, matrix, FP8, MPFT)
    assert played.nic_bytes == pytest.approx(formula.nic_bytes, rel=1e-12)
    assert played.nvlink_bytes == pytest.approx(formula.nvlink_bytes, rel=1e-12)
    assert played.bound_s == pytest.approx(formula.bound_s, rel=1e-12)


@pytest.mark.parametrize("seed", range(50))
def test_flows_over_the_fabric_take_the_slowest_ports_time(seed: int) -> None:
    """Within 3 % on skewed matrices, and never less: 64 GPUs on 8 nodes, 8 planes."""
    matrix = drawn(seed)
    direction, size = (("dispatch", FP8), ("combine", BF16))[seed // 2 % 2]
    formula = normal_exchange(direction, matrix, size, MPFT, H800, 20).time_s
    flows = play_normal(direction, matrix, size, MPFT, H800, 20).time_s
    assert flows * (1 - 0.03) <= formula <= flows * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(0, 50, 5))
def test_low_latency_flows_take_the_slowest_ports_time(seed: int) -> None:
    """On a multi-rail fabric, where every NIC reaches every other, by three switches if not one."""
    matrix = drawn(seed)
    formula = low_latency_exchange("dispatch", matrix, FP8, MRFT, H800, experts=256).time_s
    flows = play_low_latency("dispatch", matrix, FP8, MRFT, H800, experts=256).time_s
    assert flows == pytest.approx(formula, rel=0.03)


@pytest.mark.parametrize("ranks", [8, 16, 64])
def test_training_prices_exchanges_alike(ranks: int) -> None:
    """The step's own formula, with balanced and with skewed loads that cut nothing off."""
    copies = expected_copies(V3, ranks, 8, 4)
    pricer = ExchangePricer.of(Machine.of_ports(MPFT, H800, 20, (copies,)))
    load = np.random.default_rng(ranks).uniform(0.9, 1.1, ranks)
    for each in (np.ones(ranks), load / load.mean()):
        matrix = expected_matrix(copies, 4096, 8, each)
        for direction, size in (("dispatch", FP8), ("combine", BF16)):
            ours = normal_exchange(direction, matrix, size, MPFT, H800, 20).time_s
            theirs = float(pricer.exchange_s(exchange(direction, tokens=4096), each))
            assert ours == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_an_exchange_of_nearly_nothing_between_nodes_takes_its_notify(
    direction: Direction,
) -> None:
    """On 2, 4 and 8 nodes, in collectives and in training, and nothing of it inside one."""
    assert H800.exchange is not None
    size = 132.0 if direction == "dispatch" else 256.0
    for ranks in (8, 16, 32, 64):
        copies = expected_copies(V3, ranks, 8, 4)
        pricer = ExchangePricer.of(Machine.of_ports(MPFT, H800, 20, (copies,)))
        balanced = np.ones(ranks)
        theirs = float(pricer.exchange_s(exchange(direction, tokens=1, hidden=128), balanced))
        matrix = expected_matrix(copies, 1, 8, balanced)
        ours = normal_exchange(direction, matrix, size, MPFT, H800, 20).time_s
        notify_s = float(H800.exchange.notify_s(direction, ranks // 8))
        assert notify_s <= ours <= notify_s + 5e-6
        assert theirs == pytest.approx(ours, rel=1e-12)


ROOMY = {"node__nics": 6, "node__gpus": 6, "nodes": 20, "fabric__planes": 1}
"""Nodes of six GPUs, which groups of 8, 16 or 32 never fill."""


@pytest.mark.parametrize("ranks", [4, 8, 16, 32])
@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_a_part_of_a_node_is_priced_alike_by_training_formula_and_flows(
    ranks: int, direction: Direction
) -> None:
    """An expert group that leaves some of its last node free: one rule for all three."""
    uneven = cluster(**ROOMY)
    copies = expected_copies(V3, ranks, 6)
    assert len(set(copies.members)) == (1 if ranks < 6 else 2)
    matrix = expected_matrix(copies, 4096, 8)
    run = normal_exchange(direction, matrix, FP8, uneven)
    flows = play_normal(direction, matrix, FP8, uneven)
    assert flows.nic_bytes == pytest.approx(run.nic_bytes, rel=1e-9)
    assert flows.nvlink_bytes == pytest.approx(run.nvlink_bytes, rel=1e-9)
    assert flows.time_s >= run.time_s * (1 - 1e-9)
    pricer = ExchangePricer.of(Machine.of_ports(uneven, None, 20, (copies,)))
    priced_s = float(pricer.exchange_s(exchange(direction, tokens=4096), np.ones(ranks)))
    size = FP8 if direction == "dispatch" else BF16
    assert priced_s == pytest.approx(
        normal_exchange(direction, matrix, size, uneven).time_s, rel=1e-12
    )


@pytest.mark.parametrize("members", [(2, 5, 1), (3, 3), (1, 4), (7,), (1, 1, 6)])
@pytest.mark.parametrize("over_nvlink", [True, False])
def test_ports_of_uneven_nodes_counted_copy_by_copy(
    members: tuple[int, ...], over_nvlink: bool
) -> None:
    """Both modes: by the GPU of one's number modulo its node's, or straight."""
    gpus, nodes = sum(members), len(members)
    rng = np.random.default_rng(gpus)
    node = np.repeat(np.arange(nodes), members)
    first = np.cumsum(members) - members
    counts = rng.integers(0, 9, (2, gpus, gpus)).astype(float)
    matrix = RoutingMatrix(9, rng.integers(0, 9, (gpus, nodes)).astype(float), *counts, members)
    normal, direct = np.zeros((2, 4, gpus))
    for source in range(gpus):
        for place in range(nodes):
            by = first[place] + (source - first[node[source]]) % members[place]
            if place != node[source]:
                normal[0, source] += matrix.node_copies[source, place]
                normal[1, by] += matrix.node_copies[source, place]
            for target in np.flatnonzero(node == place):
                if target != by:
                    normal[2, by] += matrix.gpu_copies[source, target]
                    normal[3, target] += matrix.gpu_copies[source, target]
        for target in range(gpus):
            if target != source:
                near = 2 * (over_nvlink and node[source] == node[target])
                direct[near, source] += matrix.expert_copies[source, target]
                direct[near + 1, target] += matrix.expert_copies[source, target]
    assert normal_ports(matrix).copies.tolist() == normal.tolist()
    assert direct_ports(matrix, over_nvlink).copies.tolist() == direct.tolist()


def test_a_group_of_one_node_uses_no_nic() -> None:
    run = normal_exchange(
        "dispatch", expected_matrix(expected_copies(V3, 8, 8), 4096, 8), FP8, MPFT, H800, 20
    )
    assert run.nic_bytes == 0
    assert run.slowest.startswith("nvlink")
    rates = normal_rates("dispatch", drawn(1), FP8, MPFT, H800, 20)
    assert rates.nic_bytes_per_s == pytest.approx(45.67e9)
