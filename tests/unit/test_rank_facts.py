"""What single ranks did: GPUs in their order, who was waited for, and the critical path."""

from functools import cache

import numpy as np
import pytest

from hwmodels.errors import InputError
from simulator.driver import explicit
from simulator.driver.run import simulate
from simulator.driver.step import play
from simulator.engines import array
from simulator.engines.graph import GraphBuilder
from simulator.engines.order import order_of
from simulator.lower.expansion import expand
from simulator.tell.facts.critical_path import CriticalPath, Link, _walk, critical_path_s
from simulator.tell.facts.pipeline_ranks import PipelineRanks
from simulator.tell.facts.ranks import WAITED_FOR_KEPT, Ranks
from simulator.tell.result import Result

PP, DP, EP = 4, 16, 8
ROOMY = ("cluster.node.chip.hbm_capacity_bytes", "8 TB")
BALANCED = ("ranks.expert_load.kind", "balanced")
EXPLICIT = ("ranks.play", "explicit")
SLOW = 2 * DP + 11
SLOW_GPU = ("ranks.stragglers", [{"gpu": SLOW, "slowdown": 2.0}])
UNLIKE = (("ranks.jitter", 0.05), ("ranks.gpu_speed_sigma", 0.02))


@pytest.fixture(scope="module")
def simulated(small_experiment):
    """Results and played steps on 64 GPUs, 16 pipelines of 4 ranks in two groups of 8; each is
    played once.
    """

    @cache
    def play(*names, check_folding=False):
        changes = {
            "balanced": (BALANCED,),
            "explicit": (EXPLICIT,),
            "slow": (SLOW_GPU,),
            "unlike": UNLIKE,
        }
        pairs = [pair for name in names for pair in changes[name]]
        return simulate(small_experiment(ROOMY, *pairs), check_folding=check_folding)

    return play


@pytest.fixture(scope="module")
def told(simulated):
    """Results on 64 GPUs."""
    return lambda *names, **options: simulated(*names, **options).result


def test_a_folded_result_tells_of_no_single_ranks(told):
    result = told("balanced")
    assert (result.fact(Ranks), result.fact(CriticalPath)) == (None, None)
    assert (result.play.mode, result.play.folding_error) == ("folded", None)


def test_gpus_are_numbered_pipeline_rank_by_pipeline_rank(told):
    """GPU 43 is pipeline 11 of pipeline rank 2: its kernels take twice as long and those of no
    other, on the communication stream too, where there are few of them. All the waiting that it
    causes is in its group, pipelines 8 to 15.
    """
    alike, slow = told("balanced", "explicit").fact(Ranks), told("balanced", "slow").fact(Ranks)
    compute = np.array(slow.compute_s) / np.array(alike.compute_s)
    expected = np.ones(PP * DP)
    expected[SLOW] = 2
    assert compute == pytest.approx(expected, rel=1e-12)
    communication = np.array(slow.communication_s) / np.array(alike.communication_s)
    assert 1 < communication[SLOW] < 1.1
    assert np.delete(communication, SLOW) == pytest.approx(np.ones(PP * DP - 1), rel=1e-12)
    waited = np.array(slow.wait_s).reshape(PP, DP)
    assert not waited[:, :EP].any()
    assert waited[2, EP:].argmin() == SLOW % EP
    assert np.argmax(slow.caused_s) == SLOW
    others = waited[2, EP:].sum() - waited[2, 11]
    assert slow.caused_s[SLOW] == pytest.approx(others, rel=0.05)


