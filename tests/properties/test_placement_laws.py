"""Where ranks sit, over random meshes and nodes of any size, against counting rank by rank."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.network.group_ports import GroupPorts
from simulator.network.slowest_port import normal_ports
from workloads.blocks.moe import MoESpec
from workloads.homes import homes_of, shared_tables
from workloads.layers import Layer
from workloads.mesh import Mesh
from workloads.parallel import ParallelPlan
from workloads.placement import Placement, members_by_node
from workloads.routing import copies_on
from workloads.routing_matrix import expected_matrix
from workloads.schedules import SCHEDULES


def mesh_of(pp, edp, ep):
    """Ranks that are data-parallel, `ep` in a row an expert group."""
    return Mesh.of(
        dense={"pp": pp, "dp": edp * ep, "cp": 1, "tp": 1},
        expert={"pp": pp, "edp": edp, "ep": ep, "etp": 1},
    )


@st.composite
def placements(draw):
    pp, ep, edp = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    return Placement(mesh_of(pp, edp, ep), draw(st.integers(1, 20)))


@st.composite
def chosen(draw):
    """A placement and some of its pipeline ranks."""
    placement = draw(placements())
    ranks = st.integers(0, placement.mesh.size("pp") - 1)
    return placement, draw(st.lists(ranks, min_size=1, unique=True))


def counted(ranks, gpus_per_node):
    """Members of each node, by node."""
    nodes = Counter(rank // gpus_per_node for rank in ranks)
    return tuple(nodes[node] for node in sorted(nodes))


@given(st.integers(0, 100), st.integers(1, 100), st.integers(1, 20))
def test_gpus_in_a_row_are_counted_node_by_node(first, count, gpus_per_node):
    assert members_by_node(first, count, gpus_per_node) == counted(
        range(first, first + count), gpus_per_node
    )


@given(chosen())
def test_groups_are_those_of_the_mesh(given_placement):
    """Replicas of dense weights, of each expert, and holders of one table; expert groups."""
    placement, held = given_placement
    mesh, size = placement.mesh, placement.gpus_per_node
    edps, eps, dps = (range(mesh.size(axis)) for axis in ("edp", "ep", "dp"))
    dense = [pp * len(dps) + dp for pp in held for dp in dps]
    assert placement.dense_replicas(held).tolist() == [sorted(dense)]
    experts = [
        [(pp * len(edps) + edp) * len(eps) + ep for pp in held for edp in edps] for ep in eps
    ]
    assert placement.expert_replicas(held).tolist() == [sorted(own) for own in experts]
    joint = [[pp * len(dps) + dp for pp in held] for dp in dps]
    assert placement.joint_replicas(held).tolist() == [sorted(own) for own in joint]
    for pp in range(mesh.size("pp")):
        for edp in edps:
            first = (pp * len(edps) + edp) * len(eps)
            group = range(first, first + len(eps))
            assert placement.layouts[placement.layout_of_group[pp, edp]] == counted(group, size)


@given(placements())
def test_a_message_crosses_where_its_ends_are_on_two_nodes(placement):
    dp_size, size = placement.mesh.size("dp"), placement.gpus_per_node
    for sender, receiver, dp in np.ndindex(placement.crosses.shape):
        ends = (sender * dp_size + dp) // size, (receiver * dp_size + dp) // size
        assert placement.crosses[sender, receiver, dp] == (ends[0] != ends[1])


MEMBERS = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@given(MEMBERS, st.integers(1, 3), st.integers(1, 6), st.integers(0, 1000))
def test_ports_carry_what_walking_every_copy_counts(members, local, top_k, seed):
    """Each GPU's copies for a node cross to the member of its number, modulo how many there are,
    and go on from there; and a hot GPU, and a hot node, receive in proportion.
    """
    experts = sum(members) * local
    moe = MoESpec(routed_experts=experts, top_k=min(top_k, experts), expert_width=1)
    routing = copies_on(moe, members)
    load = np.random.default_rng(seed).uniform(0.5, 1.5, sum(members))
    load /= load.mean()
    place = [(node, number) for node, count in enumerate(members) for number in range(count)]
    nic, nvlink = np.zeros((2, 2, len(place)))
    for source, (home, number) in enumerate(place):
        for node, count in enumerate(members):
            forwarder = place.index((node, number % count))
            if node != home:
                nic[0, source] += routing.node_hits[node]
                own = [load[place.index((node, each))] for each in range(count)]
                nic[1, forwarder] += routing.node_hits[node] * np.mean(own)
            for target in (place.index((node, each)) for each in range(count)):
                if target != forwarder:
                    copies = routing.gpus_per_token / len(place)
                    nvlink[0, forwarder] += copies
                    nvlink[1, target] += copies * load[target]
    ports = GroupPorts.of(routing)
    assert ports.nic * ports.nic_load(load) == pytest.approx(nic.max(axis=0), rel=1e-9, abs=1e-12)
    assert ports.nvlink * ports.nvlink_load(load) == pytest.approx(
        nvlink.max(axis=0), rel=1e-9, abs=1e-12
    )


@st.composite
def stages_with_tables(draw):
    """A plan, and layers of its stages that hold some of three tables."""
    name = draw(st.sampled_from(sorted(SCHEDULES)))
    pp = draw(st.sampled_from([2, 4, 6]))
    names = st.lists(st.sampled_from(["embedding", "head", "norm"]), unique=True, max_size=3)
    stages = [
        [Layer("moe", tables=tuple((name, float(len(name))) for name in draw(names)))]
        for _ in range(SCHEDULES[name].stages(pp))
    ]
    return ParallelPlan(pp=pp, schedule=name), stages


@given(stages_with_tables(), st.integers(1, 3), st.integers(1, 7))
def test_tables_are_reduced_between_the_ranks_that_hold_them(given_stages, dp, gpus_per_node):
    """Not where one home holds all uses of it; else each pipeline joins one rank of each home."""
    plan, stages = given_stages
    placement = Placement(mesh_of(plan.pp, dp, 1), gpus_per_node)
    names = [{name for layer in stage for name, _ in layer.tables} for stage in stages]
    holds = [
        set().union(*(names[stage] for stage in plan.stages_of_rank(rank)))
        for rank in range(plan.pp)
    ]
    copies = plan.pipeline_schedule.PARAMETER_COPIES
    found = {table.name: table for table in shared_tables(homes_of(plan), stages)}
    for name in ("embedding", "head", "norm"):
        ranks = {rank for rank in range(plan.pp) if name in holds[rank]}
        assert (name in found) == (len(ranks) > copies)
        if name not in found:
            continue
        table = found[name]
        assert {rank for own in table.ranks for rank in own} == ranks
        assert [len(own) for own in table.ranks] == [len(ranks) // copies] * copies
        for own in table.ranks:
            stages_held = [set(plan.stages_of_rank(rank)) for rank in own]
            assert all(stages_held.count(each) == 1 for each in stages_held)
        for rank in range(plan.pp):
            seen = table.seen_from(rank, placement)
            assert seen.parameters == (len(name) if rank in ranks else 0)
            if rank not in ranks:
                assert seen.groups.shape[1] == 1
            else:
                assert seen.groups.shape == (copies * dp, len(ranks) // copies)


def test_even_ports_are_those_of_the_slowest_port_formula():
    for nodes, in_node in ((1, 8), (2, 4), (8, 8), (3, 5)):
        moe = MoESpec(routed_experts=nodes * in_node, top_k=3, expert_width=1)
        routing = copies_on(moe, (in_node,) * nodes)
        expected = normal_ports(expected_matrix(routing, 1.0, 3))
        ports = GroupPorts.of(routing)
        assert (ports.nic, ports.nvlink) == pytest.approx((expected.nic, expected.nvlink), rel=1e-9)
