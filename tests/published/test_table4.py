"""DeepSeek-V3's training step on 2,048 H800s, ISCA'25 (arXiv 2505.09343) Table 4.

Layout, plan, SM split and expert imbalance were fixed before anything was compared; the kernel
profile, the head's rate per SM in use and the number of draws after a first look. No constant comes
from this table. Two runs are compared: all GPUs alike, a best case, and the median of what sets
them apart. Phases are means over pipeline ranks, and rank 0's: the source does not say which rank
it shows, and rank 0 was looked at after the table. Bars: table4_chain.md, "Recommended bars".
"""

import numpy as np
import pytest

from simulator.driver.step import play
from simulator.engines import array
from simulator.lower.pipeline import build_pipeline, rank_times
from simulator.tell.facts.parts import Parts
from workloads.schedules import schedule
from workloads.steps import step_table

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
ALIKE = sorted(PUBLISHED)
UNLIKE = "deepseek-v3-pretrain-uncertain"
PUBLISHED[UNLIKE] = PUBLISHED["deepseek-v3-pretrain"]
RUNS = sorted(PUBLISHED)


def simulated(result, rank=None):
    """Step and phases: of one rank, of their mean, or of that the median over the draws."""
    draws = result.intervals
    if rank is None and draws:
        phases = {name: draws[f"breakdown_s.{name}"].median for name in result.phases}
    else:
        phases = {name: result.phase_s(name, rank) for name in result.phases}
    both = phases.pop("backward") + phases.pop("weight")
    step_s = draws["step_time_s"].median if draws else result.metrics.step_time_s
    return {"step": step_s, "backward_plus_weight": both} | phases


@pytest.mark.parametrize("name", RUNS)
def test_step_within_10_and_overlapped_pairs_within_8_percent_both_at_once(published_run, name):
    """Both, so that errors do not cancel."""
    ours, printed = simulated(published_run(name)), PUBLISHED[name]
    assert ours["step"] == pytest.approx(printed["step"], rel=0.10)
    assert ours["forward_backward"] == pytest.approx(printed["forward_backward"], rel=0.08)


MISSED = pytest.mark.xfail(
    strict=True,
    reason="38 % short: all GPUs are alike and nothing jitters; the reports do not say which rank "
    "the row shows, nor what they book as bubble",
)


WIDER = pytest.mark.xfail(
    strict=True,
    reason="15.2 % long, the median of draws, since each memory-bound kernel has a factor of its "
    "own: their sum is longer by 2 % at the profile's spread of 20 %; before, 14.7 %",
)


def marks(name, phase):
    if phase == "bubble" and name in ALIKE:
        return MISSED
    return WIDER if (name, phase) == (UNLIKE, "forward") else ()


@pytest.mark.parametrize(
    ("name", "phase"),
    [pytest.param(name, phase, marks=marks(name, phase)) for name in RUNS for phase in BARS],
)
def test_each_other_phase_is_within_its_bar(published_run, name, phase):
    ours = simulated(published_run(name))[phase]
    assert ours == pytest.approx(PUBLISHED[name][phase], rel=BARS[phase])


@pytest.mark.parametrize("phase", BARS)
@pytest.mark.parametrize("name", ALIKE)
def test_each_other_phase_of_rank_0_is_within_its_bar(published_run, name, phase):
    """The other reading of the table, looked at after it."""
    ours = simulated(published_run(name), rank=0)[phase]
    assert ours == pytest.approx(PUBLISHED[name][phase], rel=BARS[phase])


@pytest.mark.parametrize(
    ("rank", "message_s", "bubble_s"),
    [
        (None, 0.0, (0.80, 1.17)),
        (None, 1.338e-3, (1.13, 1.49)),
        (0, 0.0, (0.96, 1.19)),
        (0, 1.338e-3, (1.28, 1.52)),
    ],
)
def test_equal_stages_of_the_tables_own_chunks_leave_half_a_second_of_its_bubble(
    rank, message_s, bubble_s
):
    """F, B, W and pairs of the table, each over its chunks on the mean rank or on rank 0, with the
    weight part of full backwards booked in 1B or in 1W. Of 2.06 s the schedule and its messages
    explain 1.5: the rest is imbalance, jitter and waiting.
    """
    found = [table_bubble_s(rank, message_s, booked) for booked in ("1B", "1W")]
    assert found == pytest.approx(bubble_s, abs=0.006)
    assert max(found) < 2.06 - 0.5


