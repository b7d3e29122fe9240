"""Running collectives: what is taken, what it costs at least, what is refused, what is kept."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, InputError
from simulator.network.collectives import algorithms_of, plan_of
from simulator.network.kept import Kept
from simulator.network.links import Network
from simulator.network.placement import group_of, place
from simulator.network.run import run_collective, run_groups
from simulator.tell.collective import CollectiveRuns
from tests.clusters import cluster

NETWORK = Network.of(cluster(nodes=8))
WIDE = Network.of(cluster())
MIB, GIB = 2.0**20, 2.0**30


@pytest.mark.parametrize(("target", "latency_s"), [(8, 2.8e-6), (40 * 8, 3.7e-6)])
def test_a_small_message_takes_the_switches_it_passes(target, latency_s):
    """One under a leaf, three across leaves: ISCA'25 (arXiv 2505.09343) Table 5, InfiniBand."""
    run = run_collective("send_recv", 1.0, [0, target], WIDE)
    assert run.time_s == pytest.approx(latency_s, rel=1e-4)
    handed_over = run_collective("send_recv", 1.0, [0, target + 3], WIDE)
    assert handed_over.fixed_s == pytest.approx(latency_s + 3.33e-6, rel=1e-9)


def test_auto_takes_the_fastest():
    for kind in ("all_gather", "all_reduce", "broadcast"):
        for size in (1.0, MIB, GIB):
            times = {
                name: run_collective(kind, size, range(64), NETWORK, algorithm=name).time_s
                for name in algorithms_of(kind)
                if name != "in-network"
            }
            taken = run_collective(kind, size, range(64), NETWORK)
            assert taken.time_s == min(times.values()) == times[taken.algorithm]


def test_few_steps_win_when_small_and_few_bytes_when_large():
    small, large = (run_collective("all_reduce", s, range(64), NETWORK) for s in (8.0, GIB))
    assert small.algorithm == "one-shot"
    assert large.algorithm in ("hierarchical", "tree", "ring")


def test_groups_that_share_a_gpu_share_its_links():
    fast = Network.of(NETWORK.cluster, nvlink_bytes_per_s=1e13)
    alone = run_collective("all_to_all", GIB, [0, 8, 16], fast)
    twice = run_groups("all_to_all", GIB, [[0, 8, 16], [0, 24, 32]], fast)
    assert [run.wire_s for run in twice] == pytest.approx([2 * alone.wire_s] * 2, rel=1e-2)
    apart = run_groups("all_to_all", GIB, [[0, 8, 16], [1, 9, 17]], fast)
    assert [run.wire_s for run in apart] == pytest.approx([alone.wire_s] * 2, rel=1e-9)


def test_groups_of_different_size_run_at_once():
    runs = run_groups("all_gather", GIB, [range(8), [8], range(16, 64)], NETWORK, None, "ring")
    assert [run.ranks for run in runs] == [8, 1, 48]
    assert runs[1].time_s == 0
    assert runs[0].wire_s == pytest.approx(GIB * 7 / 8 / 200e9, rel=1e-9)


def test_the_busiest_links_are_named_with_their_load():
    slow = Network.of(cluster(nodes=8, faults=["nic:1.2=0.25"]))
    run = run_collective("all_to_all", GIB, range(16), slow, algorithm="one-shot")
    busy, *_ = CollectiveRuns(slow, (run,), np.arange(16)[None], "packed").busiest
    assert (busy.link, busy.alike) == ("nic:1.2 out", 2)  # and in
    assert busy.moved_bytes == pytest.approx(GIB / 2)
    assert busy.load == pytest.approx(run.wire_s / run.time_s, abs=1e-6)


@pytest.mark.parametrize("size", [0, -1, float("inf"), float("nan")])
def test_sizes_are_above_zero_and_finite(size):
    with pytest.raises(InputError, match="bytes: must be above 0 and finite"):
        run_collective("all_gather", size, range(8), NETWORK)


def test_what_no_collective_can_do_is_refused():
    with pytest.raises(InputError, match="unknown kind 'gather'; did you mean 'all_gather'"):
        run_collective("gather", 1, range(8), NETWORK)
    with pytest.raises(InputError, match="all_to_all has no 'tree'"):
        run_collective("all_to_all", 1, range(8), NETWORK, algorithm="tree")
    with pytest.raises(InputError, match="unknown algorithm 'tree'"):
        plan_of(NETWORK, group_of(NETWORK.cluster, range(8)), "all_to_all", "tree")
    with pytest.raises(InfeasibleError, match="more than one node, got 8 on one"):
        run_collective("all_gather", 1, range(8), NETWORK, algorithm="hierarchical")
    with pytest.raises(InputError, match="groups: must be at least one"):
        run_groups("all_gather", 1, [], NETWORK)
    with pytest.raises(InputError, match="got GPU 3 twice"):
        run_collective("all_gather", 1, [3, 4, 3], NETWORK)


def test_reducing_switches_need_every_port_of_a_rail():
    broken = Network.of(cluster(nodes=8, faults=["nic:1.2"]))
    with pytest.raises(InfeasibleError, match=r"nic:1\.2 is down"):
        run_collective("all_reduce", 1e6, range(16), broken, algorithm="in-network")


def test_a_group_on_one_node_needs_no_fabric():
    alone = Network.of(cluster("gb200-nvl72"))
    run = run_collective("all_to_all", GIB, place(alone.cluster, 72)[0], alone)
    assert run.wire_s == pytest.approx(GIB * 71 / 72 / 900e9, rel=1e-9)
    with pytest.raises(InfeasibleError, match="72 GPUs"):
        place(alone.cluster, 73)


def test_nics_faster_than_the_links_above_them_feel_oversubscription():
    """3:1 leaves of 64 ports: 48 ports of 50 GB/s share 16 uplinks; half of the bytes cross."""
    thin = cluster("h800-2048-ft2", nodes=12, fabric__oversubscription=3.0)
    leaf = np.unique(thin.topology().leaf_of)
    assert leaf.size == 2
    run = run_collective("all_to_all", GIB, range(96), Network.of(thin, "adaptive"))
    crossing = 48 * 48 / 96 * GIB / (16 * 50e9)
    assert run.wire_s == pytest.approx(crossing, rel=1e-6)
    assert run.time_s >= run.bound_s == pytest.approx(crossing + 2.8e-6, rel=1e-9)


def test_what_is_kept_makes_room_for_what_is_new():
    kept, made = Kept(rows_max=10), []

    def get(key, rows):
        return kept.get(key, lambda: made.append(key) or key, lambda _: rows)

    assert [get(key, 4) for key in ("a", "b", "a", "c", "a", "b")] == list("abacab")
    assert made == ["a", "b", "c", "b"]  # b was used least recently when c came
    get("too large for all", 100)
    assert (len(kept), kept.rows) == (1, 100)
    kept.forget()
    assert (len(kept), kept.rows) == (0, 0)
