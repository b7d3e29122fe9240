"""No link carries more than it can in the time told; dead links are found by halves of paths."""

from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwmodels.errors import InfeasibleError, InputError
from hwmodels.fabrics.topology import Topology
from simulator.network.collectives import KINDS, algorithms_of
from simulator.network.collectives.plan import Plan
from simulator.network.flows import Flows
from simulator.network.links import Network, Speeds
from simulator.network.placement import place
from simulator.network.routing import _living, reachable
from simulator.network.run import run_groups
from simulator.network.timing import stage_seconds
from tests.clusters import cluster

FAULTS = ("nic:1.2", "plane:0=0.5", "leaf:0.0=0.5", "nic:0.3=0.25", "link:0.0.1", "spine:0.0=0.1")
FABRICS = ("mrft", "mpft", "ft2", "ft3", "roce")
ROUTINGS = ("static", "ecmp", "adaptive")


@cache
def network(fabric, nodes, routing, seed, fault=None):
    """Raises InputError where the fabric has no such part."""
    broken = {"faults": [fault]} if fault else {}
    return Network.of(cluster(f"h800-2048-{fabric}", nodes=nodes, **broken), routing, seed)


def largest_load(net, groups, kind, algorithm):
    """The busiest link's bytes over what it carries until the last group's flows end."""
    runs = run_groups(kind, 2.0**30, groups, net, algorithm=algorithm)
    crossed = runs[0].link_bytes > 0
    busy_s = (runs[0].link_bytes[crossed] / net.bytes_per_s[crossed]).max(initial=0.0)
    return busy_s / max(run.wire_s for run in runs) if busy_s else 0.0


