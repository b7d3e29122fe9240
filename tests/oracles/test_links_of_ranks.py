"""A step inside one node, and tables that stages share, against the bytes they move."""

import numpy as np
import pytest

from simulator import Experiment
from simulator.driver.step import play
from simulator.network.machine import Machine
from simulator.network.price import comm_s
from simulator.price.kernels import KernelPricer
from tests.prices import optimizer_seconds

CUT = {
    "model.layers": 4,
    "model.moe.routed_experts": 64,
    "plan.layout": "none",
    "batch.sequences": 64,
}
NVLINK, NIC = 160e9, 44e9  # of rings and messages, as the profile has them
IN_NODE_S, UNDER_A_LEAF_S = 3.33e-6, 2.8e-6


def trained(**changes):
    values = CUT | {path.replace("__", "."): value for path, value in changes.items()}
    return play(Experiment.load("deepseek-v3-pretrain").with_overrides(values))


def ends_of(run):
    chip = run.experiment.cluster.node.chip
    whole = KernelPricer(chip, run.experiment.profile, chip.sms)
    return optimizer_seconds(run.program.end, run.lowered.end_ops, whole, machine_of(run))


def machine_of(run):
    return Machine.of_ports(run.experiment.cluster, run.experiment.profile.communication)


def message_s(run, low, high):
    """Seconds of a message of a run from one GPU to another."""
    times = comm_s(run.program.message, np.array([[low, high]]), machine_of(run))
    return float(times.seconds[0])


@pytest.fixture(scope="module")
def one_node():
    """DeepSeek-V3 of four layers on eight GPUs: two pipeline ranks of four, DualPipe."""
    return trained(cluster__nodes=1, plan__pp=2, plan__ep=4)


def test_one_node_reduces_and_gathers_over_nvlink(one_node):
    """Both copies of a stage sit in it: eight replicas of dense weights, two of each expert; FP32
    gradients out, BF16 weights home.
    """
    rings = ends_of(one_node)
    parameters = {sync.name: sync.bytes / 4 for sync in one_node.program.end[0].reduce}
    dense, experts = parameters.values()
    steps_s = 2 * (1 + 1) * IN_NODE_S  # all messages at once
    by_hand = (4 + 2) * (dense * 7 / 8 + experts * 1 / 2) / NVLINK + steps_s
    assert rings.collectives_s == pytest.approx([by_hand] * 2, rel=1e-9)
    assert by_hand == pytest.approx(0.1633, abs=1e-4)
    kernels_s = 0.0198 + 0.0045  # the update, and what clips its gradients by their norm
    assert rings.seconds() == pytest.approx([0.1633 + kernels_s] * 2, abs=2e-4)
    assert not rings.reduce.nic_s.any()
    assert one_node.times.phases["optimizer"] == pytest.approx(rings.seconds(), rel=1e-12)


def test_one_node_hands_chunks_over_nvlink(one_node):
    """4,096 tokens of 7,168 BF16: 58.72 MB."""
    size = one_node.program.message.size_bytes
    assert size == 4096 * 7168 * 2
    assert not one_node.program.placement.crosses.any()
    lasted_s = (one_node.timeline().end_s - one_node.timeline().start_s)[
        one_node.pipeline.phase == -1
    ]
    assert lasted_s == pytest.approx(size / NVLINK + IN_NODE_S, rel=1e-6)
    assert message_s(one_node, 0, 1) == pytest.approx(0.370e-3, abs=1e-6)


def test_hops_take_the_link_that_lies_between_their_ranks():
    """Four pipeline ranks of four GPUs on nodes of eight: ranks 0 and 1, 2 and 3 share one. GPU 4
    is on another plane than GPU 8, so that NVLink hands over what crosses.
    """
    run = trained(cluster__nodes=2, plan__pp=4, plan__ep=4, plan__schedule="1f1b")
    links = run.pipeline.links
    lasted_s = (run.timeline().end_s - run.timeline().start_s)[run.pipeline.phase == -1]
    hops = np.sort([links.rank[links.sender], links.receiver], axis=0).T.tolist()
    expected = [message_s(run, 4, 8 if hop == [1, 2] else 0) for hop in hops]
    inside_s, across_s = min(expected), max(expected)
    size = run.program.message.size_bytes
    assert inside_s == pytest.approx(size / NVLINK + IN_NODE_S, rel=1e-9)
    assert across_s == pytest.approx(size / NIC + UNDER_A_LEAF_S + IN_NODE_S, rel=1e-9)
    assert lasted_s == pytest.approx(expected, rel=1e-6)
    assert {tuple(hop) for hop in hops} == {(0, 1), (1, 2), (2, 3)}


@pytest.mark.parametrize("schedule", ["1f1b", "zb1p", "dualpipe"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_table_of_two_stages_costs_an_all_reduce_of_it_all(schedule, tied):
    """128,000 words of 2,048 in FP32 at the rate of a NIC: 24 ms. The MTP module of the last stage
    uses the embedding of the first; tied, its heads do too, and it is one table still. DualPipe
    holds both stages on one pair of ranks.
    """
    run = trained(
        model__vocabulary=128000,
        model__hidden=2048,
        model__tied_embedding=tied,
        plan__pp=2,
        plan__ep=8,
        plan__schedule=schedule,
        cluster__nodes=2,
    )
    reduced = ends_of(run).reduce
    between = [name.endswith("between stages") for name in reduced.names]
    if schedule == "dualpipe":
        assert not any(between)
        return
    by_hand = 128000 * 2048 * 4 / NIC + 2 * UNDER_A_LEAF_S
    assert reduced.seconds[between].sum(axis=0) == pytest.approx([by_hand] * 2, rel=1e-9)
    assert by_hand == pytest.approx(0.0238, abs=1e-4)
    starts_s = run.timeline().start_s[-2:]
    assert starts_s[0] == starts_s[1]
    assert run.folded_timeline.makespan_s == pytest.approx(
        starts_s[0] + ends_of(run).seconds().max(), rel=1e-12
    )
