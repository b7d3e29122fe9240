"""Explicit ranks against a step worked out by hand.

Two pipeline ranks of one MoE layer each, two pipelines in one expert group, 1F1B with two
micro-batches. In seconds: attention and exchanges take 1, experts 2, each run of weight gradients
and each message 1; all else nothing. But GPUs differ in attention:

    pipeline 1 takes 3 for attn(F) on pipeline rank 0
    pipeline 0 takes 4 for attn(B) on pipeline rank 1

Exchanges begin together, so pipelines part only where a backward chunk ends. When they begin apart,
the one that came first waits in its first exchange. Times of pipeline 0 / pipeline 1:

    rank 0  F0   0 to 7     3 of attention, then dispatch, 2 of experts, combine; 0 waits 2 for 1
            F1   7 to 14    the same
    rank 1  F0   8 to 13    a second after it left; alike here: 1 + 1 + 2 + 1
            B0  13 to 23/20 combine, 2 + 1 of experts, dispatch, then attention: 4 / 1, and 1
            F1  23/20 to 28 1 waits 3 for 0 in dispatch
            B1  28 to 38/35
    rank 0  B0  24/21 to 31 a second after it left; 1 waits 3 for 0 in combine; 1+2+1+1+1+1 from 24
            B1  39/36 to 46 the same

The optimizer takes 4 on rank 0, from 46, and 1 on rank 1, from 38, so the step takes 50.
"""

import numpy as np
import pytest

from simulator import Experiment
from simulator.driver.explicit import play_explicit
from simulator.driver.step import play as play_step
from simulator.engines import array, reference
from simulator.lower.expansion import expand
from simulator.lower.rank_seconds import RankSeconds
from simulator.network.comm_times import CommTimes
from simulator.price.messages import MessageTimes
from simulator.tell.facts.critical_path import critical_path_s
from workloads.phases import PHASES

MESSAGE_S, OPTIMIZER_S = 1.0, [4.0, 1.0]
SECONDS = {
    "attn(F) 0": 1.0,
    "attn(B) 0": 1.0,
    "attn(W) 0": 1.0,
    "mlp(F) 0": 2.0,
    "mlp(B) 0": 2.0,
    "mlp(W) 0": 1.0,
    "dispatch(F) 0": 1.0,
    "combine(F) 0": 1.0,
    "dispatch(B) 0": 1.0,
    "combine(B) 0": 1.0,
    "message": MESSAGE_S,
}


def seconds_of(expansion):
    """(tasks, pipelines) seconds, as in the module's text."""
    rows = []
    for task, rank in enumerate(expansion.rank):
        label = expansion.graph.labels[expansion.graph.label[task]].partition(" of ")[0]
        row = [SECONDS.get(label, 0.0)] * 2
        if (rank, label) == (0, "attn(F) 0"):
            row = [1.0, 3.0]
        elif (rank, label) == (1, "attn(B) 0"):
            row = [4.0, 1.0]
        rows.append(row)
    return np.array(rows)


@pytest.fixture(scope="module")
def folded():
    """DeepSeek-V3 cut down to two MoE layers, on the two nodes of two GPUs that it takes."""
    base = Experiment.load("deepseek-v3-pretrain")
    cut = {"layers": 2, "dense_layers": 0, "dense_ffn_width": 0, "mtp_layers": 0}
    return play_step(
        base.with_overrides(
            {
                "model": base.model.model_dump(mode="json") | cut,
                "cluster.nodes": 2,
                "cluster.node.gpus": 2,
                "cluster.node.chip.hbm_capacity_bytes": "8 TB",
                "plan": {"pp": 2, "ep": 2, "schedule": "1f1b", "layout": "1m, 1m+head"},
                "batch.sequences": 4,
                "communication.routed_nodes_max": 1,
            }
        )
    )


class Optimizer:
    """The end of the step as given, however slow the ranks."""

    def seconds(self, kernels, nic, nvlink):
        assert kernels.tolist() == nic.tolist() == nvlink.tolist() == [1, 1]
        return np.array(OPTIMIZER_S)


@pytest.fixture(params=[array, reference], ids=["array", "reference"])
def play(request, folded, monkeypatch):
    """The step as above, whatever prices, loads and speeds say."""

    def by_hand(work, table, column, exchange_s, slowness):
        seconds = seconds_of(expand(folded.lowered))
        assert seconds.shape == (len(work.row), column.shape[1])
        return seconds

    monkeypatch.setattr("simulator.lower.rank_seconds.fill_durations", by_hand)
    times = CommTimes(np.full((1, 2), MESSAGE_S), np.zeros((1, 2)), np.zeros((1, 2)))
    messages = MessageTimes(np.array([[1, 0], [0, 1]]), times)
    ranks = RankSeconds.of(folded.experiment.ranks, folded.folded, folded.pricer, messages)
    return play_explicit(ranks, request.param, Optimizer(), pipelines=[1], critical=True)


