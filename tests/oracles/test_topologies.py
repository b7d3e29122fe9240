"""Topologies against networkx: what index arithmetic says of routes, the graph must say too."""

from itertools import combinations, pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.fabrics import SwitchedFabric
from hwmodels.fabrics.fat_tree import FatTree
from hwmodels.fabrics.multi_plane_fat_tree import MultiPlaneFatTree
from hwmodels.fabrics.multi_rail_fat_tree import MultiRailFatTree
from hwmodels.fabrics.rail_only import RailOnly
from hwmodels.fabrics.topology import Topology

RATES = {"link_bytes_per_s": 50e9, "host_latency_s": 2.35e-6, "hop_latency_s": 0.45e-6}


KINDS = {
    "two layers": lambda few, **values: (FatTree(layers=2, **values), few),
    "three layers": lambda few, **values: (FatTree(layers=3, **values), few),
    "planes": lambda few, **values: (MultiPlaneFatTree(planes=few, **values), few),
    "planes of two ports": lambda few, **values: (MultiPlaneFatTree(planes=few, **values), 2 * few),
    "rails": lambda few, **values: (MultiRailFatTree(rails=few, **values), few),
    "rails only": lambda few, oversubscription, **values: (RailOnly(planes=few, **values), few),
}
"""Fabrics of `few` planes or rails, and the NIC ports of a node."""

every_kind = pytest.mark.parametrize("kind", KINDS)


def fabrics(kind: str, data: st.DataObject) -> tuple[SwitchedFabric, int]:
    """Draw a small fabric and the NIC ports of its nodes."""
    radix = 2 * data.draw(st.integers(2, 3 if kind == "three layers" else 6))
    oversubscription = data.draw(st.none() | st.floats(1, radix - 1))
    few = data.draw(st.integers(1, 3))
    values = {"switch_radix": radix, "oversubscription": oversubscription, **RATES}
    return KINDS[kind](few, **values)


