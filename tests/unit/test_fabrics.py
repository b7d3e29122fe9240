"""Fabrics: published counts, and laws every topology keeps."""

import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.cluster import CLUSTERS
from hwmodels.errors import InfeasibleError, SpecError
from hwmodels.fabrics import FabricCounts, FabricSpec
from hwmodels.fabrics.multi_plane_fat_tree import MultiPlaneFatTree
from hwmodels.fabrics.multi_rail_fat_tree import MultiRailFatTree

LINK = {"link_bytes_per_s": 50e9, "host_latency_s": 2.35e-6, "hop_latency_s": 0.45e-6}
# One example of each kind; the laws below run on all of them.
EXAMPLES = {
    c.fabric.kind: (c.fabric, c.node.ports) for c in (CLUSTERS.load(n) for n in CLUSTERS.names())
}


def fat_tree(planes: int = 1, radix: int = 64) -> MultiPlaneFatTree:
    return MultiPlaneFatTree(planes=planes, switch_radix=radix, **LINK)


def rail_tree(rails: int = 8, radix: int = 64) -> MultiRailFatTree:
    return MultiRailFatTree(rails=rails, switch_radix=radix, **LINK)


@pytest.mark.parametrize(
    ("fabric", "endpoints", "switches", "links"),
    [
        (fat_tree(), 2048, 96, 2048),  # ISCA'25 Table 3, FT2
        (fat_tree(planes=8), 16_384, 768, 16_384),  # ISCA'25 Table 3, MPFT
        (fat_tree(radix=128), 8192, 192, 8192),  # ISCA'25 §5.2.1: RoCE switches of 128 ports
        (rail_tree(), 2048, 96, 2048),
    ],
)
def test_a_full_fabric_has_the_published_counts(
    fabric: FabricSpec, endpoints: int, switches: int, links: int
) -> None:
    assert fabric.endpoints_max == endpoints
    assert fabric.counts(endpoints) == FabricCounts(endpoints, switches, links)


def test_the_deployed_cluster_has_96_switches() -> None:
    """2048 GPUs on 8 planes: 8 x (8 leaves + 4 spines), 256 uplinks a plane."""
    assert fat_tree(planes=8).counts(2048) == FabricCounts(2048, 8 * (8 + 4), 8 * 256)


def test_one_leaf_needs_no_spine() -> None:
    assert fat_tree().counts(32) == FabricCounts(32, 1, 0)


def test_latency_adds_a_switch_at_a_time() -> None:
    """ISCA'25 Table 5, InfiniBand: 2.8 us under one leaf, 3.7 us across leaves."""
    np.testing.assert_allclose(fat_tree().latency_s([1, 3]), [2.8e-6, 3.7e-6], rtol=1e-12)


def test_nodes_32_apart_are_on_different_leaves_of_the_same_plane() -> None:
    fabric = fat_tree(planes=8)
    leaves = fabric.leaf([0, 31, 32], [3, 3, 3], ports=8)
    assert fabric.hops(leaves[0], leaves).tolist() == [1, 1, 3]
    assert fabric.plane([0, 7, 9]).tolist() == [0, 7, 1]


def test_two_ports_of_a_node_share_a_plane_when_planes_are_half_the_ports() -> None:
    fabric = fat_tree(planes=4)
    assert fabric.plane([1, 5]).tolist() == [1, 1]
    leaves = fabric.leaf([0, 15, 16], [5, 5, 5], ports=8)
    assert leaves.tolist() == [64, 64, 65]


@pytest.mark.parametrize(
    ("fabric", "ports", "message"),
    [
        (fat_tree(planes=3), 8, r"^fabric.planes: must divide the 8 NIC ports of a node, got 3$"),
        (fat_tree(planes=16), 8, r"^fabric.planes: must divide the 8 NIC ports"),
        (rail_tree(rails=4), 8, r"^fabric.rails: must equal the 8 NIC ports of a node, got 4$"),
    ],
)
def test_nodes_that_cannot_be_wired_are_refused(
    fabric: FabricSpec, ports: int, message: str
) -> None:
    with pytest.raises(InfeasibleError, match=message):
        fabric.check_ports(ports)


def test_a_multi_rail_fat_tree_is_one_plane() -> None:
    values = {"kind": "multi_rail_fat_tree", "rails": 8, "switch_radix": 64, "planes": 2, **LINK}
    with pytest.raises(ValueError, match="Input should be 1"):
        FabricSpec.of_kind(values)


def test_an_unknown_kind_suggests_the_nearest() -> None:
    with pytest.raises(SpecError, match="kind 'multi_plane_tree': unknown; did you mean 'multi_pl"):
        FabricSpec.of_kind({"kind": "multi_plane_tree"})


# Conformance: whoever adds a kind adds a cluster preset with it and gets these tests.


@pytest.mark.parametrize("kind", FabricSpec.kinds)
def test_a_kind_is_named_after_its_file_and_has_a_preset(kind: str) -> None:
    module = sys.modules[FabricSpec.kinds[kind].__module__]
    assert module.__name__ == f"hwmodels.fabrics.{kind}"
    assert kind in EXAMPLES


@pytest.mark.parametrize("kind", FabricSpec.kinds)
def test_the_largest_fabric_exists_and_one_endpoint_more_does_not(kind: str) -> None:
    fabric, _ = EXAMPLES[kind]
    assert fabric.counts(fabric.endpoints_max).endpoints == fabric.endpoints_max
    for endpoints in (0, fabric.endpoints_max + 1):
        with pytest.raises(InfeasibleError, match=f"endpoints, got {endpoints}$"):
            fabric.counts(endpoints)


@pytest.mark.parametrize("kind", FabricSpec.kinds)
@given(share=st.floats(0, 1))
def test_switches_have_ports_for_all_links_and_endpoints(kind: str, share: float) -> None:
    fabric, _ = EXAMPLES[kind]
    endpoints = max(1, round(share * fabric.endpoints_max))
    counts = fabric.counts(endpoints)
    assert counts.switches * fabric.switch_radix >= counts.endpoints + 2 * counts.links


@pytest.mark.parametrize("kind", FabricSpec.kinds)
def test_more_endpoints_never_need_fewer_switches_or_links(kind: str) -> None:
    fabric, _ = EXAMPLES[kind]
    sizes = np.linspace(1, fabric.endpoints_max, 200, dtype=int).tolist()
    counts = [fabric.counts(n) for n in sizes]
    assert all(a.switches <= b.switches for a, b in pairwise(counts))
    assert all(a.links <= b.links for a, b in pairwise(counts))


@pytest.mark.parametrize("kind", FabricSpec.kinds)
def test_every_port_finds_room_on_a_leaf_and_no_leaf_is_overfull(kind: str) -> None:
    fabric, ports = EXAMPLES[kind]
    nodes = fabric.endpoints_max // ports
    node, port = np.divmod(np.arange(nodes * ports), ports)
    _, load = np.unique(fabric.leaf(node, port, ports), return_counts=True)
    assert load.max() <= fabric.switch_radix // 2
    assert load.sum() == nodes * ports


@pytest.mark.parametrize("kind", FabricSpec.kinds)
def test_hops_are_symmetric_and_at_least_one(kind: str) -> None:
    fabric, ports = EXAMPLES[kind]
    leaves = np.unique(fabric.leaf(np.arange(64), 0, ports))
    hops = fabric.hops(leaves[:, None], leaves[None, :])
    assert (hops == hops.T).all()
    assert (np.diag(hops) == 1).all()
    assert hops.min() >= 1
