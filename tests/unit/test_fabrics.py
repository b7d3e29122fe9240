"""Fabrics: published counts, what is refused, and laws every kind keeps.

Routes are checked against networkx in tests/oracles/test_topologies.py.
"""

import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.cluster import CLUSTERS
from hwmodels.errors import InfeasibleError, SpecError
from hwmodels.fabrics import FabricCounts, FabricSpec, SwitchedFabric
from hwmodels.fabrics.dragonfly import Dragonfly
from hwmodels.fabrics.fat_tree import FatTree
from hwmodels.fabrics.multi_plane_fat_tree import MultiPlaneFatTree
from hwmodels.fabrics.multi_rail_fat_tree import MultiRailFatTree
from hwmodels.fabrics.rail_only import RailOnly
from hwmodels.fabrics.scale_up_only import ScaleUpOnly
from hwmodels.fabrics.slim_fly import SlimFly

LINK = {"link_bytes_per_s": 50e9, "host_latency_s": 2.35e-6, "hop_latency_s": 0.45e-6}
# One example of each kind; the laws below run on all of them.
EXAMPLES = {
    c.fabric.kind: (c.fabric, c.node.ports) for c in (CLUSTERS.load(n) for n in CLUSTERS.names())
}
SWITCHED = [kind for kind, (fabric, _) in EXAMPLES.items() if isinstance(fabric, SwitchedFabric)]
ROUTED = [kind for kind in SWITCHED if kind not in ("slim_fly", "dragonfly")]


def tree(layers: int = 2, radix: int = 64, **more: Any) -> FatTree:
    return FatTree(layers=layers, switch_radix=radix, **LINK, **more)


def plane_tree(planes: int = 8, radix: int = 64, **more: Any) -> MultiPlaneFatTree:
    return MultiPlaneFatTree(planes=planes, switch_radix=radix, **LINK, **more)


def rail_tree(rails: int = 8, radix: int = 64) -> MultiRailFatTree:
    return MultiRailFatTree(rails=rails, switch_radix=radix, **LINK)


def slim_fly(q: int, radix: int = 64) -> SlimFly:
    return SlimFly(q=q, switch_radix=radix, **LINK)


def dragonfly(groups: int | None, **more: Any) -> Dragonfly:
    values = {"group_switches": 32, "switch_endpoints": 16, "global_links": 16, "switch_radix": 64}
    return Dragonfly(groups=groups, **(values | LINK | more))


def test_a_dragonfly_without_a_number_of_groups_has_those_its_endpoints_fill() -> None:
    assert dragonfly(None).counts(261_632) == dragonfly(511).counts(261_632)
    assert dragonfly(None).counts(261_633) == dragonfly(512).counts(261_633)
    assert dragonfly(None).endpoints_max == dragonfly(513).endpoints_max


@pytest.mark.parametrize(
    ("fabric", "endpoints", "switches", "links"),
    [
        (tree(), 2048, 96, 2048),  # ISCA'25 Table 3, FT2
        (plane_tree(planes=1), 2048, 96, 2048),  # one plane is the same tree
        (plane_tree(), 16_384, 768, 16_384),  # ISCA'25 Table 3, MPFT
        (tree(layers=3), 65_536, 5_120, 131_072),  # ISCA'25 Table 3, FT3
        (slim_fly(28), 32_928, 1_568, 32_928),  # ISCA'25 Table 3, SF
        (dragonfly(511), 261_632, 16_352, 384_272),  # ISCA'25 Table 3, DF
        (dragonfly(513), 262_656, 16_416, 385_776),  # balanced: g = a h + 1
        (tree(radix=128), 8192, 192, 8192),  # ISCA'25 §5.2.1: RoCE switches of 128 ports
        (plane_tree(radix=128), 65_536, 1536, 65_536),  # the same, on eight planes
        (rail_tree(), 2048, 96, 2048),
        (RailOnly(planes=8, switch_radix=64, **LINK), 512, 8, 0),
        (ScaleUpOnly(), 0, 0, 0),
        (slim_fly(5, radix=16), 200, 50, 175),  # Besta and Hoefler: q = 5 is Hoffman-Singleton
    ],
)
def test_a_full_fabric_has_the_published_counts(
    fabric: FabricSpec, endpoints: int, switches: int, links: int
) -> None:
    assert fabric.endpoints_max == endpoints
    assert fabric.counts(endpoints) == FabricCounts(endpoints, switches, links)


