"""Collectives on the network against what can be worked out by hand, or pair by pair."""

from itertools import pairwise
from typing import get_args

import networkx as nx
import numpy as np
import pytest

from hwmodels.costs.protocol import library_collective_s, steps, wire_bytes
from hwmodels.errors import OutOfRangeError
from hwmodels.library import LIBRARIES, LibrarySpec
from hwmodels.protocols import Algorithm
from simulator.network.collectives import ALGORITHMS, KINDS, algorithms_of, plan_of
from simulator.network.collectives.ring import rings
from simulator.network.collectives.tree import _all_reduce_edges, _broadcast_edges
from simulator.network.flows import link_bytes
from simulator.network.links import Network
from simulator.network.placement import group_of, place
from simulator.network.run import run_collective, run_groups
from tests.clusters import cluster

SMALL = cluster(nodes=8)
NETWORK = Network.of(SMALL)
GIB = 2.0**30
ON_ONE_NODE = [
    (kind, algorithm)
    for kind in KINDS
    for algorithm in algorithms_of(kind)
    if algorithm in get_args(Algorithm) and algorithm not in ("hierarchical", "tree")
]


def crossing(network, plan):
    """Return the bytes on each link for one byte of the size."""
    total = np.zeros(len(network.bytes_per_s))
    for flows in plan.stages:
        total += link_bytes(flows, len(total)) * plan.factor
    return total


# On one node: the table by which libraries are fitted


@pytest.mark.parametrize("ranks", [2, 3, 5, 8])
@pytest.mark.parametrize(("kind", "algorithm"), ON_ONE_NODE)
def test_steps_and_bytes_on_one_node_are_those_of_the_protocols(kind, algorithm, ranks):
    plan = plan_of(NETWORK, group_of(SMALL, range(ranks)), kind, algorithm)
    assert plan.fabric_steps == 0
    assert plan.in_node_messages == steps(algorithm, kind, ranks)
    busiest = crossing(NETWORK, plan).max()
    assert busiest == pytest.approx(float(wire_bytes(algorithm, kind, ranks, 1.0)), rel=1e-12)


@pytest.mark.parametrize("ranks", [2, 3, 5, 8])
@pytest.mark.parametrize("kind", ["all_reduce", "broadcast"])
def test_trees_on_one_node_carry_no_more_than_the_protocols_say(kind, ranks):
    """A rank that is inner in one tree has two children there only where there are enough."""
    plan = plan_of(NETWORK, group_of(SMALL, range(ranks)), kind, "tree")
    assert plan.in_node_messages == steps("tree", kind, ranks)
    assert crossing(NETWORK, plan).max() <= wire_bytes("tree", kind, ranks, 1.0) * (1 + 1e-12)


def test_a_library_takes_its_fastest_protocol_as_its_fit_does():
    protocols = {
        "all_reduce": [
            {"name": "one", "algorithm": "one-shot", "launch_s": 4e-6, "step_s": 1e-6}
            | {"nvlink_efficiency": 0.6},
            {"name": "Simple", "algorithm": "ring", "launch_s": 8e-6, "step_s": 2e-6}
            | {"nvlink_efficiency": 0.8, "own_bytes_per_s": 1e12},
            {"name": "nvls", "algorithm": "in-network", "launch_s": 12e-6, "step_s": 3e-6}
            | {"nvlink_efficiency": 0.7},
        ]
    }
    library = LibrarySpec(name="made-up", version="1", protocols=protocols)
    taken = set()
    for ranks in (2, 4, 8):
        for size in (8.0, 2e5, 1e6, 1e9):
            run = run_collective("all_reduce", size, range(ranks), NETWORK, library)
            told_s = library_collective_s(library, "all_reduce", ranks, size, 200e9)
            assert run.time_s == pytest.approx(float(told_s), rel=1e-12)
            taken.add(run.protocol)
    assert taken == {"one", "Simple", "nvls"}
    with pytest.raises(OutOfRangeError, match="no all_reduce between nodes was measured"):
        run_collective("all_reduce", 1e6, range(16), NETWORK, library)
    with pytest.raises(OutOfRangeError, match="no all_reduce by tree inside a node"):
        run_collective("all_reduce", 1e6, range(8), NETWORK, library, "tree")
    with pytest.raises(OutOfRangeError, match="no collective 'all_gather'"):
        run_collective("all_gather", 1e6, range(8), NETWORK, library)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["nccl-h100", "trtllm-h100", "vllm-h100"])
