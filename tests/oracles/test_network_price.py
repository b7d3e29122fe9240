"""Seconds of communications by hand: rings on one node and several, messages, a number summed."""

import numpy as np
import pytest

from hwmodels.errors import InputError
from hwmodels.library import LIBRARIES
from simulator.network.comm_times import CommTimes, Slow
from simulator.network.links import Network
from simulator.network.machine import Machine
from simulator.network.price import comm_s
from tests.clusters import cluster
from workloads.blocks.moe import MoESpec
from workloads.ops import Comm
from workloads.routing import copies_on

H800 = LIBRARIES.load("deepep-h800")
NVLINK, NIC = 160e9, 44e9  # of rings and messages, as the library has them
IN_NODE_S, UNDER_A_LEAF_S, ACROSS_LEAVES_S = 3.33e-6, 2.8e-6, 3.7e-6
MACHINE = Machine.of_ports(cluster(), H800)
GIB = 2.0**30
MOE = MoESpec(routed_experts=64, top_k=4, expert_width=1)
DISPATCH = Comm("d", "dispatch", ("ep",), 7392.0, 4096)


def comm(kind, size_bytes=GIB):
    return Comm("x", kind, ("dp",), size_bytes)


def seconds(kind, gpus, size_bytes=GIB, machine=MACHINE, algorithm="auto"):
    groups = np.atleast_2d(gpus)
    return comm_s(comm(kind, size_bytes), groups, machine, algorithm=algorithm).seconds


# One group


@pytest.mark.parametrize("kind", ["reduce_scatter", "all_gather"])
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_on_one_node_all_but_its_own_share_crosses_nvlink_in_one_step(kind, ranks):
    expected = IN_NODE_S + GIB * (ranks - 1) / ranks / NVLINK
    assert seconds(kind, range(ranks)) == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_ring_on_one_node_takes_a_step_for_each_other_rank(ranks):
    expected = (ranks - 1) * IN_NODE_S + GIB * (ranks - 1) / ranks / NVLINK
    found = seconds("reduce_scatter", range(ranks), algorithm="ring")
    assert found == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize("nodes", [2, 4, 16])
def test_one_gpu_a_node_has_a_nic_to_itself(nodes):
    expected = UNDER_A_LEAF_S + GIB * (nodes - 1) / nodes / NIC
    assert seconds("reduce_scatter", 8 * np.arange(nodes)) == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize("nodes", [8, 16, 32])
def test_whole_nodes_reduce_over_nvlink_and_ring_over_rails(nodes):
    """NVLink carries 7/8 of the size once, each NIC an eighth of (N - 1) / N: NVLink binds. A step
    over NVLink, and N - 1 between nodes.
    """
    times = comm_s(comm("reduce_scatter"), np.arange(8 * nodes)[None], MACHINE)
    assert times.nvlink_s == pytest.approx([GIB * 7 / 8 / NVLINK], rel=1e-12)
    assert times.nic_s == pytest.approx([GIB * (nodes - 1) / nodes / 8 / NIC], rel=1e-12)
    steps_s = IN_NODE_S + (nodes - 1) * UNDER_A_LEAF_S
    assert times.latency_s == pytest.approx([steps_s], rel=1e-9)
    assert times.seconds == pytest.approx(times.latency_s + times.nvlink_s, rel=1e-12)


def test_whole_nodes_on_slow_nics_wait_for_them():
    slow = cluster(node__nic__link_bytes_per_s="100 Gb/s")
    times = comm_s(comm("all_gather"), np.arange(64)[None], Machine.of_ports(slow, H800))
    assert times.moving_s == pytest.approx([GIB * 7 / 8 / 8 / (NIC / 4)], rel=1e-12)
    assert (times.moving_s == times.nic_s).all()


# Messages


@pytest.mark.parametrize(
    ("gpus", "latency_s", "rate"),
    [
        ([0, 1], IN_NODE_S, NVLINK),
        ([0, 8], UNDER_A_LEAF_S, NIC),
        ([0, 2040], ACROSS_LEAVES_S, NIC),
        ([0, 9], UNDER_A_LEAF_S + IN_NODE_S, NIC),  # another plane: NVLink hands over
    ],
)
def test_a_message_takes_its_latency_and_its_bytes_over_one_link(gpus, latency_s, rate):
    assert seconds("send", gpus) == pytest.approx([latency_s + GIB / rate], rel=1e-12)


def test_few_nics_are_shared_by_the_messages_of_many_gpus():
    """Four NICs for eight GPUs: two messages a NIC, if two GPUs send at once."""
    few = Machine.of_ports(cluster(node__nics=4, fabric__planes=4), H800)
    both = comm_s(comm("send"), np.array([[0, 8], [1, 9]]), few)
    alone = comm_s(comm("send"), np.array([[0, 8]]), few)
    assert both.nic_s == pytest.approx(2 * np.repeat(alone.nic_s, 2), rel=1e-12)
    apart = comm_s(comm("send"), np.array([[[0, 8]], [[1, 9]]]), few)
    assert apart.nic_s.tolist() == [alone.nic_s.tolist()] * 2


