"""Closed forms of whole steps against replays of all schedules."""

import numpy as np
import pytest

from workloads.schedules import SCHEDULES, filling
from workloads.schedules.replay import peak_in_flight, replay
from workloads.schedules.stage_times import StageTimes

CASES = [(name, *size) for name, each in SCHEDULES.items() for size in each.sizes()]

PAIRED = ("dualpipe", "dualpipev")
"""Exact for one ratio only: with others ranks differ."""
ONE_BY_ONE = [case for case in CASES if case[0] not in PAIRED]
ONE_STAGE = [case for case in ONE_BY_ONE if SCHEDULES[case[0]].stages(1) == 1]
SEVERAL = [case for case in ONE_BY_ONE if case not in ONE_STAGE]


def stage_times(stages, forward=1.0, inputs=1.0, weight=1.0, hidden=0.0, spread=0.0, seed=0):
    """Seconds of stages that differ by up to `spread`, whose pairs hide a share of their time."""
    size = 1 + spread * np.random.default_rng(seed).uniform(-1, 1, stages)
    forward_s, input_s, weight_s = size * forward, size * inputs, size * weight
    backward_s = input_s + weight_s
    pair_s = (forward_s + backward_s[::-1]) * (1 - hidden)
    return StageTimes(forward_s, backward_s, input_s, weight_s, pair_s)


def duration_of(times):
    """Seconds of a step, of the stage that it works on."""
    of_kind = {"F": times.forward_s, "B": times.backward_s, "Bi": times.input_s}
    of_kind |= {"W": times.weight_s, "FB": times.pair_s}
    return lambda step: of_kind[step.kind][(step.forward or step.backward).stage]


def replayed_s(name, pp, microbatches, vpp, times):
    return replay(SCHEDULES[name].steps(pp, microbatches, vpp), duration_of(times)).makespan_s


@pytest.mark.parametrize(("name", "pp", "microbatches", "vpp"), CASES)
def test_equal_stages_take_what_the_closed_form_says(name, pp, microbatches, vpp):
    times = stage_times(SCHEDULES[name].stages(pp, vpp))
    played_s = replayed_s(name, pp, microbatches, vpp, times)
    form_s = SCHEDULES[name].step_s(pp, microbatches, times)
    assert form_s == pytest.approx(played_s, rel=1e-12)


@pytest.mark.parametrize(("name", "pp", "microbatches", "vpp"), CASES)
def test_the_form_of_equal_stages_is_work_and_bubble(name, pp, microbatches, vpp):
    """M (F + B) of a rank's chunks + bubble_s, once there are as many micro-batches as ranks."""
    if microbatches < pp:
        pytest.skip("fewer micro-batches than ranks: bubble_s does not hold")
    stages = SCHEDULES[name].stages(pp, vpp)
    form_s = SCHEDULES[name].step_s(pp, microbatches, stage_times(stages))
    bubble_s = SCHEDULES[name].bubble_s(pp, 1.0, 2.0, 1.0, 3.0)
    assert form_s == pytest.approx(3.0 * microbatches * stages / pp + bubble_s, rel=1e-12)


@pytest.mark.parametrize(("name", "pp", "microbatches", "vpp"), ONE_BY_ONE)
def test_schedules_without_overlap_are_exact_for_other_ratios(name, pp, microbatches, vpp):
    times = stage_times(SCHEDULES[name].stages(pp, vpp), forward=1.0, inputs=1.3, weight=0.8)
    played_s = replayed_s(name, pp, microbatches, vpp, times)
    form_s = SCHEDULES[name].step_s(pp, microbatches, times)
    assert form_s == pytest.approx(played_s, rel=1e-12)


@pytest.mark.parametrize("spread", [0.05, 0.3])
@pytest.mark.parametrize(("name", "pp", "microbatches", "vpp"), ONE_STAGE)
def test_schedules_of_one_stage_a_rank_are_bounded_from_above(name, pp, microbatches, vpp, spread):
    for seed in range(5):
        times = stage_times(pp, 1.0, 1.3, 0.8, spread=spread, seed=seed)
        played_s = replayed_s(name, pp, microbatches, vpp, times)
        assert SCHEDULES[name].step_s(pp, microbatches, times) >= played_s * (1 - 1e-12)


@pytest.mark.parametrize(("name", "pp", "microbatches", "vpp"), SEVERAL)
def test_schedules_of_several_chunks_a_rank_are_near_for_unequal_ones(name, pp, microbatches, vpp):
    """Chunks that differ by up to 30 %: within 12 % of the replay, by the mean bubble."""
    for seed in range(5):
        stages = SCHEDULES[name].stages(pp, vpp)
        times = stage_times(stages, 1.0, 1.3, 0.8, spread=0.3, seed=seed)
        played_s = replayed_s(name, pp, microbatches, vpp, times)
        assert SCHEDULES[name].step_s(pp, microbatches, times) == pytest.approx(played_s, rel=0.12)


@pytest.mark.parametrize("microbatches", [10, 40, 160])
@pytest.mark.parametrize("ratio", [(1.0, 1.6, 0.7), (1.0, 1.4, 0.5), (1.2, 1.0, 1.0)])
def test_the_bubble_of_vhalf_grows_with_micro_batches_where_its_condition_fails(
    ratio, microbatches
):
    """`2 b > 2 F + W`, or `F > b`: a block of the building is longer than its work."""
    times = stage_times(16, *ratio)
    played_s = replayed_s("vhalf", 8, microbatches, None, times)
    assert SCHEDULES["vhalf"].step_s(8, microbatches, times) == pytest.approx(played_s, rel=0.02)


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3])
@pytest.mark.parametrize(("name", "pp", "microbatches", "vpp"), CASES)
def test_no_form_is_below_what_the_busiest_rank_works(name, pp, microbatches, vpp, spread):
    schedule = SCHEDULES[name]
    times = stage_times(schedule.stages(pp, vpp), 1.0, 1.3, 0.8, hidden=0.12, spread=spread)
    duration_s = duration_of(times)
    busy_s = max(
        sum(duration_s(step) for step in steps) for steps in schedule.steps(pp, microbatches, vpp)
    )
    assert schedule.step_s(pp, microbatches, times) >= busy_s * (1 - 1e-12)


@pytest.mark.parametrize(("name", "pp", "microbatches", "vpp"), CASES)
def test_more_micro_batches_than_fill_the_pipeline_hold_no_more(name, pp, microbatches, vpp):
    """What a screen of memory rests on: the fullest moment comes while the pipeline fills."""
    schedule = SCHEDULES[name]
    few = filling(schedule, pp, microbatches, vpp)
    bytes_of = np.random.default_rng(1).uniform(1, 2, schedule.stages(pp, vpp)).tolist()
    pairs = zip(schedule.steps(pp, microbatches, vpp), schedule.steps(pp, few, vpp), strict=True)
    for steps, first in pairs:
        whole, screened = (peak_in_flight(each, bytes_of.__getitem__) for each in (steps, first))
        assert screened == pytest.approx(whole, rel=1e-12)
