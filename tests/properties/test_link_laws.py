"""Which link bytes take, over random plans, placements and clusters, in every way to play them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.driver.run import run
from simulator.driver.step import play
from simulator.lower.nic_crossings import EXCHANGE, MESSAGE, RING
from simulator.network.exchange_pricer import ExchangePricer
from simulator.network.group_ports import GroupPorts
from simulator.network.machine import Machine
from simulator.network.price import comm_s
from tests.clusters import cluster
from tests.layer_work import exchange
from tests.placements import job, jobs
from tests.prices import PROFILE, RATES, exchange_rates
from workloads.blocks.moe import MoESpec
from workloads.ops import Comm
from workloads.routing import copies_on

NICLESS = exchange_rates(
    **{
        name: float("nan")
        for name in ("dispatch_nic", "combine_nic", "forwarding_nvlink", "latency_s")
    },
)
"""Whoever reads a rate of a NIC, or a latency of the fabric, gets no number."""

PLAYS = {
    "folded": {},
    "explicit": {"ranks.play": "explicit"},
    "shared": {"communication.nics": "shared"},
    "apart": {"ranks.jitter": 0.05, "ranks.gpu_speed_sigma": 0.03},
}


# Prices


@given(
    st.integers(2, 72),
    st.integers(1, 10**9),
    st.sampled_from(["send", "all_gather", "reduce_scatter", "all_reduce"]),
)
def test_collectives_and_messages_inside_a_node_read_no_nic(members, size_bytes, kind):
    rack = cluster(nodes=2, node__gpus=72, node__nics=72, fabric__planes=1)
    machine = Machine.of_ports(rack, PROFILE.communication)
    broken = replace(machine, speeds=machine.speeds._replace(port=1e-6))
    comm = Comm("x", kind, (), float(size_bytes))
    with_nic, without = (comm_s(comm, np.arange(members)[None], m) for m in (machine, broken))
    assert without.seconds.tolist() == with_nic.seconds.tolist()
    assert not with_nic.nic_s.any()
    assert (without.seconds > 0).all()


@given(st.integers(1, 72), st.sampled_from(["dispatch", "combine"]), st.integers(0, 100))
def test_exchanges_inside_a_node_read_no_nic(ep, carrier, seed):
    """In a part of a rack as in a whole one; among one GPU nothing takes any time."""
    moe = MoESpec(routed_experts=2 * ep, top_k=2, expert_width=1)
    load = np.random.default_rng(seed).uniform(0.5, 1.5, (3, ep))
    nic = np.full(ep, 7.0)
    with_nic, without = (
        ExchangePricer(rates, (GroupPorts.of(copies_on(moe, (ep,))),)).exchange_s(
            exchange(carrier, tokens=1024, hidden=1024), load, nic
        )
        for rates in (RATES, NICLESS)
    )
    assert with_nic.tolist() == without.tolist()
    assert (without > 0).all() if ep > 1 else (without == 0).all()


@given(st.lists(st.integers(1, 8), min_size=2, max_size=6), st.booleans())
def test_no_collective_between_nodes_is_faster_for_slower_links(by_node, nics):
    """Of NICs or of NVLink: on nodes that hold any numbers of the ranks."""
    wide = cluster(nodes=8)
    machine = Machine.of_ports(wide, PROFILE.communication)
    gpus = [8 * node + place for node, held in enumerate(by_node) for place in range(held)]
    slow = machine.speeds._replace(**{"port" if nics else "nvlink": 20e9})
    comm = Comm("x", "reduce_scatter", (), 1e9)
    fast, slower = (
        comm_s(comm, np.array([gpus]), replace(machine, speeds=speeds)).seconds
        for speeds in (machine.speeds, slow)
    )
    assert (slower >= fast).all()


@given(st.integers(2, 7), st.integers(2, 7), st.data())
@settings(max_examples=30)
def test_no_collective_is_faster_for_an_emptier_node(held, nodes, data):
    """A member of one of several alike moves to another; NICs are all that takes time.

    On one tree, where GPUs send by their own NICs: on planes those of idle neighbours help. Of
    nodes that differ already it may be faster: rings are as many as the fullest node has members,
    so that of 4 and 5 one NIC carries two rings of five, of 3 and 6 two of six.
    """
    machine = Machine.of_ports(cluster("h800-2048-ft2", nodes=8), PROFILE.communication)
    machine = replace(machine, speeds=machine.speeds._replace(nvlink=1e18))
    one, other = data.draw(st.permutations(range(nodes)))[:2]
    moved = [held] * nodes
    moved[one], moved[other] = held - 1, held + 1
    kind = data.draw(st.sampled_from(["reduce_scatter", "all_gather"]))
    alike_s, emptier_s = (nic_s(machine, kind, by_node) for by_node in ([held] * nodes, moved))
    assert emptier_s > alike_s
    ring_s, apart_s = (nic_s(machine, kind, each, "ring") for each in ((4, 5), (3, 6)))
    assert ring_s / apart_s == pytest.approx((2 / 5) / (2 / 6), rel=1e-9)


@given(
    st.lists(st.integers(1, 8), min_size=2, max_size=8),
    st.sampled_from(["reduce_scatter", "all_gather"]),
)
@settings(max_examples=40)
def test_the_nics_of_every_node_carry_what_it_shares_with_the_others(by_node, kind):
    """Of `p` members a node with `m` gives or gets `(p - m) / p` of the bytes, by `m` NICs: the
    emptier it is, the longer all wait for it.
    """
    machine = Machine.of_ports(cluster("h800-2048-ft2", nodes=8), PROFILE.communication)
    rate = PROFILE.communication.message_nic_bytes_per_s
    ranks = sum(by_node)
    least_s = max((ranks - here) / ranks / here for here in by_node) * 1e12 / rate
    assert nic_s(machine, kind, by_node) >= least_s * (1 - 1e-9)


def nic_s(machine, kind, by_node, algorithm="auto"):
    """Seconds that NICs need for a terabyte, of ranks on so many first GPUs of each node."""
    gpus = [8 * node + place for node, held in enumerate(by_node) for place in range(held)]
    times = comm_s(Comm("x", kind, (), 1e12), np.array([gpus]), machine, algorithm=algorithm)
    return float(times.nic_s[0])


# Whole steps


SLOW_NICS = {
    "cluster.node.nic.link_bytes_per_s": "4 Gb/s",
    "cluster.node.pcie_bytes_per_s": "1 GB/s",
    "cluster.fabric.hop_latency_s": "1 ms",
    "cluster.fabric.host_latency_s": "1 ms",
}


@pytest.mark.parametrize("play", PLAYS)
@given(changes=jobs(nodes=1))
@settings(max_examples=12)
def test_where_nothing_leaves_a_node_no_nic_and_no_fabric_changes_any_metric(play, changes):
    experiment = job(changes | PLAYS[play])
    slow = experiment.with_overrides(SLOW_NICS)
    assert run(slow).metrics == run(experiment).metrics


@given(jobs(nodes=1), st.data())
@settings(max_examples=10)
def test_where_nothing_leaves_a_node_a_slow_nic_slows_nobody(changes, data):
    """But a slow NVLink may."""
    gpu = data.draw(st.integers(0, changes["plan.pp"] * changes["plan.dp"] - 1))
    explicit = job(changes | {"ranks.play": "explicit"})
    straggler = [{"gpu": gpu, "part": "nic", "slowdown": 50.0}]
    slow = play(explicit.with_overrides({"ranks.stragglers": straggler}))
    assert slow.times.step_s == play(explicit).times.step_s


@given(jobs(nodes=1), st.data())
@settings(max_examples=10)
def test_where_nothing_leaves_a_node_a_broken_nic_breaks_nothing(changes, data):
    """Down or at half its rate; nor do hashed paths, which begin behind it."""
    port = data.draw(st.integers(0, changes["cluster.node.gpus"] - 1))
    fault = data.draw(st.sampled_from([f"nic:0.{port}", f"nic:0.{port}=0.5"]))
    explicit = job(changes | {"ranks.play": "explicit"})
    broken = {"cluster.faults": fault, "communication.routing": "ecmp"}
    assert play(explicit.with_overrides(broken)).times.step_s == play(explicit).times.step_s


@given(jobs())
@settings(max_examples=25)
def test_folded_ranks_are_as_slow_as_the_slowest_way_to_lie_over_nodes(changes):
    """As slow as every rank played on its own links, loads alike; equal where all lie alike."""
    balanced = {"ranks.expert_load.kind": "balanced", "ranks.play": "explicit"}
    played = play(job(changes | balanced))
    folded_s, explicit_s = played.folded_timeline.makespan_s, played.explicit.step_s
    placement = played.program.placement
    alike = len(placement.layouts) == 1 and (
        (placement.crosses == placement.crosses[..., :1]).all()
    )
    alike = alike and np.unique(played.experiment.cluster.topology().leaf_of).size == 1
    assert explicit_s <= folded_s * (1 + 1e-9)
    if alike:
        assert explicit_s == pytest.approx(folded_s, rel=1e-9)


def crosses_nodes(played, groups):
    node = groups // played.program.placement.gpus_per_node
    return (node != node[:, :1]).any()


@given(jobs())
@settings(max_examples=15)
def test_on_shared_nics_only_what_crosses_nodes_moves(changes):
    """And what takes NVLink takes what it takes folded."""
    played = play(job(changes | {"communication.nics": "shared"}))
    found, placement = played.shared, played.program.placement
    hops = placement.crosses.any(axis=2)
    moves = found.record.segments.graph.transfers.moves
    links, message = played.pipeline.links, found.nics.expansion.message
    assert moves[message].tolist() == hops[links.rank[links.sender], links.receiver].tolist()
    rings = [sync for step in played.program.end for sync in (*step.reduce, *step.gather)]
    crossing = {
        EXCHANGE: any(len(members) > 1 for members in placement.layouts),
        MESSAGE: hops[links.rank[links.sender], links.receiver].any(),
        RING: any(crosses_nodes(played, sync.groups) for sync in rings if sync.bytes),
    }
    for kind, crosses in crossing.items():
        assert moves[found.nics.crossings.traffic == kind].any() == crosses
    if not any(crossing.values()):
        assert found.record.steps.makespan_s == pytest.approx(
            played.folded_timeline.makespan_s, rel=1e-9
        )


@given(jobs())
@settings(max_examples=10)
def test_faster_nics_never_lengthen_a_step(changes):
    slow, fast = (
        play(
            job(
                changes
                | {
                    "cluster.node.nic.link_bytes_per_s": f"{rate} Gb/s",
                    "cluster.fabric.link_bytes_per_s": "400 Gb/s",
                }
            )
        ).times.step_s
        for rate in (50, 200)
    )
    assert fast <= slow * (1 + 1e-5)  # chunks settle to that
