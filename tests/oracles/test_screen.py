"""The screen of a plan against its play: the same memory and refusals, about the same step."""

import sys
from itertools import product

import numpy as np
import pytest

from hwmodels.errors import InputError
from simulator import Experiment, play
from simulator.study import part_seconds
from simulator.study.screen import expected_loads, memory_of, screen
from simulator.tell.outcome import outcome
from workloads import stages

PRESET = "deepseek-v3-pretrain"
ROOMY = {"cluster.node.chip.hbm_capacity_bytes": "400 GB"}
AXES = {
    "plan.pp": (4, 8, 16, 32),
    "plan.ep": (16, 32, 64, 128),
    "plan.schedule": ("1f1b", "zb1p", "dualpipe"),
    "batch.microbatch_sequences": (1, 2),
}


def plans(changes, axes):
    base = Experiment.load(PRESET).with_overrides(changes)
    for values in product(*axes.values()):
        yield base.with_overrides(dict(zip(axes, values, strict=True)))


def told(numbers_of, experiment):
    """Return the numbers of an experiment, or why it cannot run."""
    try:
        return numbers_of(experiment)
    except InputError as error:
        return str(error)


def played(experiment):
    try:
        (step,) = play([experiment])
    except InputError as error:
        raise type(error)(str(error).removeprefix(f"experiment 0 ({PRESET}): ")) from None
    return outcome(step).numbers


def rank_correlation(one, other):
    places = [np.argsort(np.argsort(each)) for each in (one, other)]
    return float(np.corrcoef(*places)[0, 1])


def test_screen_and_play_put_plans_of_deepseek_v3_in_about_one_order():
    """Printed: the rank correlation, and how far the screen is from the play. What it may differ
    by is what was measured once both were written, rounded up: nothing in a screen is fitted.
    """
    steps_s = []
    for plan in plans(ROOMY, AXES):
        screened, whole = (told(numbers_of, plan) for numbers_of in (numbers, played))
        if isinstance(whole, str):
            assert screened == whole
            continue
        assert screened.keys() <= whole.keys()
        assert screened["memory_bytes.total"] == whole["memory_bytes.total"]
        steps_s.append((screened["step_time_s"], whole["step_time_s"]))
    screened_s, played_s = np.array(steps_s).T
    error = screened_s / played_s - 1
    order = rank_correlation(screened_s, played_s)
    sys.stdout.write(
        f"{len(error)} plans: rank correlation {order:.3f}, screen / play - 1 from "
        f"{error.min():.3f} to {error.max():.3f}, median {np.median(error):.3f}\n"
    )
    assert len(error) == 86
    assert order > 0.98
    assert error.min() > -0.02
    assert error.max() < 0.11
    best = int(played_s.argmin())
    assert (screened_s < screened_s[best]).sum() < 5
    assert played_s[screened_s.argmin()] < 1.02 * played_s[best]


def test_schedules_of_several_chunks_a_rank_are_screened_as_well():
    """20, 40 and 80 micro-batches on 4, 8 and 16 ranks, or 22, 44 and 88 (interleaved in groups of
    6, 9 and 18). What the screen may differ by was measured once both were written, as above;
    these plans are closer to each other, so less of their order is kept.
    """
    axes = {
        "plan.pp": (4, 8, 16),
        "plan.ep": (32, 64),
        "plan.schedule": ("interleaved", "zbv", "vhalf", "dualpipev"),
        "batch.sequences": (10240, 11264),
    }
    steps_s = []
    for plan in plans(ROOMY, axes):
        screened, whole = numbers(plan), played(plan)
        assert screened["memory_bytes.total"] == whole["memory_bytes.total"]
        steps_s.append((screened["step_time_s"], whole["step_time_s"]))
    screened_s, played_s = np.array(steps_s).T
    error = screened_s / played_s - 1
    order = rank_correlation(screened_s, played_s)
    sys.stdout.write(
        f"{len(error)} plans: rank correlation {order:.3f}, screen / play - 1 from "
        f"{error.min():.3f} to {error.max():.3f}\n"
    )
    assert order > 0.95
    assert error.min() > -0.02
    assert error.max() < 0.11


def numbers(experiment):
    return screen(experiment).numbers