def test_every_gpu_has_its_times_and_they_are_those_of_the_play(simulated):
    result, played = simulated("unlike")
    ranks, play = result.fact(Ranks), played.explicit
    for name, column in (
        ("compute_s", play.compute_s),
        ("communication_s", play.communication_s),
        ("wait_s", play.wait_s),
        ("caused_s", play.blame_s),
    ):
        values = getattr(ranks, name)
        assert len(values) == PP * DP
        for gpu in (0, 1, DP, SLOW, PP * DP - 1):
            assert values[gpu] == column[gpu // DP, gpu % DP]
    bubble_s = np.array(ranks.bubble_s).reshape(PP, DP).mean(axis=1)
    told_s = result.fact(PipelineRanks).breakdown_s["bubble"]
    assert bubble_s == pytest.approx(np.array(told_s), rel=1e-12)


def test_gpus_that_were_waited_for_come_with_their_groups_the_worst_first(told):
    ranks = told("unlike").fact(Ranks)
    assert len(ranks.waited_for) == WAITED_FOR_KEPT
    caused = [each.caused_s for each in ranks.waited_for]
    assert caused == sorted(ranks.caused_s, reverse=True)[:WAITED_FOR_KEPT]
    for each in ranks.waited_for:
        first, last = each.waiting
        assert ranks.caused_s[each.gpu] == each.caused_s
        assert (first % EP, last - first) == (0, EP - 1)
        assert first <= each.gpu <= last
        assert (each.pipeline_rank, each.pipeline) == divmod(each.gpu, DP)
    (worst, *_) = told("balanced", "slow").fact(Ranks).waited_for
    assert (worst.gpu, worst.waiting) == (SLOW, (2 * DP + 8, 2 * DP + 15))


def test_ranks_that_are_alike_wait_for_nobody(told):
    ranks = told("balanced", "explicit").fact(Ranks)
    assert ranks.waited_for == ()
    assert not any(ranks.wait_s)
    assert not any(ranks.caused_s)


def test_the_folded_step_is_that_of_ranks_that_are_alike(told):
    """Of GPUs without their straggler, to the bit."""
    result = told("balanced", "slow")
    assert result.fact(Ranks).folded_step_s == told("balanced").metrics.step_time_s
    assert result.metrics.step_time_s > 1.1 * result.fact(Ranks).folded_step_s


def test_a_check_of_folding_plays_every_rank_and_changes_nothing_else(told):
    plain, checked, explicit = (
        told(),
        told(check_folding=True),
        told("explicit", check_folding=True),
    )
    error = plain.metrics.step_time_s / explicit.metrics.step_time_s - 1
    assert checked.play.folding_error == error
    assert 0 < abs(error) < 0.02
    assert explicit.play.folding_error is None  # its `folded_step_s` is beside the step
    assert explicit.fact(Ranks).folded_step_s == plain.metrics.step_time_s
    assert checked.metrics == plain.metrics
    assert (checked.play.mode, checked.fact(Ranks), checked.play.tasks) == (
        "folded",
        None,
        plain.play.tasks,
    )
    assert explicit.play.mode == "explicit"


def test_an_explicit_result_survives_a_json_round_trip_to_the_last_bit(simulated):
    result, played = simulated("unlike")
    again = Result.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert again.fact(Ranks) == result.fact(Ranks)
    assert again.play == result.play
    assert play(again.resolved()).explicit.phase_s.tobytes() == played.explicit.phase_s.tobytes()


def test_an_explicit_result_counts_all_it_played(told, simulated):
    """What the folded one played, and every task of the expansion on each of 16 pipelines."""
    played = simulated("explicit").played
    tasks = len(expand(played.lowered).graph) * DP
    assert played.explicit.tasks == tasks
    assert told("explicit").play.tasks == told().play.tasks + tasks
    assert told("explicit").provenance.folding.startswith("every rank played: 16 pipelines of 4,")


@pytest.mark.parametrize("pipeline", [-1, DP])
def test_a_pipeline_that_there_is_not_is_refused_before_anything_is_played(
    small_experiment, monkeypatch, pipeline
):
    monkeypatch.setattr(explicit, "_Player", None)
    with pytest.raises(InputError, match=f"pipelines: must be from 0 to 15, got {pipeline}$"):
        play(small_experiment(ROOMY, EXPLICIT), pipelines=[0, pipeline])


def test_a_group_that_was_not_kept_is_refused(small_experiment):
    played = play(small_experiment(ROOMY, EXPLICIT), pipelines=[8]).explicit
    assert played.group(1) is played.groups[1]
    with pytest.raises(InputError, match=r"must be one that was kept \(1\), got 0"):
        played.group(0)


# The critical path


@pytest.mark.parametrize(
    "names", [("balanced", "explicit"), ("balanced", "slow"), ("unlike",)], ids=" ".join
)
def test_the_critical_path_sums_to_the_step(simulated, names):
    result, played = simulated(*names)
    path = result.fact(CriticalPath).by_family_s
    assert sum(path.values()) == pytest.approx(result.metrics.step_time_s, rel=1e-12)
    assert list(path.values()) == sorted(path.values(), reverse=True)
    assert {"dispatch", "combine", "pipeline messages", "optimizer"} < set(path)
    optimizer_s = played.explicit.optimizer_s
    assert np.isclose(path["optimizer"], optimizer_s, rtol=1e-12).any()


def test_kernels_of_a_slow_gpu_are_on_the_critical_path_twice_as_long(told):
    """Its pipeline rank holds the step up; exchanges on the path take no longer than before."""
    before, after = (
        told(*names).fact(CriticalPath).by_family_s
        for names in (("balanced", "explicit"), ("balanced", "slow"))
    )
    communication = ("dispatch", "combine", "pipeline messages", "optimizer")
    kernels = [sum(s for n, s in p.items() if n not in communication) for p in (before, after)]
    assert 1.5 < kernels[1] / kernels[0] <= 2


CHUNK = (
    ("compute", "a", (), -1),
    ("comm", "x", (0,), 0),
    ("compute", "b", (), -1),
    ("comm", "y", (2,), 1),
    ("compute", "c", (3,), -1),
)


@pytest.mark.parametrize(
    ("a", "b", "c", "chain"),
    [
        ((1, 3), (5, 1), (1, 2), [(4, 1), (3, 1), (2, 0), (0, 0)]),
        ((1, 3), (1, 1), (2, 1), [(4, 0), (3, 0), (1, 0), (0, 1)]),
        ((3, 1), (1, 5), (1, 1), [(4, 0), (3, 0), (2, 1), (0, 1)]),
    ],
    ids=["the slow kernels of one", "both exchanges", "the slow kernels of the other"],
)
def test_the_chain_goes_through_the_rank_that_an_exchange_waited_for(a, b, c, chain):
    """Kernels a, b and c, an exchange x of 2 s after a, and y of 1 s after b, on two ranks.

    First case: a ends at 1 / 3, x at 5 / 5, b at 6 / 4, so y waits for rank 0, from 6 to 7, and c
    ends at 8 / 9. Back from c of rank 1: y, then b of rank 0 and a before it: 2 + 1 + 5 + 1 = 9.
    Second: b ends at 2 / 4 and x at 5, so y is from 5 to 6 after x, which waited for a of rank 1:
    c, y, x, a: 2 + 1 + 2 + 3 = 8. Third: as the first, with b of rank 1 from 1 to 6; c ends at 8.
    """
    builder = GraphBuilder()
    for stream, name, after, collective in CHUNK:
        builder.add(stream, name, after=after, collective=collective)
    graph = builder.build()
    duration_s = np.array([a, (2, 2), b, (1, 1), c], np.float64)
    end_s = array.play_replicas(graph, duration_s, group=2).end_s
    last = int(end_s[4].argmax())
    found = list(_walk(order_of(graph), end_s, Link(4, last)))
    assert found == [Link(*link) for link in chain]
    assert (
        sum(duration_s[link] for link in found)
        == end_s.max()
        == sum(duration_s[link] for link in chain)
    )


def test_what_the_path_needs_is_played_again_to_the_same_bits(told):
    result = told("unlike")
    played = play(result.resolved(), critical=True)
    again = critical_path_s(played.lowered, played.folded.prices, played.explicit)
    assert again == result.fact(CriticalPath).by_family_s
