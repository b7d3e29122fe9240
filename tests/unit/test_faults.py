"""Faults: read and written as words, refused where there is nothing to break, felt by the links."""

from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hwmodels.cluster import CLUSTERS, ClusterSpec
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics.fat_tree import FatTree
from hwmodels.fabrics.topology import Topology
from hwmodels.faults import PLACES, FaultSpec, check_faults, dead_nodes, degraded
from hwmodels.fields import with_numbers
from hwmodels.spec import build, override
from hwmodels.units import LEAST_SHARE

MPFT = CLUSTERS.load("h800-2048-mpft").topology()
LINK = {"link_bytes_per_s": 50e9, "host_latency_s": 0.0, "hop_latency_s": 0.0}
# Two pods of two leaves of two ports, two spines each, and a core for each pair of spines.
THREE_LAYERS = FatTree(layers=3, switch_radix=4, **LINK).topology(nodes=4, ports=2)


def fault(text: str) -> FaultSpec:
    return FaultSpec.model_validate(text)


def slowed(topology: Topology, *faults: str) -> dict[str, float]:
    """Return the links that faults touch, by name, with the share of their rate that is left."""
    left = degraded(topology, [fault(text) for text in faults]) / topology.bytes_per_s
    return {topology.link_name(link): left[link] for link in np.flatnonzero(left < 1).tolist()}


@given(st.sampled_from(sorted(PLACES)), st.data())
def test_a_fault_is_written_as_it_is_read(kind: str, data: st.DataObject) -> None:
    numbers = data.draw(st.tuples(*[st.integers(0, 10**6)] * len(PLACES[kind])))
    left = data.draw(st.none() | st.floats(LEAST_SHARE, 1, exclude_max=True))
    text = f"{kind}:{'.'.join(map(str, numbers))}" + ("" if left is None else f"={left!r}")
    read = fault(text)
    assert (read.kind, read.place, read.rate_left) == (kind, numbers, left or 0.0)
    assert str(read) == read.model_dump() == text
    assert fault(read.model_dump_json().strip('"')) == read
    assert FaultSpec.model_validate(read) is read


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("fan:2", "must be one of node:NODE, nic:NODE.PORT, .*, got 'fan:2'"),
        ("nic:2", "must be one of .*, got 'nic:2'"),
        ("plane:1.2", "must be one of"),
        ("plane:-1", "must be one of"),
        ("plane", "must be one of"),
        ("plane:1 ", "must be one of"),
        ("plane:1\n", "must be one of"),
        ("", "must be one of"),
        (3, "must be one of .*, got 3"),
        ({"kind": "plane"}, "must be one of"),
        ("plane:" + "9" * 200, r"got 'plane:9+\.\.\.9+'"),
        ("nic:1.2=1", "share left must be 0, or at least 0.0001 and below 1, got 'nic:1.2=1'"),
        ("nic:1.2=half", "share left must be 0, or at least"),
        ("nic:1.2=nan", "share left must be 0, or at least"),
        ("nic:1.2=-0.1", "share left must be 0, or at least"),
        ("nic:1.2=5e-324", "share left must be 0, or at least"),
        ("nic:1.2=", "must be one of"),
    ],
)
def test_what_is_no_fault_is_refused_in_one_line(written: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        fault(written)
    assert "\n" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("topology", "text", "message"),
    [
        (MPFT, "node:256", "node must be below 256"),
        (MPFT, "nic:256.0", "node must be below 256"),
        (MPFT, "nic:0.8=0.5", "port must be below 8"),
        (MPFT, "plane:8", "plane must be below 8"),
        (MPFT, "leaf:7.8", "leaf must be below 8"),
        (MPFT, "spine:0.4", "spine must be below 4"),
        (MPFT, "link:0.0.32", "uplink must be below 32"),
        (MPFT, "core:0.0.0", "no aggregation in this cluster"),
        (THREE_LAYERS, "spine:0.6", "spine must be below 6"),
        (THREE_LAYERS, "core:0.4.0", "aggregation must be below 4"),
        (THREE_LAYERS, "core:0.3.2", "uplink must be below 2"),
        (CLUSTERS.load("h800-512-rail-only").topology(), "spine:0.0", "no spine in this cluster"),
        (CLUSTERS.load("h800-512-rail-only").topology(), "link:0.0.0", "no uplink in this cluster"),
        (CLUSTERS.load("gb200-nvl72").topology(), "nic:0.0", "no port in this cluster"),
        (CLUSTERS.load("gb200-nvl72").topology(), "plane:0", "no plane in this cluster"),
    ],
)
def test_a_fault_of_what_is_not_there_is_refused(
    topology: Topology, text: str, message: str
) -> None:
    with pytest.raises(InfeasibleError) as caught:
        check_faults(topology, [fault("node:0"), fault(text)])
    assert str(caught.value) == f"faults: {message}, got {text}"
    with pytest.raises(InfeasibleError):
        degraded(topology, [fault(text)])


