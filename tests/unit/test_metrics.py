"""Metrics of a step against their definitions."""

from statistics import fmean

import pytest

PHASES = ["forward", "bubble", "backward", "weight", "forward_backward", "optimizer"]


def test_the_phases_of_every_rank_sum_to_the_step(short_run):
    metrics = short_run().metrics
    assert list(metrics.breakdown_by_rank_s) == PHASES
    for rank in range(16):
        total = sum(seconds[rank] for seconds in metrics.breakdown_by_rank_s.values())
        assert total == pytest.approx(metrics.step_time_s, rel=1e-12)
    assert sum(metrics.breakdown_s.values()) == pytest.approx(metrics.step_time_s, rel=1e-12)


def test_the_breakdown_is_the_mean_over_ranks(short_run):
    metrics = short_run().metrics
    for name, by_rank in metrics.breakdown_by_rank_s.items():
        assert len(by_rank) == 16
        assert min(by_rank) >= 0
        assert metrics.breakdown_s[name] == pytest.approx(sum(by_rank) / 16, rel=1e-12)


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
    metrics, workload = short_run().metrics, short_played().program
    terms = dict(metrics.memory_bytes)
    total = terms.pop("total")
    assert total == sum(terms.values()) == max(metrics.memory_by_rank_bytes)
    assert len(metrics.memory_by_rank_bytes) == 16
    assert terms in workload.memory_bytes


def test_chunks_are_reported_by_kind_and_stages(short_simulated):
    result, step = short_simulated()
    chunks = {chunk.name: chunk for chunk in result.metrics.chunks}
    assert len(chunks) == len(result.metrics.chunks)
    assert {"F 0", "F 1", "F 15", "Bi 1", "W 1", "FB 1|1", "FB 0|15", "FB 15|0"} <= set(chunks)
    played = step.parts["FB", 1, 1]
    pair = chunks["FB 1|1"]
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
    assert chunks["W 1"].communication_s == chunks["W 1"].mean_wait_s == 0


def test_an_overlapped_pair_is_shorter_than_its_halves(short_run):
    """DualPipe's reason to be: 126-130 ms overlapped, 165-179 ms apart (table4_chain.md §3)."""
    chunks = {chunk.name: chunk.duration_s for chunk in short_run().metrics.chunks}
    apart = chunks["F 1"] + chunks["Bi 1"] + chunks["W 1"]
    assert 0.6 * apart < chunks["FB 1|1"] < 0.85 * apart


def test_compute_shares_add_up_and_glue_is_a_quarter_of_the_time(short_run):
    """In the MoE layers of the H800 trace it is 28 %; heads and dense layers have less."""
    shares = short_run().metrics.compute_share
    assert sum(shares.values()) == pytest.approx(1, rel=1e-12)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    tensor = ("fp8", "fp8_grouped", "fp8_wgrad", "bf16", "attention_forward", "attention_backward")
    glue = 1 - sum(shares[family] for family in tensor)
    assert 0.2 < glue < 0.3
