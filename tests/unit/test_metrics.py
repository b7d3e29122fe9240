"""Metrics, breakdown and parts of a step against their definitions."""

from statistics import fmean

import pytest

from simulator.tell.facts.kernels import Kernels
from simulator.tell.facts.parts import Parts
from simulator.tell.facts.pipeline_ranks import PipelineRanks

PHASES = ["forward", "bubble", "backward", "weight", "forward_backward", "optimizer"]


def test_the_phases_of_every_rank_sum_to_the_step(short_run):
    result = short_run()
    by_rank_s, step_s = result.fact(PipelineRanks).breakdown_s, result.metrics.step_time_s
    assert list(by_rank_s) == list(result.breakdown_s) == list(result.phases) == PHASES
    for rank in range(16):
        total = sum(seconds[rank] for seconds in by_rank_s.values())
        assert total == pytest.approx(step_s, rel=1e-12)
    assert sum(result.breakdown_s.values()) == pytest.approx(step_s, rel=1e-12)


def test_the_breakdown_is_the_mean_over_ranks(short_run):
    result = short_run()
    for name, by_rank in result.fact(PipelineRanks).breakdown_s.items():
        assert len(by_rank) == 16
        assert min(by_rank) >= 0
        assert result.breakdown_s[name] == pytest.approx(sum(by_rank) / 16, rel=1e-12)


def test_rates_follow_from_the_step(short_run):
    """4,096 sequences of 4,096 tokens on 2,048 GPUs."""
    metrics = short_run().metrics
    tokens_per_s = 4096 * 4096 / metrics.step_time_s
    assert metrics.tokens_per_day == pytest.approx(tokens_per_s * 86400, rel=1e-12)
    assert metrics.tokens_per_s_per_gpu == pytest.approx(tokens_per_s / 2048, rel=1e-12)


def test_flops_follow_the_published_convention(short_run):
    """249.811 and 280.514 GFLOP per token, causal and not; MFU against 989.4 TFLOPS of BF16
    (ISCA'25 Table 4; its 989 is in the row of the published figure).
    """
    metrics = short_run().metrics
    for count, tflops, mfu in (
        (249.811, metrics.tflops_causal, metrics.mfu_causal),
        (280.514, metrics.tflops_noncausal, metrics.mfu_noncausal),
    ):
        assert tflops == pytest.approx(metrics.tokens_per_s_per_gpu * count / 1e3, rel=1e-5)
        assert mfu == pytest.approx(tflops / 989.4, rel=1e-9)


def test_memory_is_that_of_the_fullest_rank(short_run, short_played):
    result, workload = short_run(), short_played().program
    terms, by_rank = dict(result.memory_bytes), result.fact(PipelineRanks).memory_bytes
    total = terms.pop("total")
    assert total == sum(terms.values()) == max(by_rank)
    assert len(by_rank) == 16
    assert terms in workload.memory_bytes


def test_parts_are_reported_by_kind_and_stages(short_simulated):
    result, step = short_simulated()
    told = result.fact(Parts)
    parts = {part.name: part for part in told.parts}
    assert len(parts) == len(told.parts)
    assert {"F 0", "F 1", "F 15", "Bi 1", "W 1", "FB 1|1", "FB 0|15", "FB 15|0"} <= set(parts)
    played = step.parts["FB", 1, 1]
    pair = parts["FB 1|1"]
    assert told["FB 1|1"] is pair
    ranks = [[played.timeline(draw, rank) for rank in range(64)] for draw in range(played.draws)]
    slowest = [max(timeline.makespan_s for timeline in own) for own in ranks]
    assert len(set(slowest)) == len(slowest) == 8
    assert pair.duration_s == pytest.approx(fmean(slowest), rel=1e-12)
    timelines = [timeline for own in ranks for timeline in own]
    for seconds, stream in ((pair.compute_s, "compute"), (pair.communication_s, "comm")):
        own = timelines[0].graph.streams.index(stream)
        busy_s = fmean(timeline.busy_s()[own] for timeline in timelines)
        assert seconds == pytest.approx(busy_s, rel=1e-12)
    joined = timelines[0].graph.collective >= 0
    wait_s = fmean(timeline.wait_s[joined].mean() for timeline in timelines)
    assert pair.mean_wait_s == pytest.approx(wait_s, rel=1e-9)
    assert pair.mean_wait_s > 0
    assert 0 < pair.communication_s < pair.compute_s <= pair.duration_s
    assert parts["W 1"].communication_s == parts["W 1"].mean_wait_s == 0


def test_an_overlapped_pair_is_shorter_than_its_halves(short_run):
    """DualPipe's reason to be: 126-130 ms overlapped, 165-179 ms apart (table4_chain.md §3)."""
    parts = {part.name: part.duration_s for part in short_run().fact(Parts).parts}
    apart = parts["F 1"] + parts["Bi 1"] + parts["W 1"]
    assert 0.6 * apart < parts["FB 1|1"] < 0.85 * apart


def test_compute_shares_add_up_and_glue_is_a_quarter_of_the_time(short_run):
    """In the MoE layers of the H800 trace it is 28 %; heads and dense layers have less."""
    shares = short_run().fact(Kernels).compute_share
    assert sum(shares.values()) == pytest.approx(1, rel=1e-12)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    tensor = (
        "fp8_block",
        "fp8_block_grouped",
        "fp8_block_wgrad",
        "bf16",
        "attention_forward",
        "attention_backward",
    )
    glue = 1 - sum(shares[family] for family in tensor)
    assert 0.2 < glue < 0.3