def test_a_fault_slows_what_it_names() -> None:
    topology = THREE_LAYERS
    assert slowed(topology) == {}
    assert slowed(topology, "nic:1.1=0.5") == {"nic:1.1 out": 0.5, "nic:1.1 in": 0.5}
    assert slowed(topology, "link:0.3.1") == {"link:0.3.1 up": 0, "link:0.3.1 down": 0}
    assert slowed(topology, "core:0.2.1") == {"core:0.2.1 up": 0, "core:0.2.1 down": 0}
    assert sorted(slowed(topology, "node:3")) == [
        *("nic:3.0 in", "nic:3.0 out", "nic:3.1 in", "nic:3.1 out"),
    ]
    assert sorted(slowed(topology, "leaf:0.1")) == sorted(
        [f"nic:1.{port} {way}" for port in (0, 1) for way in ("in", "out")]
        + [f"link:0.1.{up} {way}" for up in (0, 1) for way in ("up", "down")]
    )
    assert sorted(slowed(topology, "spine:0.3")) == sorted(
        [f"link:0.{leaf}.1 {way}" for leaf in (2, 3) for way in ("up", "down")]
        + [f"core:0.3.{up} {way}" for up in (0, 1) for way in ("up", "down")]
    )
    assert sorted(slowed(topology, "spine:0.4")) == sorted(  # the first core, of group 0
        f"core:0.{spine}.{up} {way}" for spine in (0, 2) for up in (0, 1) for way in ("up", "down")
    )


def test_of_several_faults_the_worst_counts() -> None:
    links = slowed(THREE_LAYERS, "leaf:0.0=0.5", "nic:0.0=0.25", "nic:0.1=0.75", "nic:2.0=0.9")
    assert (links["nic:0.0 out"], links["nic:0.1 out"], links["nic:2.0 in"]) == (0.25, 0.5, 0.9)


def test_a_plane_down_leaves_the_others_alone() -> None:
    left = degraded(MPFT, [fault("plane:3")])
    of_plane = MPFT.plane_of == 3
    assert (left[MPFT.tx(np.flatnonzero(of_plane))] == 0).all()
    assert (left == 0).sum() == 2 * (256 + 256)
    assert (left[left > 0] == 50e9).all()


@given(st.data())
def test_a_switch_down_is_a_vertex_less(data: st.DataObject) -> None:
    """Links that a dead switch leaves standing are those of the graph without it."""
    plane, graph = "0", THREE_LAYERS.graph()
    kind, count = data.draw(st.sampled_from([("leaf", 4), ("spine", 6)]))
    number = data.draw(st.integers(0, count - 1))
    find = THREE_LAYERS.leaf_vertex if kind == "leaf" else THREE_LAYERS.spine_vertex
    graph.remove_node(find(0, number))
    left = degraded(THREE_LAYERS, [fault(f"{kind}:{plane}.{number}")])
    assert sorted(key for _, _, key in graph.edges(keys=True)) == np.flatnonzero(left).tolist()
    standing = nx.weakly_connected_components(graph)
    assert len(list(standing)) == (1 + 2 if kind == "leaf" else 1)  # two ports without a leaf


def test_a_node_is_dead_when_nothing_of_it_is_left() -> None:
    faults = [fault(text) for text in ("node:3", "node:5=0.5", "nic:6.0", "node:9")]
    assert dead_nodes(faults) == {3, 9}


def test_a_cluster_carries_its_faults() -> None:
    document = CLUSTERS.document("h800-2048-mpft")
    override(document, ClusterSpec, "faults", ["plane:3", "nic:17.2=0.5"], "--set")
    cluster = build(ClusterSpec, document)
    assert [str(each) for each in cluster.faults] == ["plane:3", "nic:17.2=0.5"]
    assert cluster.model_dump()["faults"] == ("plane:3", "nic:17.2=0.5")
    assert ClusterSpec.model_validate_json(cluster.model_dump_json()) == cluster
    assert with_numbers(cluster, {"nodes": 128}).faults == cluster.faults
    left = cluster.degraded_bytes_per_s()
    assert left[cluster.topology().tx(17 * 8 + 2)] == 25e9
    assert left[cluster.topology().tx(3)] == 0
