"""ClusterSpec: nodes that fit their fabric, and overrides that descend through presets."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.cluster import CLUSTERS, ClusterSpec
from hwmodels.errors import InputError, SpecError, UnknownPresetError
from hwmodels.fabrics.multi_plane_fat_tree import MultiPlaneFatTree
from hwmodels.fabrics.multi_rail_fat_tree import MultiRailFatTree
from hwmodels.spec import build, expand, override


def mpft_with(path: str, value: Any) -> ClusterSpec:
    document = CLUSTERS.document("h800-2048-mpft")
    override(document, ClusterSpec, path, value, f"--set {path}")
    return build(ClusterSpec, document, "h800-2048-mpft")


def test_the_training_cluster_of_deepseek_v3() -> None:
    """ISCA'25 §5.1: 2,048 GPUs, eight planes of 8 leaves and 4 spines."""
    cluster = CLUSTERS.load("h800-2048-mpft")
    assert (cluster.gpus, cluster.endpoints) == (2048, 2048)
    assert isinstance(cluster.fabric, MultiPlaneFatTree)
    assert cluster.fabric.planes == 8
    assert cluster.fabric_counts.switches == 96


def test_its_baseline_is_one_multi_rail_network_of_the_same_machines() -> None:
    mpft, mrft = CLUSTERS.load("h800-2048-mpft"), CLUSTERS.load("h800-2048-mrft")
    assert mrft.node == mpft.node
    assert isinstance(mrft.fabric, MultiRailFatTree)
    assert mrft.fabric_counts == mpft.fabric_counts


@pytest.mark.parametrize("name", CLUSTERS.names())
def test_a_dump_loads_back_equal(name: str) -> None:
    """load(dump(x)) = x, the fabric's own fields included."""
    cluster = CLUSTERS.load(name)
    assert ClusterSpec.model_validate(cluster.model_dump()) == cluster
    assert ClusterSpec.model_validate_json(cluster.model_dump_json()) == cluster


def test_an_override_replaces_a_whole_chip_by_name() -> None:
    chip = mpft_with("node.chip", "h20").node.chip
    assert (chip.name, chip.sms) == ("h20", 78)


def test_an_override_replaces_a_whole_node_by_name() -> None:
    assert mpft_with("node", "h100x8").node.chip.nvlink_bytes_per_s == 450e9


@pytest.mark.parametrize("planes", [1, 2, 4, 8])
def test_planes_that_divide_the_ports_are_accepted(planes: int) -> None:
    assert mpft_with("fabric.planes", planes).fabric.planes == planes


