"""Which link bytes take, over random plans, placements and clusters, in every way to play them."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.driver.run import run
from simulator.driver.step import play
from simulator.lower.shared_nics import EXCHANGE, MESSAGE, RING
from simulator.price.collectives import ExchangePricer, LinkRates, message_s, ring_parts
from simulator.price.group_ports import GroupPorts
from tests.layer_work import exchange
from tests.placements import job, jobs
from tests.prices import RATES
from workloads.blocks.moe import MoESpec
from workloads.placement import Replicas
from workloads.routing import copies_on

NICLESS = replace(
    RATES,
    **{
        name: float("nan")
        for name in ("dispatch_nic", "combine_nic", "forwarding_nvlink", "message_nic", "latency_s")
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


def test_no_rate_of_a_nic_is_forgotten():
    inside = {"nvlink", "exchange_nvlink", "scale_up_latency_s", "basis"}
    inside |= {"dispatch_beside_compute", "combine_beside_compute"}
    inside |= {"dispatch_notify", "combine_notify"}  # of a library, which is not asked here
    finite = {
        f.name for f in fields(LinkRates) if getattr(NICLESS, f.name) == getattr(RATES, f.name)
    }
    assert finite == inside


@given(st.integers(1, 200), st.integers(0, 10**9))
def test_rings_and_messages_inside_a_node_read_no_nic(members, size_bytes):
    inside = Replicas((members,))
    assert np.isfinite(ring_parts(NICLESS, size_bytes, inside)).all()
    assert ring_parts(NICLESS, size_bytes, inside) == ring_parts(RATES, size_bytes, inside)
    assert message_s(NICLESS, size_bytes, crosses=False) == message_s(RATES, size_bytes, False)


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


@given(st.lists(st.integers(1, 8), min_size=2, max_size=6), st.data())
def test_no_ring_is_faster_for_an_emptier_node(by_node, data):
    """The members of a node that gets them from another keep their number."""
    one, other = data.draw(st.permutations(range(len(by_node))))[:2]
    by_node[other] += by_node[one]
    ring = ring_parts(RATES, 1e9, Replicas(tuple(sorted(by_node))))
    moved = list(by_node)
    least = min(range(len(moved)), key=moved.__getitem__)
    if moved[least] > 1:
        moved[least] -= 1
        moved[(least + 1) % len(moved)] += 1
        emptier = ring_parts(RATES, 1e9, Replicas(tuple(sorted(moved))))
        assert emptier.nic_s > ring.nic_s
        assert emptier.latency_s == ring.latency_s


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
    assert explicit_s <= folded_s * (1 + 1e-9)
    if alike:
        assert explicit_s == pytest.approx(folded_s, rel=1e-9)


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
        RING: any(not group.is_inside for sync in rings if sync.bytes for group in sync.groups),
    }
    for kind, crosses in crossing.items():
        assert moves[found.nics.traffic == kind].any() == crosses
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