@pytest.mark.parametrize(
    ("fabric", "endpoints", "switches", "links"),
    [
        # 2048 GPUs on 8 planes: 8 x (8 leaves + 4 spines), 256 uplinks a plane.
        (plane_tree(), 2048, 8 * (8 + 4), 8 * 256),
        (tree(), 32, 1, 0),  # one leaf needs no spine
        (tree(), 33, 2 + 1, 2 * 32),
        (tree(), 3 * 32, 3 + 2, 3 * 32),  # 21 of a spine's 64 ports for each of 3 leaves
        (tree(layers=3), 1024, 32 + 32, 1024),  # one pod needs no core
        (tree(layers=3), 1025, 33 + 2 * 32 + 32, 33 * 32 + 2 * 32 * 32),
        # Pods of 32 leaves: 16 aggregation switches each, which keep half their ports up.
        (tree(layers=3, oversubscription=3), 48 * 64, 64 + 2 * 16 + 16, 64 * 16 + 2 * 16 * 32),
        (tree(oversubscription=3), 48 * 64, 64 + 16, 64 * 16),  # 48 ports down, 16 up
    ],
)
def test_a_fabric_that_is_not_full_has_the_switches_it_needs(
    fabric: FabricSpec, endpoints: int, switches: int, links: int
) -> None:
    assert fabric.counts(endpoints) == FabricCounts(endpoints, switches, links)


@pytest.mark.parametrize(
    ("oversubscription", "down", "up"),
    [(None, 32, 32), (1, 32, 32), (1.5, 37, 25), (2, 42, 21), (3, 48, 16), (63, 63, 1)],
)
def test_a_leaf_is_oversubscribed_at_most_as_told(
    oversubscription: float | None, down: int, up: int
) -> None:
    fabric = tree(oversubscription=oversubscription)
    assert (fabric.leaf_down, fabric.leaf_up) == (down, up)


@pytest.mark.parametrize(
    ("fabric", "endpoints", "switches"),
    [
        (tree(), 32, 1),
        (tree(), 33, 3),
        (tree(layers=3), 1024, 3),
        (tree(layers=3), 1025, 5),
        (slim_fly(28), 1, 3),
        (dragonfly(511), 1, 4),
        (RailOnly(planes=8, switch_radix=64, **LINK), 512, 1),
        (ScaleUpOnly(), 0, 0),
    ],
)
def test_the_diameter_counts_switches(fabric: FabricSpec, endpoints: int, switches: int) -> None:
    assert fabric.diameter(endpoints) == switches


def test_a_switch_more_takes_a_hop_longer() -> None:
    """ISCA'25 Table 5, InfiniBand: 2.8 us under one leaf, 3.7 us across leaves."""
    np.testing.assert_allclose(tree().latency_s([1, 3]), [2.8e-6, 3.7e-6], rtol=1e-12)
    roce = CLUSTERS.load("h800-2048-roce").fabric
    np.testing.assert_allclose(roce.latency_s([1, 3]), [3.6e-6, 5.6e-6], rtol=1e-12)


def test_nodes_32_apart_are_on_different_leaves_of_the_same_plane() -> None:
    topology = plane_tree().topology(nodes=256, ports=8)
    ports = np.array([0, 31, 32]) * 8 + 3
    assert topology.switches_passed(ports[0], ports).tolist() == [1, 1, 3]
    assert topology.plane_of[[0, 7, 9]].tolist() == [0, 7, 1]


def test_two_ports_of_a_node_share_a_plane_when_planes_are_half_the_ports() -> None:
    topology = plane_tree(planes=4).topology(nodes=256, ports=8)
    assert topology.connected(1, 5)
    assert not topology.connected(1, 6)
    leaves = topology.leaf_of[[5, 15 * 8 + 5, 16 * 8 + 5]]
    assert (leaves - 16).tolist() == [0, 0, 1]  # plane 1 of 16 leaves each


def test_a_nic_of_four_ports_reaches_four_planes() -> None:
    topology = CLUSTERS.load("b200-2048-cx8").topology()
    assert topology.ports == 32
    assert topology.plane_of[:8].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_rails_of_one_tree_meet_above_the_leaves() -> None:
    topology = rail_tree().topology(nodes=256, ports=8)
    assert topology.switches_passed([0, 0], [1, 8]).tolist() == [3, 1]


def test_rails_without_spines_never_meet() -> None:
    topology = CLUSTERS.load("h800-512-rail-only").topology()
    assert topology.connected(0, [1, 8]).tolist() == [False, True]
    assert topology.switches_passed(0, 8) == 1