def test_a_fabric_may_be_replaced_as_a_table() -> None:
    table = CLUSTERS.document("h800-2048-mrft").values["fabric"]
    assert mpft_with("fabric", table).fabric == CLUSTERS.load("h800-2048-mrft").fabric


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("fabric.planes", 3, "fabric.planes: must divide the 8 NIC ports of a node, got 3"),
        ("fabric.planes", 0, "fabric.planes: input should be greater than or equal to 1, got 0"),
        ("fabric.switch_radix", 63, "fabric.switch_radix: input should be a multiple of 2, got 63"),
        ("fabric.kind", "torus", "fabric: kind 'torus': unknown; known: dragonfly, fat_tree, "),
        ("nodes", 2049, "fabric: multi_plane_fat_tree with switches of 64 ports holds 1 to 16384 "),
        ("nodes", "many", "nodes: must be a whole number, got 'many'"),
        ("faults", ["plane:8"], "faults: plane must be below 8, got plane:8"),
        ("faults", ["nic:1"], "faults.0: must be one of node:NODE, nic:NODE.PORT, plane:PLANE, "),
        ("faults", 3, "faults: input should be a valid tuple, got 3"),
        ("node.nic.link_bytes_per_s", "400 Gbit", "node.nic.link_bytes_per_s: expected a unit of "),
    ],
)
def test_an_impossible_cluster_is_refused_in_one_line(path: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        mpft_with(path, value)
    assert str(caught.value).startswith(f"h800-2048-mpft: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("fabric.plane", "fabric.plane: unknown key 'plane'; did you mean 'planes'?"),
        ("node.chip.sm", "node.chip.sm: unknown key 'sm'; did you mean 'sms'?"),
        ("nodess", "nodess: unknown key 'nodess'; did you mean 'nodes'?"),
        ("nodes.count", "nodes.count: nodes is a single value, not a table"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        mpft_with(path, 1)
    assert str(caught.value) == message


def test_a_chip_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(UnknownPresetError, match=r"^chip 'h801': unknown preset; did you mean 'h"):
        mpft_with("node.chip", "h801")


KEYS = st.sampled_from(
    [
        *("base", "value", "source", "sources", "assumed", "p10", "p90", "kind", "name", "x", ""),
        *("nodes", "node", "fabric", "chip", "nic", "nics", "planes", "sms", "tensor"),
    ]
)
WORDS = st.sampled_from(
    ["h800", "h800x8", "h800-2048-mpft", "multi_rail_fat_tree", "8 GB", "1e999 s", "a\nb", ""]
)
TABLES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=12,
)


def refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except InputError as error:
        return str(error)
    return ""


@settings(deadline=None)  # some examples read presets
@given(st.dictionaries(KEYS, TABLES, max_size=5))
def test_whatever_a_document_says_it_loads_or_is_refused_in_one_line(values: Any) -> None:
    message = refusal(lambda: build(ClusterSpec, expand(ClusterSpec, values), "fuzz"))
    assert "\n" not in message


@settings(deadline=None)  # every example reads the presets anew
@given(st.lists(KEYS, min_size=1, max_size=4).map(".".join), TABLES)
def test_whatever_is_overridden_it_loads_or_is_refused_in_one_line(path: str, value: Any) -> None:
    assert "\n" not in refusal(lambda: mpft_with(path, value))


def test_a_fabric_slower_than_its_nics_is_refused() -> None:
    document = CLUSTERS.document("h800-2048-mpft")
    override(document, ClusterSpec, "node.nic.link_bytes_per_s", "800 Gb/s", "--set")
    with pytest.raises(SpecError, match=r"fabric\.link_bytes_per_s: at least .* set both"):
        build(ClusterSpec, document)
    override(document, ClusterSpec, "fabric.link_bytes_per_s", "800 Gb/s", "--set")
    assert build(ClusterSpec, document).node.nic.link_bytes_per_s == 100e9


def test_the_ports_of_a_topology_are_as_fast_as_the_nics() -> None:
    topology = mpft_with("node.nic.link_bytes_per_s", "200 Gb/s").topology()
    assert topology.bytes_per_s[topology.tx(0)] == 25e9
    assert topology.bytes_per_s[topology.uplink(0, 0)] == 50e9


def test_a_rack_alone_has_no_network() -> None:
    cluster = CLUSTERS.load("gb200-nvl72")
    assert (cluster.gpus, cluster.endpoints) == (72, 0)
    assert cluster.topology().directed_links == 0
    document = CLUSTERS.document("gb200-nvl72")
    override(document, ClusterSpec, "nodes", 2, "--set")
    with pytest.raises(SpecError, match=r"^nodes: must be 1 with fabric scale_up_only, got 2$"):
        build(ClusterSpec, document)


def test_a_fabric_that_is_only_counted_loads_but_has_no_routes_and_no_faults() -> None:
    document = CLUSTERS.document("h800-32928-slim-fly")
    assert build(ClusterSpec, document).fabric_counts.switches == 1568
    override(document, ClusterSpec, "faults", ["node:0"], "--set")
    with pytest.raises(SpecError, match="slim_fly, which is not routed yet"):
        build(ClusterSpec, document)


def test_three_layers_cost_a_hop_more_and_half_again_as_many_switches() -> None:
    two, three = CLUSTERS.load("h800-2048-ft2"), CLUSTERS.load("h800-2048-ft3")
    assert (two.fabric_counts.switches, three.fabric_counts.switches) == (96, 160)
    assert (two.topology().diameter, three.topology().diameter) == (3, 5)
    assert two.topology().bisection_bytes_per_s == three.topology().bisection_bytes_per_s


def test_a_single_fault_need_not_stand_in_a_list() -> None:
    document = CLUSTERS.document("h800-2048-mpft")
    override(document, ClusterSpec, "faults", "plane:3", "test")
    assert [str(fault) for fault in build(ClusterSpec, document, "one").faults] == ["plane:3"]