def test_shipped_libraries_take_on_a_node_what_they_were_fitted_to(name, kind):
    library, machine = LIBRARIES.load(name), Network.of(cluster("h100-2048", nodes=1))
    if kind not in library.protocols:
        with pytest.raises(OutOfRangeError, match=f"no collective '{kind}'"):
            run_collective(kind, 1e6, range(8), machine, library)
        return
    for ranks in (2, 4, 8):
        for size in (1.0, 1e5, 1e7, GIB):
            run = run_collective(kind, size, range(ranks), machine, library)
            told_s = float(library_collective_s(library, kind, ranks, size, 450e9))
            assert run.time_s == pytest.approx(told_s, rel=1e-9)
            assert run.time_s >= run.bound_s


def test_steps_between_nodes_take_the_librarys_hop_or_the_fabrics_latency():
    ring = {"name": "Simple", "algorithm": "ring", "launch_s": 1e-5, "step_s": 1e-6}
    ring |= {"nvlink_efficiency": 0.8, "nic_efficiency": 0.88}
    for hop, hop_s in (({}, 2.8e-6), ({"hop_s": 5e-6}, 5e-6)):
        protocols = {"all_gather": [ring | hop]}
        library = LibrarySpec(name="made-up", version="1", protocols=protocols)
        run = run_collective("all_gather", 1.0, range(16), NETWORK, library)
        assert run.fixed_s == pytest.approx(1e-5 + 13 * 1e-6 + 2 * hop_s, rel=1e-12)
        big = run_collective("all_gather", 1e9, range(16), NETWORK, library)
        nvlink_s, nic_s = 1e9 * 7 / 8 / 160e9, 1e9 / 8 / 44e9
        assert big.wire_s == pytest.approx(15 / 16 * max(nvlink_s, nic_s), rel=1e-9)


# Pair by pair