def test_the_case_is_the_one_worked_out(folded):
    program = [[(s.kind, s.forward, s.backward) for s in own] for own in folded.program.table.steps]
    kinds = [[kind for kind, *_ in own] for own in program]
    assert kinds == [["F", "F", "B", "B"], ["F", "B", "F", "B"]]
    assert (folded.experiment.cluster.gpus, folded.experiment.plan.ep) == (4, 2)
    expansion = expand(folded.lowered)
    assert set(SECONDS) <= {label.partition(" of ")[0] for label in expansion.graph.labels}


def test_ranks_end_when_they_should(play):
    assert play.finish_s.tolist() == [[46, 46], [38, 35]]
    assert play.optimizer_start_s.tolist() == [46, 38]
    assert play.step_s == 50


def test_phases_are_what_lies_between_begins_and_ends(play):
    """A rank that waits in an exchange is in its chunk: that is no bubble."""
    phases = dict(zip(PHASES, play.phase_s.tolist(), strict=True))
    assert phases == {
        "forward": [[14, 14], [5 + 5, 5 + 8]],
        "backward": [[7 + 7, 10 + 10], [10 + 10, 7 + 7]],
        "weight": [[0, 0], [0, 0]],
        "forward_backward": [[0, 0], [0, 0]],
        "optimizer": [[4, 4], [1, 1]],
        "bubble": [[50 - 14 - 14 - 4, 50 - 14 - 20 - 4], [50 - 10 - 20 - 1, 50 - 13 - 14 - 1]],
    }


def test_work_is_counted_stream_by_stream(play):
    """Kernels of a forward 3, of a backward 5, longer as above; four exchanges a micro-batch."""
    assert play.compute_s.tolist() == [[16, 20], [22, 16]]
    assert play.communication_s.tolist() == [[8, 8], [8, 8]]


def test_waits_are_blamed_on_the_one_that_came_last(play):
    """Rank 0: 0 waits for 1 in both forwards, 1 for 0 in both backwards. Rank 1: in F1 only."""
    assert play.wait_s.tolist() == [[2 + 2, 3 + 3], [0, 3]]
    assert play.blame_s.tolist() == [[3 + 3, 2 + 2], [3, 0]]


def test_a_pipeline_is_looked_at_closer_step_by_step(play, folded):
    """Pipeline 1, steps and messages in the order of each rank, then optimizers."""
    record = play.record(folded.lowered, 1)
    chunks = record.steps
    assert chunks.end_s.tolist() == [7, 14, 31, 46, 13, 20, 28, 35, 8, 15, 21, 36, 50, 39]
    assert chunks.start_s.tolist() == [0, 7, 21, 36, 8, 13, 20, 28, 7, 14, 20, 35, 46, 38]
    segments = record.segments
    waits = {
        (segments.graph.name(task).split(" of ")[0].strip("'"), rank): seconds
        for task, rank, seconds in zip(
            range(len(segments.graph)),
            expand(folded.lowered).rank.tolist(),
            segments.wait_s.tolist(),
            strict=True,
        )
        if seconds
    }
    assert waits == {("combine(B) 0", 0): 3, ("dispatch(F) 0", 1): 3}


def test_the_critical_path_is_the_one_through_the_slow_gpus(play, folded):
    """Back from the optimizer of rank 0: B1, a message, then B1, F1, B0 and F0 of rank 1 without a
    gap, all of pipeline 0, a message, and F0 of rank 0, where the slow attention of pipeline 1
    comes first: 4 + 7 + 1 + (10 + 5 + 10 + 5) + 1 + 7 = 50. Six exchanges are on dispatch kernels,
    six on those of combine; what is left are kernels.
    """
    path = critical_path_s(folded.lowered, folded.folded.prices, play)
    named = {name: path.pop(name) for name in ("optimizer", "pipeline messages")}
    assert named == {"optimizer": 4, "pipeline messages": 2}
    assert (path.pop("dispatch"), path.pop("combine")) == (6, 6)
    assert sum(path.values()) == pytest.approx(50 - 4 - 2 - 12, rel=1e-12)