def topologies(kind: str, data: st.DataObject) -> Topology:
    """Draw a small fabric wired to some nodes, one or as many as it holds among them."""
    fabric, ports = fabrics(kind, data)
    nodes = data.draw(st.integers(1, min(fabric.endpoints_max, 80) // ports))
    rate = data.draw(st.sampled_from([None, 25e9]))
    return fabric.topology(nodes, ports, rate)


def pairs(topology: Topology, data: st.DataObject) -> set[tuple[int, int]]:
    """The first port with the last, and some pairs of different ports."""
    port = st.integers(0, topology.endpoints - 1)
    drawn = data.draw(st.sets(st.tuples(port, port), max_size=6))
    return {pair for pair in drawn | {(0, topology.endpoints - 1)} if pair[0] != pair[1]}


def shortest_paths(graph: nx.MultiDiGraph, source: int, target: int) -> int:
    """How many shortest paths there are, each of parallel cables a path of its own."""
    return sum(
        int(np.prod([graph.number_of_edges(*step) for step in pairwise(path)]))
        for path in nx.all_shortest_paths(graph, source, target)
    )


@every_kind
@settings(max_examples=25)
@given(data=st.data())
def test_choices_are_all_shortest_paths_of_the_graph(kind: str, data: st.DataObject) -> None:
    topology = topologies(kind, data)
    graph = topology.graph()
    for source, target in pairs(topology, data):
        connected = nx.has_path(graph, source, target)
        assert connected == topology.connected(source, target)
        if not connected:
            assert topology.choices(source, target) == 0
            continue
        choices = int(topology.choices(source, target))
        assert choices == shortest_paths(graph, source, target)
        switches = nx.shortest_path_length(graph, source, target) - 1
        assert switches == topology.switches_passed(source, target)
        routes = topology.routes(source, target, np.arange(choices))
        assert len({tuple(route) for route in routes.tolist()}) == choices
        for route in routes.tolist():
            check_route(topology, route, source, target, switches)


def check_route(topology: Topology, route: list[int], source: int, target: int, switches: int):
    """A route is a path of the graph from source to target, padded after its end."""
    links = route[: switches + 1]
    assert route[switches + 1 :] == [-1] * (len(route) - switches - 1)
    assert links[0] == topology.tx(source)
    assert links[-1] == topology.rx(target)
    tail, head = topology.tail[links], topology.head[links]
    assert tail[0] == source
    assert head[-1] == target
    assert (head[:-1] == tail[1:]).all()


@every_kind
@settings(max_examples=15)
@given(data=st.data())
def test_the_graph_has_the_counts_and_an_end_for_every_cable(
    kind: str, data: st.DataObject
) -> None:
    topology = topologies(kind, data)
    graph = topology.graph()
    assert graph.number_of_nodes() == topology.endpoints + topology.switches
    assert graph.number_of_edges() == topology.directed_links
    assert topology.links == graph.number_of_edges() // 2 - topology.endpoints
    degree = np.bincount(topology.tail, minlength=graph.number_of_nodes())
    assert (degree == np.bincount(topology.head, minlength=graph.number_of_nodes())).all()
    assert (degree[: topology.endpoints] == 1).all()
    assert (degree[topology.endpoints :] >= 1).all()
    planes = list(nx.weakly_connected_components(graph))
    assert len(planes) == topology.clos.planes


@every_kind
@settings(max_examples=25)
@given(data=st.data())
def test_switches_have_the_ports_and_counts_are_the_graphs(kind: str, data: st.DataObject) -> None:
    fabric, ports = fabrics(kind, data)
    nodes = data.draw(st.integers(1, fabric.endpoints_max // ports))
    topology = fabric.topology(nodes, ports)
    counts = fabric.counts(nodes * ports)
    assert (counts.switches, counts.links) == (topology.switches, topology.links)
    assert topology.diameter == fabric.diameter(nodes * ports)
    degree = np.bincount(topology.tail)[topology.endpoints :]
    assert degree.max() <= fabric.switch_radix


@every_kind
@settings(max_examples=10)
@given(data=st.data())
def test_the_diameter_is_that_of_the_graph(kind: str, data: st.DataObject) -> None:
    """Switches on the longest shortest path between ports of one plane."""
    topology = topologies(kind, data)
    graph = topology.graph()
    steps = dict(nx.all_pairs_shortest_path_length(graph))
    ports = range(topology.endpoints)
    longest = max((steps[s][t] for s in ports for t in ports if t in steps[s]), default=0)
    assert longest - 1 in (topology.diameter, -1)


@every_kind
@settings(max_examples=15)
@given(data=st.data())
def test_what_nodes_can_send_the_others_is_a_minimum_cut(kind: str, data: st.DataObject) -> None:
    """By halves, and by any other choice of senders."""
    topology = topologies(kind, data)
    graph = nx.DiGraph()
    for tail, head, rate in topology.graph().edges(data="capacity"):
        known = graph.get_edge_data(tail, head, {"capacity": 0.0})["capacity"]
        graph.add_edge(tail, head, capacity=known + rate)
    lower = np.arange(topology.nodes) < topology.nodes // 2
    some = data.draw(st.lists(st.booleans(), min_size=topology.nodes, max_size=topology.nodes))
    assert topology.bisection_bytes_per_s == pytest.approx(max_flow(graph, topology, lower))
    senders = np.array(some)
    assert topology.cut_bytes_per_s(senders) == pytest.approx(max_flow(graph, topology, senders))


def max_flow(graph: nx.DiGraph, topology: Topology, senders: np.ndarray) -> float:
    """What flows from the ports of some nodes to those of the others."""
    flow = graph.copy()
    flow.add_nodes_from(["source", "sink"])
    for endpoint in range(topology.endpoints):
        sends = senders[endpoint // topology.ports]
        flow.add_edge(*(("source", endpoint) if sends else (endpoint, "sink")))
    return nx.maximum_flow_value(flow, "source", "sink")


@pytest.mark.parametrize("oversubscription", [None, 2, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda **more: (FatTree(layers=2, **more), 1),
        lambda **more: (FatTree(layers=3, **more), 1),
        lambda **more: (MultiPlaneFatTree(planes=2, **more), 2),
        lambda **more: (MultiRailFatTree(rails=2, **more), 2),
    ],
)
def test_no_other_halves_have_less_between_them(make, oversubscription) -> None:
    """All halves of four full leaves (of a rail: two), tried one by one."""
    fabric, ports = make(switch_radix=4, oversubscription=oversubscription, **RATES)
    nodes = 4 * fabric.leaf_down // (2 if isinstance(fabric, MultiRailFatTree) else 1)
    topology = fabric.topology(nodes, ports)
    cuts = []
    for half in combinations(range(nodes), nodes // 2):
        senders = np.zeros(nodes, dtype=bool)
        senders[list(half)] = True
        cuts.append(topology.cut_bytes_per_s(senders))
    assert min(cuts) == topology.bisection_bytes_per_s


@every_kind
@settings(max_examples=25)
@given(data=st.data())
def test_halves_never_exchange_more_than_their_ports_send(kind: str, data: st.DataObject) -> None:
    topology = topologies(kind, data)
    assert topology.bisection_bytes_per_s <= topology.bytes_per_s[: topology.endpoints].sum() / 2
