"""DeepSeek-V3's training step on 2,048 H800s, ISCA'25 (arXiv 2505.09343) Table 4.

Layout, plan, SM split and expert imbalance were fixed before anything was compared; the kernel
profile, the head's rate per SM in use and the number of draws after a first look. No constant comes
from this table. Phases are means over pipeline ranks: the source does not say which
rank it shows. Bars: table4_chain.md, "Recommended bars".
"""

import pytest

PUBLISHED = {
    "deepseek-v3-pretrain": {
        "step": 19.926,
        "forward": 1.13,
        "bubble": 2.06,
        "backward_plus_weight": 2.47,
        "forward_backward": 13.95,
        "optimizer": 0.29,
    },
    "deepseek-v3-pretrain-mrft": {
        "step": 19.946,
        "forward": 1.13,
        "bubble": 2.03,
        "backward_plus_weight": 2.47,
        "forward_backward": 14.00,
        "optimizer": 0.31,
    },
}
BARS = {
    "backward_plus_weight": 0.12,
    "forward": 0.15,
    "bubble": 0.35,
    "optimizer": 0.35,
}
EXPERIMENTS = sorted(PUBLISHED)


def simulated(result):
    phases = dict(result.metrics.breakdown_s)
    both = phases.pop("backward") + phases.pop("weight")
    return {"step": result.metrics.step_time_s, "backward_plus_weight": both} | phases


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_step_within_10_and_overlapped_pairs_within_8_percent_both_at_once(published_run, name):
    """Both, so that errors do not cancel."""
    ours, printed = simulated(published_run(name)), PUBLISHED[name]
    assert ours["step"] == pytest.approx(printed["step"], rel=0.10)
    assert ours["forward_backward"] == pytest.approx(printed["forward_backward"], rel=0.08)


MISSED = pytest.mark.xfail(
    strict=True,
    reason="38 % short: no jitter of GPUs, kernels or real traffic; the reports do not say which "
    "rank the row shows, nor what they book as bubble",
)


@pytest.mark.parametrize(
    "phase", [pytest.param(p, marks=MISSED if p == "bubble" else ()) for p in BARS]
)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_other_phase_is_within_its_bar(published_run, name, phase):
    ours = simulated(published_run(name))[phase]
    assert ours == pytest.approx(PUBLISHED[name][phase], rel=BARS[phase])


def test_the_two_networks_differ_by_less_than_what_can_be_told_apart(published_run):
    """Printed: 0.020 s, in rows where no exchange is exposed, so treated as noise (§4 there).

    Today both runs price the network alike and differ by nothing; this guards what may tell them
    apart one day.
    """
    planes, rails = (published_run(name).metrics.step_time_s for name in EXPERIMENTS)
    assert abs(rails - planes) <= 0.06


def test_the_bubble_is_more_than_that_of_equal_chunks(published_run):
    """(PP/2 - 1)(F&B + B - 3W) with the middle stages' own chunks bounds it from below: unequal
    stages and messages only add (table4_chain.md §4).
    """
    metrics = published_run("deepseek-v3-pretrain").metrics
    chunk = {each.name: each.duration_s for each in metrics.chunks}
    form = 7 * (chunk["FB 1|1"] + chunk["B 1"] - 3 * chunk["W 1"])
    assert metrics.breakdown_s["bubble"] > form


def test_the_step_fits_into_80_gb_with_17_chunks_in_flight(published_run):
    """PP + 1 on every rank, counted along the program (DualPipe; arXiv 2412.19437v2 Table 2)."""
    result = published_run("deepseek-v3-pretrain")
    assert max(result.metrics.memory_by_rank_bytes) < 80e9
    for own in result.training_run().pipeline.program:
        held = peak = 0
        for step in own:
            held += step.forward is not None
            peak = max(peak, held)
            held -= step.backward is not None and step.kind != "W"
        assert peak == 17


# Intervals: ranges of the preset deepseek-v3-pretrain-uncertain, written down before any draw

PRINTED = {
    "step_time_s": 19.926,
    "breakdown_s.forward": 1.13,
    "breakdown_s.bubble": 2.06,
    "breakdown_s.backward": 1.99,
    "breakdown_s.weight": 0.48,
    "breakdown_s.forward_backward": 13.95,
    "breakdown_s.optimizer": 0.29,
}


def covered(result):
    spreads = result.intervals
    return {n for n, s in PRINTED.items() if spreads[n].p10 <= s <= spreads[n].p90}


def test_the_interval_of_the_step_covers_it_and_is_narrow(published_run):
    """Half of it is at most 6 % of the median."""
    result = published_run("deepseek-v3-pretrain-uncertain")
    spread = result.intervals["step_time_s"]
    assert "step_time_s" in covered(result)
    assert (spread.p90 - spread.p10) / 2 <= 0.06 * spread.median


def test_overlapped_pairs_and_optimizer_are_covered_too(published_run):
    assert covered(published_run("deepseek-v3-pretrain-uncertain")) >= {
        "breakdown_s.forward_backward",
        "breakdown_s.optimizer",
    }


@pytest.mark.xfail(
    strict=True,
    reason="three of seven: forward, bubble, and backward and weight gradients taken apart lie "
    "outside; the ranges do not cover SMs, layout, rank and bookkeeping of the row, unpublished",
)
def test_five_of_the_seven_rows_are_covered(published_run):
    assert len(covered(published_run("deepseek-v3-pretrain-uncertain"))) >= 5