@pytest.mark.parametrize("changes", [{"batch.sequences": 2048}, {}, {"precision.recipe": "bf16"}])
def test_what_does_not_fit_is_refused_for_the_reason_that_the_play_gives(changes):
    axes = AXES | {"plan.pp": (8, 16, 64), "plan.ep": (32, 100)}
    refused = 0
    for plan in plans(changes, axes):
        memory, whole = told(memory_of, plan), told(played, plan)
        if isinstance(whole, str):
            assert memory == whole
            refused += 1
        else:
            assert memory["total"] == whole["memory_bytes.total"]
    assert refused


def test_a_single_stage_takes_what_the_play_says():
    """One stage, balanced loads, no messages: nothing of the play is left out."""
    alone = Experiment.load(PRESET).with_overrides(
        {
            "cluster.node.chip.hbm_capacity_bytes": "4 TB",
            "ranks.expert_load.sigma": 0.0,
            "plan.pp": 1,
            "batch.sequences": 4096,
            "plan.schedule": "1f1b",
        }
    )
    whole = played(alone)["step_time_s"]
    assert screen(alone).metrics.step_time_s == pytest.approx(whole, rel=1e-12)


def test_expected_loads_are_the_mean_of_sorted_draws():
    base = Experiment.load(PRESET)
    for changes in ({}, {"ranks.expert_load.sigma": 0.3}):
        experiment = base.with_overrides(changes)
        sigma = np.sqrt(np.log1p(experiment.ranks.expert_load.sigma**2))
        z = np.random.default_rng(0).standard_normal((20_000, experiment.plan.ep))
        drawn = np.exp(sigma * z)
        drawn = np.sort(drawn / drawn.mean(axis=1, keepdims=True), axis=1).mean(axis=0)
        assert expected_loads(experiment) == pytest.approx(drawn, rel=0.01)


def test_expected_loads_of_other_kinds():
    base = Experiment.load(PRESET).with_overrides({"plan.ep": 4})
    given = base.with_overrides({"ranks.expert_load": {"kind": "matrix", "loads": [[1, 2, 3, 2]]}})
    assert expected_loads(given).tolist() == [0.5, 1.0, 1.5, 1.0]
    balanced = base.with_overrides({"ranks.expert_load.sigma": 0.0})
    assert expected_loads(balanced).tolist() == [1.0] * 4
    zipf = base.with_overrides({"ranks.expert_load": {"kind": "zipf", "exponent": 1.0}})
    loads = expected_loads(zipf)
    assert loads.mean() == pytest.approx(1.0)
    assert loads.max() > loads.min()


def test_a_plan_screened_among_others_comes_out_as_alone():
    """What plans share is kept between them, and changes no bit of any."""
    given = list(plans(ROOMY, AXES | {"plan.pp": (8, 16), "plan.ep": (32, 64)}))
    given += [given[0].with_overrides({path: value}) for path, value in OTHERWISE.items()]
    given += [given[0].with_numbers({"cluster.node.chip.hbm_bytes_per_s": 2e12})]
    among = [told(numbers, plan) for plan in given]
    for place in (0, 5, *range(len(given) - len(OTHERWISE) - 1, len(given))):
        forget()
        assert told(numbers, given[place]) == among[place]
    steps = [row["step_time_s"] for row in among[-len(OTHERWISE) - 1 :]]
    assert len({*steps, among[0]["step_time_s"]}) == len(steps) + 1


OTHERWISE = {
    "communication.sms": 16,
    "communication.lent_sms": 0.5,
    "communication.exposed_rate": 0.9,
    "communication.combine": "logfmt10",
    "communication.routed_nodes_max": 2,
    "ranks.expert_load.sigma": 0.3,
    "profile": "h100-trtllm",
    "cluster.node.chip.nvlink_bytes_per_s": "100 GB/s",
    "model.moe.expert_width": 1024,
}
"""Each of which changes the seconds of parts."""


def forget():
    """Drop what screens keep of parts, and of layers."""
    for kept in (*vars(part_seconds).values(), *vars(stages).values()):
        if hasattr(kept, "cache_clear"):
            kept.cache_clear()


def test_a_combine_coded_by_sms_takes_a_screen_longer():
    """By three quarters of the time in which it moves; with NICs that code, by nothing."""
    changes = {"communication.combine": "logfmt10", "plan.schedule": "1f1b"}
    coded = Experiment.load(PRESET).with_overrides(ROOMY | changes)
    free = coded.with_overrides({"communication.codec_overhead": 0.0})
    error = numbers(coded)["step_time_s"] / numbers(free)["step_time_s"]
    assert error == pytest.approx(
        played(coded)["step_time_s"] / played(free)["step_time_s"], rel=0.01
    )
    assert error > 1.01