def table_bubble_s(rank, message_s, booked):
    """Bubble of DualPipe, 16 ranks, 120 micro-batches, the printed phases as equal chunks."""
    program = schedule("dualpipe").steps(16, 120)
    counts = {
        kind: [sum(step.kind == kind for step in own) for own in program]
        for kind in ("F", "B", "Bi", "W", "FB")
    }
    n = {kind: np.mean(c) if rank is None else c[rank] for kind, c in counts.items()}
    if booked == "1B":
        w = 0.48 / n["W"]
        b = (1.99 - n["B"] * w) / (n["B"] + n["Bi"])
    else:
        w = 0.48 / (n["W"] + n["B"])
        b = 1.99 / (n["B"] + n["Bi"])
    seconds = {"F": 1.13 / n["F"], "Bi": b, "B": b + w, "W": w, "FB": 13.95 / n["FB"]}
    pipeline = build_pipeline(step_table(program), [min(r, 15 - r) for r in range(16)])
    chunk_s = np.array([seconds[step.kind] for own in program for step in own])
    timeline = array.play(pipeline.timed(chunk_s, message_s, np.zeros(16)))
    bubble_s = rank_times(pipeline, timeline).phases["bubble"]
    return bubble_s.mean() if rank is None else bubble_s[rank]


def test_the_two_networks_differ_by_less_than_what_can_be_told_apart(published_run):
    """Printed: 0.020 s, in rows where no exchange is exposed, so treated as noise (§4 there).

    Today both runs price the network alike and differ by nothing; this guards what may tell them
    apart one day.
    """
    planes, rails = (published_run(name).metrics.step_time_s for name in ALIKE)
    assert abs(rails - planes) <= 0.06


def test_the_bubble_is_more_than_that_of_equal_chunks(published_run):
    """(PP/2 - 1)(F&B + B - 3W) with the middle stages' own chunks bounds it from below: unequal
    stages and messages only add (table4_chain.md §4).
    """
    result = published_run("deepseek-v3-pretrain")
    part_s = {part.name: part.duration_s for part in result.fact(Parts).parts}
    form = 7 * (part_s["FB 1|1"] + part_s["B 1"] - 3 * part_s["W 1"])
    assert result.breakdown_s["bubble"] > form


def test_the_step_fits_into_80_gb_with_17_micro_batches_in_flight(published_run):
    """PP + 1 on every rank, counted along the program (DualPipe; arXiv 2412.19437v2 Table 2)."""
    result = published_run("deepseek-v3-pretrain")
    assert result.memory_bytes["total"] < 80e9
    for own in play(result.resolved()).pipeline.program:
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


def test_the_interval_of_the_step_is_narrow(published_run):
    """Half of it is at most 6 % of the median."""
    spread = published_run(UNLIKE).intervals["step_time_s"]
    assert (spread.p90 - spread.p10) / 2 <= 0.06 * spread.median


def test_the_interval_of_the_step_covers_it(published_run):
    assert "step_time_s" in covered(published_run(UNLIKE))


def test_overlapped_pairs_and_optimizer_are_covered(published_run):
    assert covered(published_run(UNLIKE)) >= {
        "breakdown_s.forward_backward",
        "breakdown_s.optimizer",
    }


@pytest.mark.xfail(
    strict=True,
    reason="four of seven: forward, bubble and weight gradients lie outside; the ranges do "
    "not cover layout, rank and bookkeeping of the row, unpublished",
)
def test_five_of_the_seven_rows_are_covered(published_run):
    assert len(covered(published_run(UNLIKE))) >= 5