def test_the_first_choices_share_no_cable() -> None:
    """Eight leaves under four spines, eight cables from each to each: 32 disjoint ways, 256 all."""
    topology = plane_tree().topology(nodes=256, ports=8)
    source, target = 0, 40 * 8
    assert topology.choices(source, target) == 256
    routes = topology.routes(source, target, np.arange(32))[:, 1:3]
    assert len(np.unique(routes)) == 64


def test_equal_fabrics_share_a_topology() -> None:
    assert tree().topology(64, 8) is tree().topology(64, 8)
    assert tree().topology(64, 8) is not tree().topology(64, 8, endpoint_bytes_per_s=25e9)


def test_an_endpoint_may_be_slower_than_the_links() -> None:
    topology = tree().topology(64, 8, endpoint_bytes_per_s=25e9)
    assert topology.bytes_per_s[topology.tx(3)] == 25e9
    assert topology.bytes_per_s[topology.uplink(0, 0)] == 50e9
    assert topology.bisection_bytes_per_s == 32 * 8 * 25e9


def test_a_tapered_tree_has_less_between_its_halves() -> None:
    """Leaves of 48 down and 16 up: a third of what the ports could send."""
    full, tapered = tree(), tree(oversubscription=3)
    assert full.topology(240, 8).bisection_bytes_per_s == 120 * 8 * 50e9
    assert tapered.topology(240, 8).bisection_bytes_per_s == 120 * 8 / 3 * 50e9


def test_bundles_are_the_ways_out_of_a_leaf_and_in() -> None:
    """Two pods of two leaves: each leaf a bundle up and one down, each pod likewise."""
    topology = tree(layers=3, radix=4).topology(nodes=8, ports=1)
    rates = np.bincount(topology.bundle, weights=topology.bytes_per_s) / 50e9
    assert rates.tolist() == [1] * 16 + [2] * 8 + [4] * 4
    assert topology.bundles == 28


@pytest.mark.parametrize(
    ("source", "target", "choice", "message"),
    [
        (0, 1, 0, "route: nic:0.0 and nic:0.1 must be on one plane, got 0 and 1"),
        (0, 320, 256, "route: nic:0.0 to nic:40.0 has choices 0 to 255, got 256"),
        (0, 8, -1, "route: nic:0.0 to nic:1.0 has choices 0 to 0, got -1"),
    ],
)
def test_a_route_that_does_not_exist_is_refused(
    source: int, target: int, choice: int, message: str
) -> None:
    topology = plane_tree().topology(nodes=256, ports=8)
    with pytest.raises(InfeasibleError) as caught:
        topology.routes(source, target, choice)
    assert str(caught.value) == message


def test_links_and_switches_are_named_in_the_words_of_faults() -> None:
    topology = tree(layers=3, radix=4).topology(nodes=4, ports=2)
    links = [0, topology.endpoints + 3, 16, 24, 32, 40]
    assert [topology.link_name(link) for link in links] == [
        *("nic:0.0 out", "nic:1.1 in", "link:0.0.0 up", "link:0.0.0 down"),
        *("core:0.0.0 up", "core:0.0.0 down"),
    ]
    assert [topology.switch_name(s) for s in (0, 3, 4, 7, 8, 9)] == [
        *("leaf:0.0", "leaf:0.3", "spine:0.0", "spine:0.3", "spine:0.4", "spine:0.5"),
    ]
    with pytest.raises(InfeasibleError, match=r"^link: must be 0 to 47, got 48$"):
        topology.link_name(48)