# A number


def test_a_number_is_summed_up_and_down_a_tree_of_all_ranks():
    """256 nodes: three levels of eight GPUs and eight of nodes; latency is all there is."""
    found = comm_s(comm("all_reduce", 4.0), np.arange(2048)[None], MACHINE, algorithm="tree")
    assert found.seconds == found.latency_s + found.moving_s
    assert found.moving_s < 1e-9
    inside, between = 2 * 3 * IN_NODE_S, 2 * 8
    assert inside + between * UNDER_A_LEAF_S < found.latency_s < inside + between * ACROSS_LEAVES_S


# Parts, sizes, links


def test_one_rank_and_no_bytes_take_no_time():
    assert seconds("all_reduce", [[3], [4]]).tolist() == [0, 0]
    two = np.array([[[0, 1]], [[2, 3]]])
    sizes = comm_s(comm("all_gather"), two, MACHINE, load=np.array([0.0, 1.0])).seconds
    assert sizes[0] == 0
    assert sizes[1] == seconds("all_gather", [2, 3])


def test_sizes_of_moments_and_groups_at_once_take_what_they_take_alone():
    rng = np.random.default_rng(0)
    groups = np.array([[[0, 8, 16, 24], [1, 9, 17, 25]], [[64, 72, 2000, 2008], [66, 74, 80, 88]]])
    sizes = rng.uniform(1e6, 1e9, 2)
    together = comm_s(comm("reduce_scatter", 1.0), groups, MACHINE, load=sizes)
    assert together.seconds.shape == (2, 2)
    for moment, size in enumerate(sizes):
        alone = seconds("reduce_scatter", groups[moment], size)
        assert together.seconds[moment] == pytest.approx(alone, rel=1e-12)


def test_slow_links_lengthen_what_they_carry():
    times = CommTimes(np.array([1.0, 1.0]), np.array([2.0, 0.0]), np.array([3.0, 3.0]))
    slow = times.slowed(Slow(nic=np.array([2.0, 50.0]), nvlink=1.0))
    assert slow.seconds.tolist() == [1 + 4, 1 + 3]
    assert times.slowed(Slow(nvlink=2.0)).seconds.tolist() == [7, 7]
    groups = np.arange(64)[None]
    asked = comm_s(comm("all_gather"), groups, MACHINE, slow=Slow(nic=3.0))
    plain = comm_s(comm("all_gather"), groups, MACHINE)
    assert asked.nic_s.tolist() == (plain.nic_s * 3).tolist()


def test_stages_that_take_turns_are_told_apart():
    """All-to-all over NVLink first, then over NICs: their sum."""
    times = comm_s(comm("all_to_all"), np.arange(16)[None], MACHINE, algorithm="hierarchical")
    assert times.moving_s == pytest.approx(times.nic_s + times.nvlink_s, rel=1e-12)


def test_an_exchange_asks_how_its_group_lies():
    """Groups of 16 on two nodes, or of 8 on one, at the loads that their ranks have."""
    routing = (copies_on(MOE, (8, 8)), copies_on(MOE, (4, 8, 4)))
    machine = Machine.of_ports(cluster(), H800, 20, routing)
    groups = np.array([np.arange(16), 20 + np.arange(16)])
    found = comm_s(DISPATCH, groups, machine)
    nic_bytes = DISPATCH.token_bytes * routing[0].remote_nodes_per_token
    crowding = H800.exchange.crowding
    rate = 45.67e9 * crowding.peers**crowding.rate_exponent  # a NIC of two nodes has one peer
    assert found.nic_s[0] == pytest.approx(nic_bytes / rate, rel=1e-12)
    assert found.nic_s[1] > found.nic_s[0]
    skewed = comm_s(DISPATCH, groups, machine, load=np.tile(np.linspace(0.5, 1.5, 16), (2, 1)))
    assert (skewed.seconds > found.seconds).all()
    with pytest.raises(InputError, match=r"got \(8,\)"):
        comm_s(DISPATCH, np.arange(8)[None], machine)


def test_the_order_of_ranks_means_nothing_to_an_exchange():
    """Neither with loads nor with slow links of ranks, of groups in a row or interleaved."""
    machine = Machine.of_ports(cluster(), H800, 20, (copies_on(MOE, (8, 8)),))
    rng = np.random.default_rng(5)
    load, nic, order = rng.uniform(0.2, 2, 16), rng.uniform(1, 3, 16), rng.permutation(16)
    for of_ranks in (Slow(), Slow(nic=nic), Slow(nic=nic, nvlink=nic[::-1])):
        found = comm_s(DISPATCH, np.arange(16)[None], machine, load[None], of_ranks).seconds
        mixed = Slow(*(each[order] if isinstance(each, np.ndarray) else each for each in of_ranks))
        again = comm_s(DISPATCH, order[None], machine, load[order][None], mixed).seconds
        assert again.tolist() == found.tolist()


