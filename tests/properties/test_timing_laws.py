"""Seconds by divisions against flows that are played: any groups, any rates of links."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.network.collectives import algorithms_tried, plan_of
from simulator.network.collectives.plan import PLANS
from simulator.network.fair import finish
from simulator.network.flows import Flows
from simulator.network.links import WIRINGS, Network, Speeds
from simulator.network.placement import group_of
from simulator.network.timing import PLAYED, stage_flows, stage_seconds
from tests.clusters import cluster

KINDS = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast", "send_recv")
CLUSTERS = {
    "planes": {},
    "rails": {"name": "h800-2048-mrft"},
    "one tree": {"name": "h800-2048-ft2", "fabric__switch_radix": 16},
    "three layers": {"name": "h800-2048-ft3", "fabric__switch_radix": 16},
    "tapered": {
        "name": "h800-2048-ft2", "fabric__switch_radix": 16, "fabric__oversubscription": 3.0
    },
    "few NICs": {"node__nics": 4, "fabric__planes": 4},
    "faults": {"faults": ["nic:1.2", "plane:3=0.5", "node:2=0.7"]},
}  # fmt: skip


@st.composite
def groups(draw, gpus=96):
    """Disjoint groups of as many ranks each: in a row, strided, or anyhow."""
    ranks, count = draw(st.integers(2, 24)), draw(st.integers(1, 3))
    how = draw(st.sampled_from(["in a row", "strided", "anyhow"]))
    order = np.arange(gpus)
    if how == "strided":
        order = order.reshape(-1, draw(st.sampled_from([2, 4, 8]))).T.ravel()
    elif how == "anyhow":
        order = np.random.default_rng(draw(st.integers(0, 99))).permutation(gpus)
    return order[: ranks * count].reshape(count, ranks)


def played_s(plans, network, batch):
    """Seconds on NVLink and on the fabric: all flows of all groups of a stage played at once."""
    took_s = np.zeros((2, len(plans)))
    for flows, group in stage_flows([plan.stages for plan in plans], [p.factor for p in plans]):
        end_s = finish(flows, network.bytes_per_s, batch).end_s
        for side, rows in zip(took_s, sides(flows, network), strict=True):
            np.maximum.at(side, group[rows], end_s[rows])
    return took_s


def is_steady(plans, wires):
    """Whether on ports alone all flows keep their rates to their ends."""
    stages = stage_flows([plan.stages for plan in plans], [plan.factor for plan in plans])
    between = 2 * (wires.gpus + wires.topology.endpoints)
    for flows, _ in stages:
        ports = Flows.of(
            np.where(flows.route < between, flows.route, -1), flows.moved_bytes, flows.weight
        )
        if not finish(ports, wires.bytes_per_s).closed_form:
            return False
    return True


def sides(flows, network):
    """Flows that cross NVLink only, and those that cross the fabric only: all there are."""
    used, nvlink = flows.route >= 0, flows.route < 2 * network.gpus
    inside, across = (used & nvlink).any(axis=1), (used & ~nvlink).any(axis=1)
    assert (inside ^ across).all()
    return inside, across


@given(
    st.sampled_from(sorted(CLUSTERS)),
    groups(),
    st.sampled_from(KINDS),
    st.tuples(*(st.floats(10, 900) for _ in Speeds._fields)),
    st.sampled_from(["static", "ecmp", "adaptive"]),
)
@settings(max_examples=150, deadline=None)
def test_seconds_by_division_are_those_of_flows_that_are_played(name, gpus, kind, rates, routing):
    """To 1e-9 where rates are constant to the ends, else to what playing rounds up by."""
    spec = cluster(nodes=12, **CLUSTERS[name])
    wires, speeds = Network.of(spec, routing).wiring, Speeds(*(rate * 1e9 for rate in rates))
    cast = [group_of(spec, each) for each in gpus]
    for algorithm in sorted(set.intersection(*(set(algorithms_tried(kind, g)) for g in cast))):
        plans = tuple(plan_of(wires, group, kind, algorithm) for group in cast)
        stages = stage_seconds(wires, plans)
        found = stages.at(speeds)
        assert (found.moving_s == np.maximum(found.nic_s, found.nvlink_s)).all()
        nvlink_s, nic_s = played_s(plans, wires.at(speeds), batch=0.0)
        assert found.nvlink_s == pytest.approx(nvlink_s, rel=0.0101)
        by_division = speeds.switch / speeds.port >= stages.least_ratio
        exact = by_division and is_steady(plans, wires)
        assert found.nic_s == pytest.approx(nic_s, rel=1e-9 if exact else 0.0101)
        if not by_division:
            rounded_s = played_s(plans, wires.at(speeds), batch=0.01)[1]
            assert found.nic_s == pytest.approx(rounded_s, rel=1e-9)


@pytest.mark.parametrize("name", ["planes", "rails", "one tree", "three layers"])
@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter", "all_reduce"])
def test_whole_nodes_on_full_fabrics_take_no_play_at_any_rate(name, kind):
    """Where leaves have as many links up as down: as fast as ports, as long as those are no faster
    than the links above them.
    """
    spec = cluster(nodes=12, **CLUSTERS[name])
    wires = Network.of(spec, "adaptive").wiring
    group = group_of(spec, range(96))
    for algorithm in ("hierarchical", "ring"):
        stages = stage_seconds(wires, (plan_of(wires, group, kind, algorithm),))
        assert stages.least_ratio <= 1 + 1e-12
        slow, fast = (stages.at(Speeds(200e9, 50e9, rate)) for rate in (50e9, 400e9))
        assert slow.nic_s.tolist() == fast.nic_s.tolist()
        assert stages.at(Speeds(200e9, 25e9, 25e9)).nic_s.tolist() == (2 * slow.nic_s).tolist()


def test_seconds_do_not_depend_on_what_was_asked_before():
    """Nothing, or other rates in another ratio first: the same bits."""
    spec = cluster("h800-2048-ft2", nodes=12, fabric__switch_radix=16, fabric__oversubscription=3.0)
    asked, seconds = Speeds(160e9, 44e9, 40e9), []
    for before in ((), (Speeds(1.0, 3.0, 1.0), Speeds(7.0, 1.0, 0.3))):
        for kept in (WIRINGS, PLANS, PLAYED):
            kept.forget()
        wires = Network.of(spec, "adaptive").wiring
        group = group_of(spec, range(1, 80))
        stages = stage_seconds(wires, (plan_of(wires, group, "all_to_all", "one-shot"),))
        for other in before:
            stages.at(other)
        seconds.append(stages.at(asked).moving_s.tolist())
    assert seconds[0] == seconds[1]