@pytest.mark.parametrize(
    ("fabric", "ports", "message"),
    [
        (plane_tree(3), 8, r"^fabric.planes: must divide the 8 NIC ports of a node, got 3$"),
        (plane_tree(16), 8, r"^fabric.planes: must divide the 8 NIC ports"),
        (rail_tree(rails=4), 8, r"^fabric.rails: must equal the 8 NIC ports of a node, got 4$"),
        (
            RailOnly(planes=3, switch_radix=64, **LINK),
            8,
            r"^fabric.planes: must divide the 8 NIC ports of a node, got 3$",
        ),
    ],
)
def test_nodes_that_cannot_be_wired_are_refused(
    fabric: FabricSpec, ports: int, message: str
) -> None:
    with pytest.raises(InfeasibleError, match=message):
        fabric.check_ports(ports)
    with pytest.raises(InfeasibleError, match=message):
        fabric.topology(1, ports)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tree(oversubscription=64), "oversubscription: at most 63 with switches of 64 por"),
        (lambda: tree(oversubscription=0.5), "greater than or equal to 1"),
        (lambda: tree(layers=3, radix=2), "switch_radix: at least 4 for three layers, got 2"),
        (lambda: tree(layers=4), "Input should be 2 or 3"),
        (lambda: tree(radix=63), "multiple of 2"),
        (lambda: plane_tree(planes=0), "greater than or equal to 1"),
        (lambda: rail_tree(radix=6), "at least 8 for 8 rails under common spines, got 6"),
        (lambda: slim_fly(6), "q: must be 4w - 1, 4w or 4w [+] 1, got 6"),
        (lambda: slim_fly(28, radix=62), "at least 63 for slim_fly of q = 28, got 62"),
        (lambda: dragonfly(514), "groups: at most 513, so that any two are linked, got 514"),
        (lambda: dragonfly(9, switch_radix=62), "at least 63 for this dragonfly, got 62"),
    ],
)
def test_a_fabric_that_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("fabric", [slim_fly(28), dragonfly(511)])
def test_what_is_only_counted_says_so(fabric: FabricSpec) -> None:
    with pytest.raises(InfeasibleError, match=f"got {fabric.kind}, which is not routed yet$"):
        fabric.topology(1, 8)


def test_one_node_needs_no_network_and_two_cannot_do_without() -> None:
    topology = ScaleUpOnly().topology(1, 72)
    assert (topology.endpoints, topology.switches, topology.directed_links) == (0, 0, 0)
    assert (topology.diameter, topology.bisection_bytes_per_s, topology.bundles) == (0, 0, 0)
    with pytest.raises(InfeasibleError, match=r"^nodes: must be 1 with fabric scale_up_only, got"):
        ScaleUpOnly().topology(2, 8)


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
    with pytest.raises(InfeasibleError, match=f"endpoints, got {fabric.endpoints_max + 1}$"):
        fabric.counts(fabric.endpoints_max + 1)


@pytest.mark.parametrize("kind", SWITCHED)
def test_a_network_of_no_endpoints_is_none(kind: str) -> None:
    with pytest.raises(InfeasibleError, match=r"endpoints, got 0$"):
        EXAMPLES[kind][0].counts(0)


@pytest.mark.parametrize("kind", SWITCHED)
@given(share=st.floats(0, 1))
def test_switches_have_ports_for_all_links_and_endpoints(kind: str, share: float) -> None:
    fabric, _ = EXAMPLES[kind]
    endpoints = max(1, round(share * fabric.endpoints_max))
    counts = fabric.counts(endpoints)
    assert counts.switches * fabric.switch_radix >= counts.endpoints + 2 * counts.links


@pytest.mark.parametrize("kind", SWITCHED)
def test_more_endpoints_never_need_fewer_switches_or_links(kind: str) -> None:
    fabric, _ = EXAMPLES[kind]
    sizes = np.linspace(1, fabric.endpoints_max, 200, dtype=int).tolist()
    counts = [fabric.counts(n) for n in sizes]
    assert all(a.switches <= b.switches for a, b in pairwise(counts))
    assert all(a.links <= b.links for a, b in pairwise(counts))
    assert all(a.switches >= 1 for a in counts)


@pytest.mark.parametrize("kind", ROUTED)
def test_every_port_finds_room_on_a_leaf_and_no_leaf_is_overfull(kind: str) -> None:
    fabric, ports = EXAMPLES[kind]
    nodes = fabric.endpoints_max // ports
    topology = fabric.topology(nodes, ports)
    _, load = np.unique(topology.leaf_of, return_counts=True)
    assert load.max() <= getattr(fabric, "leaf_down", fabric.switch_radix)
    assert load.sum() == nodes * ports


@pytest.mark.parametrize("kind", ROUTED)
def test_as_many_switches_are_passed_there_as_back(kind: str) -> None:
    fabric, ports = EXAMPLES[kind]
    port = np.arange(min(fabric.endpoints_max, 4096)) // ports * ports
    topology = fabric.topology(len(port) // ports, ports)
    first, second = port[::37][:, None], port[::37][None, :]
    passed = topology.switches_passed(first, second)
    assert (passed == passed.T).all()
    assert (np.diag(passed) == 1).all()
    assert passed.min() >= 1
    assert (topology.choices(first, second) == topology.choices(first, second).T).all()