@pytest.mark.parametrize("how", ["packed", "random", "spread"])
@pytest.mark.parametrize("ranks", [3, 12, 24, 40])
def test_an_all_to_all_is_every_pairs_part_over_pxn(how, ranks):
    """A part from GPU to GPU: NVLink inside a node; otherwise NVLink to the GPU at the target's
    place, out of its NIC and into the target's. Summed pair by pair."""
    gpus = place(SMALL, ranks, 1, how, seed=2)[0]
    expected = np.zeros(len(NETWORK.bytes_per_s))
    out, into = 2 * NETWORK.gpus, 2 * NETWORK.gpus + NETWORK.topology.endpoints
    for source in gpus.tolist():
        for target in gpus.tolist():
            last = target if source // 8 == target // 8 else source // 8 * 8 + target % 8
            if last != source:
                expected[[source, NETWORK.gpus + last]] += 1 / ranks
            if source // 8 != target // 8:
                expected[[out + last, into + target]] += 1 / ranks
    plan = plan_of(NETWORK, group_of(SMALL, gpus), "all_to_all", "pairwise")
    got = crossing(NETWORK, plan)
    ports = into + NETWORK.topology.endpoints
    assert got[:ports] == pytest.approx(expected[:ports], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("how", ["packed", "random", "spread"])
@pytest.mark.parametrize("ranks", [2, 3, 11, 24, 40])
def test_rings_pass_every_rank_once_and_every_node_once(how, ranks):
    group = group_of(SMALL, place(SMALL, ranks, 1, how, seed=5)[0])
    for order in rings(group, group.channels).tolist():
        assert sorted(order) == group.members.tolist()
        nodes = [gpu // 8 for gpu in order]
        changes = sum(a != b for a, b in pairwise(nodes))
        assert changes == len(group.nodes) - 1


@pytest.mark.parametrize("nodes", [2, 3, 4, 7, 8])
def test_rings_over_whole_nodes_use_every_nic_alike_and_forward_nothing(nodes):
    group = group_of(SMALL, range(8 * nodes))
    ranks = 8 * nodes
    got = crossing(NETWORK, plan_of(NETWORK, group, "all_gather", "ring"))
    nics = got[2 * NETWORK.gpus :][: 8 * nodes]
    assert nics == pytest.approx((ranks - 1) / ranks / 8, rel=1e-12)
    assert got[: 8 * nodes] == pytest.approx((ranks - 1) / ranks * 7 / 8, rel=1e-12)


@pytest.mark.parametrize("units", [2, 3, 4, 5, 8, 13, 64, 100])
def test_double_trees_reach_all_in_logarithmic_depth_and_burden_none_twice(units):
    """Two arborescences; no unit has more than two children, nor three over both trees."""
    parent, child = _all_reduce_edges(units)
    children = np.bincount(parent, minlength=units)
    assert children.max() <= 3
    half = len(parent) // 2
    for part in (slice(0, half), slice(half, None)):
        tree = nx.DiGraph(zip(parent[part].tolist(), child[part].tolist(), strict=True))
        assert nx.is_arborescence(tree)
        assert len(tree) == units
        assert nx.dag_longest_path_length(tree) <= np.ceil(np.log2(units)) + 1
    parent, child = _broadcast_edges(units)
    assert np.bincount(child, minlength=units).tolist() == [0, *[2] * (units - 1)]


# Closed forms across nodes


@pytest.mark.parametrize("name", ["h800-2048-mpft", "h800-2048-mrft"])
@pytest.mark.parametrize(("ranks", "published"), [(32, 58.7), (64, 50.3), (128, 46.9)])
def test_all_to_all_bandwidth_of_isca25_fig_5(name, ranks, published):
    """44 GB/s of a NIC times N / (N - 8): 8 parts of N never leave the node."""
    wide = cluster(name)
    network = Network.of(wide, nvlink_bytes_per_s=160e9, nic_bytes_per_s=44e9)
    run = run_collective("all_to_all", 16 * GIB, place(wide, ranks)[0], network)
    assert run.algbw_bytes_per_s / 1e9 == pytest.approx(44 * ranks / (ranks - 8), rel=1e-3)
    assert round(run.algbw_bytes_per_s / 1e9, 1) == published


@pytest.mark.parametrize("ranks", [16, 24, 64])
def test_hierarchical_collectives_are_bound_by_rails_or_nvlink(ranks):
    """NICs gather (N - 1) / N of an eighth, NVLink hands on 7/8; all-reduce does both ways."""
    nodes, size = ranks // 8, 1e9
    nic_s, nvlink_s = size / 8 * (nodes - 1) / nodes / 50e9, size * 7 / 8 / 200e9
    for kind, ways in (("all_gather", 1), ("reduce_scatter", 1), ("all_reduce", 2)):
        run = run_collective(kind, size, range(ranks), NETWORK, algorithm="hierarchical")
        assert run.wire_s == pytest.approx(ways * max(nic_s, nvlink_s), rel=1e-9)
        expected_s = ways * 3.33e-6 + ways * (nodes - 1) * 2.8e-6
        assert run.fixed_s == pytest.approx(expected_s, rel=1e-9)


def test_hierarchical_all_to_all_is_one_stage_after_the_other():
    """24 ranks: 7/8 over NVLink, then 2/3 over NICs; the same bytes as all at once."""
    run = run_collective("all_to_all", 1e9, range(24), NETWORK, algorithm="hierarchical")
    assert run.wire_s == pytest.approx(1e9 * 7 / 8 / 200e9 + 1e9 * 2 / 3 / 50e9, rel=1e-9)
    group = group_of(SMALL, range(24))
    stages, once = (
        crossing(NETWORK, plan_of(NETWORK, group, "all_to_all", name))
        for name in ("hierarchical", "pairwise")
    )
    assert stages == pytest.approx(once, rel=1e-12)


def test_switches_that_reduce_halve_an_all_reduce_over_nics():
    """Each NIC sends an eighth once and gets the sum once; NVLink carries 9/8 each way."""
    fast = Network.of(SMALL, nvlink_bytes_per_s=1e15)
    run = run_collective("all_reduce", 1e9, range(64), fast, algorithm="in-network")
    ring = run_collective("all_reduce", 1e9, range(64), fast, algorithm="ring")
    assert run.wire_s == pytest.approx(1e9 / 8 / 50e9, rel=1e-9)
    assert ring.wire_s == pytest.approx(2 * 63 / 64 * run.wire_s, rel=1e-9)
    inside = run_collective("all_reduce", 1e9, range(64), NETWORK, algorithm="in-network")
    assert inside.wire_s == pytest.approx(1e9 * 9 / 8 / 200e9, rel=1e-9)


def test_in_the_network_one_uplink_of_each_leaf_carries_a_rail():
    wide = cluster()
    network = Network.of(wide)
    group = group_of(wide, range(0, 2048, 8))  # one GPU a node: one rail, eight leaves
    got = crossing(network, plan_of(network, group, "all_reduce", "in-network"))
    between = got[2 * network.gpus + 2 * network.topology.endpoints :]
    assert sorted(between[between > 0].tolist()) == pytest.approx([1.0] * 16)


def test_nothing_is_taken_in_the_network_unasked():
    for kind in KINDS:
        assert run_collective(kind, 1e9, range(64), NETWORK).algorithm != "in-network"


def test_bandwidths_follow_nccl_tests():
    for kind, factor in (
        ("all_reduce", 2 * 15 / 16),
        ("all_gather", 15 / 16),
        ("reduce_scatter", 15 / 16),
        ("all_to_all", 15 / 16),
        ("broadcast", 1),
        ("send_recv", 1),
    ):
        run = run_collective(kind, 1e8, range(16), NETWORK)
        assert run.algbw_bytes_per_s == 1e8 / run.time_s
        assert run.busbw_bytes_per_s == pytest.approx(factor * run.algbw_bytes_per_s)


def test_rates_of_a_library_without_protocols_scale_with_the_links():
    library = LIBRARIES.load("deepep-h800")
    run = run_collective("all_to_all", GIB, range(64), NETWORK, library)
    assert run.wire_s == pytest.approx(GIB * 7 / 8 / 44e9, rel=1e-9)
    rates = {"node__nic__link_bytes_per_s": 100e9, "fabric__link_bytes_per_s": 100e9}
    wide = cluster(nodes=8, node__pcie_bytes_per_s=128e9, **rates)
    run = run_collective("all_to_all", GIB, range(64), Network.of(wide), library)
    assert run.wire_s == pytest.approx(GIB * 7 / 8 / 88e9, rel=1e-9)


# What fails


def test_a_failed_plane_of_eight_costs_eight_sevenths():
    gpus = place(cluster(), 256)[0]
    whole, broken = (
        run_collective("all_to_all", GIB, gpus, Network.of(each))
        for each in (cluster(), cluster(faults=["plane:3"]))
    )
    assert broken.wire_s / whole.wire_s == pytest.approx(8 / 7, rel=1e-9)


def test_one_slow_nic_slows_exactly_the_group_that_contains_it():
    groups = place(SMALL, 16, 4)
    slow = Network.of(cluster(nodes=8, faults=["nic:5.2=0.5"]))
    for kind in KINDS:
        algorithm = "ring" if kind not in ("all_to_all", "send_recv") else "one-shot"
        fast_nvlink = {"nvlink_bytes_per_s": 1e13}  # so that NICs decide
        runs, before = (
            run_groups(kind, GIB, groups, Network.of(each.cluster, **fast_nvlink), None, algorithm)
            for each in (slow, NETWORK)
        )
        ratio = [a.wire_s / b.wire_s for a, b in zip(runs, before, strict=True)]
        expected = [1.0, 1.0, 2.0 if kind != "send_recv" else 1.0, 1.0]  # 39 sends to 32: NIC 0
        assert ratio == pytest.approx(expected, rel=1e-9)


def fig8_groups(ranks):
    """Groups with a member under each of `ranks` leaves, two on each node of 256."""
    return [
        [(first + leaf) * 256 + node * 8 + gpu for leaf in range(ranks)]
        for first in range(0, 8, ranks)
        for node in range(32)
        for gpu in range(2)
    ]


def test_ecmp_slows_rings_by_hashing_alone_and_adaptive_or_static_routing_does_not():
    """ISCA'25 Fig. 8 on RoCE, as a pattern: ECMP < adaptive = static for TP2, TP4, TP8, the most
    lost where a NIC has the fewest flows. How much depends on a setting nobody published.
    """
    roce = cluster("h800-2048-roce", fabric__switch_radix=64)  # 32 nodes a leaf
    lost = {}
    for ranks in (2, 8):
        groups = fig8_groups(ranks)
        rates = {}
        for routing in ("static", "adaptive", "ecmp"):
            seeds = range(3) if routing == "ecmp" else (0,)
            rates[routing] = np.mean(
                [
                    run.busbw_bytes_per_s
                    for seed in seeds
                    for run in run_groups(
                        "all_gather", GIB, groups, Network.of(roce, routing, seed), None, "one-shot"
                    )
                ]
            )
        assert rates["adaptive"] == pytest.approx(rates["static"], rel=1e-6)
        lost[ranks] = 1 - rates["ecmp"] / rates["static"]
    assert lost[2] > lost[8] > 0.1


def test_every_algorithm_is_known_by_the_protocols_words():
    assert set(ALGORITHMS) >= set(get_args(Algorithm))