@given(
    fabric=st.sampled_from(FABRICS),
    nodes=st.sampled_from([4, 16, 33]),
    ranks=st.integers(2, 20),
    count=st.integers(1, 11),
    kind=st.sampled_from(KINDS),
    how=st.sampled_from(["random", "packed", "spread"]),
    routing=st.sampled_from(ROUTINGS),
    seed=st.integers(0, 20),
    fault=st.sampled_from([None, *FAULTS]),
)
@settings(max_examples=80, deadline=None)
def test_no_link_carries_more_than_it_can(
    fabric, nodes, ranks, count, kind, how, routing, seed, fault
):
    assume(ranks <= nodes * 8)
    try:
        net = network(fabric, nodes, routing, seed, fault)
    except InputError:
        assume(False)
    groups = place(net.cluster, ranks, min(count, nodes * 8 // ranks), how, seed)
    for algorithm in algorithms_of(kind):
        try:
            load = largest_load(net, groups, kind, algorithm)
        except InfeasibleError:
            continue  # groups on one node, cut off, or without a tree of switches
        assert load <= 1 + 1e-9, algorithm


@given(
    fabric=st.sampled_from(["mrft", "ft2"]),
    ranks=st.integers(3, 6),
    count=st.integers(6, 10),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_small_groups_that_meet_in_either_stage_load_no_link_above_what_it_carries(
    fabric, ranks, count, seed
):
    """Some of them have all ranks on nodes of their own, and so no first stage; timed stage by
    stage apart, one in seven such sets overloads a link.
    """
    net = network(fabric, 16, "adaptive", 0)
    groups = place(net.cluster, ranks, count, "random", seed)
    try:
        load = largest_load(net, groups, "all_to_all", "hierarchical")
    except InfeasibleError:
        assume(False)  # some group lies on one node
    assert load <= 1 + 1e-9


def test_groups_that_share_a_link_start_each_stage_together_and_others_go_on():
    """Links of 1 B/s. Two groups meet on link 0 in their second stage; one of them has no first,
    and waits two seconds for the other's on link 1. Then 1 B ends after two seconds at half the
    rate, and of 2 B the last has the link to itself for one. The third group meets nobody.
    """

    def over(link, size_bytes):
        return Flows.of(np.array([[link]]), np.array([size_bytes]))

    none = Flows.of(np.zeros((0, 1), np.int64), np.zeros(0))
    stages = (
        (none, over(0, 1.0)),
        (over(1, 2.0), over(0, 2.0)),
        (over(2, 3.0), over(2, 4.0)),
    )
    plans = tuple(Plan(of_group, 0, 0, 0, 0, 0.0) for of_group in stages)
    wires = network("mrft", 16, "adaptive", 0).wiring  # links 0 to 2 are NVLink, at a rate of 1
    end_s = stage_seconds(wires, plans).at(Speeds(1.0, 1.0, 1.0)).moving_s
    assert end_s == pytest.approx([4.0, 5.0, 7.0], rel=1e-12)


def test_groups_without_a_first_stage_wait_for_those_that_share_links():
    """Of eight random groups of five, some have each rank on a node of its own and send at once;
    load 4/3 when the others' second stage was timed as if these were through.
    """
    net = network("mrft", 16, "adaptive", 75)
    groups = place(net.cluster, 5, 8, "random", 75)
    assert largest_load(net, groups, "all_to_all", "hierarchical") <= 1 + 1e-9


@pytest.mark.parametrize("routing", ["static", "ecmp"])
def test_a_tree_of_switches_over_a_dead_link_is_refused_in_words(routing):
    """Tree 1 climbs by uplink 1 of each leaf."""
    net = network("ft3", 16, routing, 0, "link:0.0.1")
    with pytest.raises(InfeasibleError, match=r"every link of its trees, link:0\.0\.1 is down"):
        run_groups("all_reduce", 2.0**30, [range(128)], net, algorithm="in-network")


def test_a_tree_of_switches_climbs_by_what_is_left_of_a_bundle():
    net = network("ft3", 16, "adaptive", 0, "link:0.0.1")
    assert largest_load(net, [range(128)], "all_reduce", "in-network") <= 1 + 1e-9


@given(
    fabric=st.sampled_from(["ft2", "ft3", "mpft"]),
    parts=st.lists(
        st.tuples(st.sampled_from(["link", "spine", "core"]), st.integers(0, 3), st.integers(0, 3)),
        min_size=1,
        max_size=4,
        unique=True,
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_choice_is_whole_if_every_link_between_its_leaves_is_alive(fabric, parts, seed):
    """Every choice of every pair, path by path."""
    faults = {
        f"spine:0.{first}" if kind == "spine" else f"{kind}:0.{first}.{second}"
        for kind, first, second in parts
        if kind != "core" or fabric == "ft3"
    }
    assume(faults)
    net = Network.of(cluster(f"h800-2048-{fabric}", nodes=256, faults=sorted(faults)))
    rng, rate, topology = np.random.default_rng(seed), net.fabric_bytes_per_s, net.topology
    source, target = rng.integers(0, topology.endpoints // 8, (2, 40)) * 8  # all on plane 0
    row, living = _living(net, source, target)
    for number, (one, other) in enumerate(zip(source.tolist(), target.tolist(), strict=True)):
        count = int(topology.choices(one, other))
        between = topology.routes(one, other, np.arange(count))[:, 1:-1]
        between = np.where(between == topology.endpoints + other, -1, between)
        whole = ((rate[between] > 0) | (between < 0)).all(axis=1)
        assert (living[row[number], :count] == whole).all()
        assert not living[row[number], count:].any()


def test_paths_are_looked_at_for_each_leaf_not_for_each_pair(monkeypatch):
    """With a core's link down, of eight leaves under each of two pods: 16 times all ways over the
    cores, and not 64 times.
    """
    net = Network.of(cluster("h800-2048-ft3", faults=["core:0.0.0"]))
    topology = net.topology
    first = np.unique(topology.leaf_of, return_index=True)[1]
    pod = topology.pod_of[first]
    near, far = first[pod == pod[0]][:8], first[pod != pod[0]][:8]
    source, target = (axis.ravel() for axis in np.meshgrid(near, far))
    looked, routes = [], Topology.routes

    def counted(self, source, target, choice=0):
        found = routes(self, source, target, choice)
        looked.append(len(found))
        return found

    monkeypatch.setattr(Topology, "routes", counted)
    assert reachable(net, source, target).all()
    assert sum(looked) == 16 * int(topology.choices(near[0], far[0]))
