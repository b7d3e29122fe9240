"""Closed forms of whole steps against replays of all schedules."""

import numpy as np
import pytest

from workloads.schedules import SCHEDULES
from workloads.schedules.replay import peak_in_flight, replay
from workloads.schedules.stage_times import StageTimes

CASES = [(name, *size) for name, each in SCHEDULES.items() for size in each.sizes()]
ONE_WAY = [case for case in CASES if SCHEDULES[case[0]].PARAMETER_COPIES == 1]


def stage_times(pp, forward=1.0, inputs=1.0, weight=1.0, hidden=0.0, spread=0.0, seed=0):
    """Seconds of stages that differ by up to `spread`, whose pairs hide a share of their time."""
    size = 1 + spread * np.random.default_rng(seed).uniform(-1, 1, pp)
    forward_s, input_s, weight_s = size * forward, size * inputs, size * weight
    backward_s = input_s + weight_s
    pair_s = (forward_s + backward_s[::-1]) * (1 - hidden)
    return StageTimes(forward_s, backward_s, input_s, weight_s, pair_s)


def replayed_s(name, pp, microbatches, stages):
    def duration_s(step):
        of_kind = {"F": stages.forward_s, "B": stages.backward_s, "Bi": stages.input_s}
        of_kind |= {"W": stages.weight_s, "FB": stages.pair_s}
        return of_kind[step.kind][(step.forward or step.backward).stage]

    return replay(SCHEDULES[name].steps(pp, microbatches), duration_s).makespan_s


@pytest.mark.parametrize(("name", "pp", "microbatches"), CASES)
def test_equal_stages_take_what_the_closed_form_says(name, pp, microbatches):
    stages = stage_times(pp)
    played_s = replayed_s(name, pp, microbatches, stages)
    form_s = SCHEDULES[name].step_s(pp, microbatches, stages)
    assert form_s == pytest.approx(played_s, rel=1e-12)


@pytest.mark.parametrize(("name", "pp", "microbatches"), CASES)
def test_the_form_of_equal_stages_is_work_and_bubble(name, pp, microbatches):
    """M (F + B) + bubble_s, once there are as many micro-batches as ranks."""
    if microbatches < pp:
        pytest.skip("fewer micro-batches than ranks: bubble_s does not hold")
    form_s = SCHEDULES[name].step_s(pp, microbatches, stage_times(pp))
    bubble_s = SCHEDULES[name].bubble_s(pp, 1.0, 2.0, 1.0, 3.0)
    assert form_s == pytest.approx(3.0 * microbatches + bubble_s, rel=1e-12)


@pytest.mark.parametrize(("name", "pp", "microbatches"), ONE_WAY)
def test_one_way_schedules_are_exact_for_other_ratios(name, pp, microbatches):
    stages = stage_times(pp, forward=1.0, inputs=1.3, weight=0.8)
    played_s = replayed_s(name, pp, microbatches, stages)
    form_s = SCHEDULES[name].step_s(pp, microbatches, stages)
    assert form_s == pytest.approx(played_s, rel=1e-12)


@pytest.mark.parametrize("spread", [0.05, 0.3])
@pytest.mark.parametrize(("name", "pp", "microbatches"), ONE_WAY)
def test_one_way_schedules_are_bounded_from_above(name, pp, microbatches, spread):
    for seed in range(5):
        stages = stage_times(pp, 1.0, 1.3, 0.8, spread=spread, seed=seed)
        played_s = replayed_s(name, pp, microbatches, stages)
        assert SCHEDULES[name].step_s(pp, microbatches, stages) >= played_s * (1 - 1e-12)


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3])
@pytest.mark.parametrize(("name", "pp", "microbatches"), CASES)
def test_no_form_is_below_what_the_busiest_rank_works(name, pp, microbatches, spread):
    stages = stage_times(pp, 1.0, 1.3, 0.8, hidden=0.12, spread=spread)
    of_kind = {"F": stages.forward_s, "B": stages.backward_s, "Bi": stages.input_s}
    of_kind |= {"W": stages.weight_s, "FB": stages.pair_s}
    busy_s = max(
        sum(of_kind[step.kind][(step.forward or step.backward).stage] for step in steps)
        for steps in SCHEDULES[name].steps(pp, microbatches)
    )
    assert SCHEDULES[name].step_s(pp, microbatches, stages) >= busy_s * (1 - 1e-12)


@pytest.mark.parametrize(("name", "pp", "microbatches"), CASES)
def test_more_micro_batches_than_fill_the_pipeline_hold_no_more(name, pp, microbatches):
    """What a screen of memory rests on: the fullest moment comes while the pipeline fills."""
    schedule = SCHEDULES[name]
    few = min(microbatches, 2 * pp)
    bytes_of = np.random.default_rng(1).uniform(1, 2, pp).tolist()
    pairs = zip(schedule.steps(pp, microbatches), schedule.steps(pp, few), strict=True)
    for steps, first in pairs:
        whole, screened = (peak_in_flight(each, bytes_of.__getitem__) for each in (steps, first))
        assert screened == pytest.approx(whole, rel=1e-12)