EIGHT = np.arange(8)[None]
WAYS = (
    Machine.of_ports(cluster(), H800, 20, (copies_on(MOE, (8,)),)),
    Machine.on(Network.of(cluster()), H800),
)


@pytest.mark.parametrize(
    ("asked", "groups", "options", "message"),
    [
        ("all_gather", [[0, 2048]], {}, "0 to 2047, got 2048"),
        ("all_gather", [[2048]], {}, "0 to 2047, got 2048"),
        ("send", [[-1, 3]], {}, "0 to 2047, got -1"),
        ("send", [[0.0, 1.0]], {}, "integers from 0 to 2047, got float64"),
        ("send", [[0.5, 1.0]], {}, "integers from 0 to 2047, got float64"),
        ("send", np.zeros((1, 0, 2), np.int64), {}, "0 to 2047, got none"),
        ("send", [0, 1], {}, r"must be \(..., groups, ranks\), got shape \(2,\)"),
        ("send", [[3, 3]], {}, "got GPU 3 twice"),
        ("all_reduce", EIGHT, {"load": np.array(-1.0)}, "load: must be 0 or more and finite"),
        ("all_reduce", EIGHT, {"load": np.array(np.nan)}, "load: must be 0 or more and finite"),
        ("all_reduce", EIGHT, {"load": np.ones(3)}, r"load: must be of shape \(\), got \(3,\)"),
        ("all_reduce", EIGHT, {"algorithm": "rings"}, "no 'rings'; did you mean 'ring'"),
        ("dispatch", EIGHT + 2048, {}, "0 to 2047, got 2048"),
        ("dispatch", EIGHT - 1, {}, "0 to 2047, got -1"),
        ("dispatch", EIGHT * 1.0, {}, "integers from 0 to 2047, got float64"),
        ("dispatch", EIGHT // 2, {}, "got GPU 0 twice"),
        ("dispatch", EIGHT, {"load": -np.ones((1, 8))}, "load: must be 0 or more and finite"),
        ("dispatch", EIGHT, {"load": np.full((1, 8), np.inf)}, "load: must be 0 or more and fin"),
        ("dispatch", EIGHT, {"load": np.ones(7)}, r"load: must be of shape \(1, 8\), got \(7,\)"),
        ("dispatch", EIGHT, {"algorithm": "ring"}, "must be auto for dispatch, got 'ring'"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_one_line(asked, groups, options, message):
    what = DISPATCH if asked == "dispatch" else comm(asked)
    for machine in WAYS:
        with pytest.raises(InputError, match=message) as refused:
            comm_s(what, np.array(groups), machine, **options)
        assert "\n" not in str(refused.value)


def test_a_size_is_not_below_zero():
    for size_bytes in (-1.0, np.inf, np.nan):
        with pytest.raises(InputError, match="bytes: must be 0 or more and finite"):
            comm_s(comm("all_gather", size_bytes), EIGHT, MACHINE)


def test_faults_and_switches_are_those_of_the_network():
    """A plane of eight that is down leaves its bytes to the others."""
    broken = Machine.on(Network.of(cluster(faults=["plane:3"]), "adaptive"), H800)
    whole = Machine.on(Network.of(cluster(), "adaptive"), H800)
    groups = np.arange(64)[None]
    slow, fast = (comm_s(comm("all_gather"), groups, each) for each in (broken, whole))
    assert slow.nic_s == pytest.approx(fast.nic_s * 8 / 7, rel=1e-9)


def test_where_routes_are_not_known_nodes_are_three_switches_apart():
    """Slim Fly is counted, not wired; within a node nothing is different."""
    fly = cluster("h800-32928-slim-fly")
    machine = Machine.of_ports(fly)
    latency_s = float(fly.fabric.latency_s(3))
    expected = latency_s + GIB / fly.node.scale_out_bytes_per_s_per_gpu
    assert seconds("send", [0, 8 * 4000], machine=machine) == pytest.approx([expected], rel=1e-12)
    inside = seconds("all_gather", range(8), machine=machine)
    routed = Machine.of_ports(cluster())
    assert inside.tolist() == seconds("all_gather", range(8), machine=routed).tolist()


def test_a_rack_without_a_network_around_it_gathers_over_nvlink():
    rack = Machine.of_ports(cluster("gb200-nvl72"))
    found = seconds("all_gather", range(72), machine=rack)
    hop_s, rate = rack.cluster.node.scale_up.latency_s, rack.cluster.node.chip.nvlink_bytes_per_s
    assert found == pytest.approx([hop_s + GIB * 71 / 72 / rate], rel=1e-12)


def test_gpus_joined_pair_by_pair_are_priced_as_if_by_a_switch():
    """The command refuses to route them; a step's price knows each GPU's rate."""
    pairs = Machine.of_ports(cluster(node__scale_up__switched=False), H800)
    assert seconds("all_gather", range(8), machine=pairs) == seconds("all_gather", range(8))
