"""What is to be played is told before it is: exactly its tasks, and no less than is held."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError
from simulator.driver.extent import extent_of
from simulator.driver.program import program_of
from simulator.driver.step import play
from simulator.lower.lowered import lower
from workloads.blocks.moe import MoESpec
from workloads.routing import draw_experts
from workloads.scenarios import training


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ranks.draws": 3},
        {"ranks.play": "explicit"},
        {"ranks.jitter": 0.1, "plan.schedule": "zb1p", "batch.sequences": 320},
        {"ranks.expert_load": {"kind": "zipf", "exponent": 0.5}, "plan.schedule": "1f1b"},
        {"ranks.expert_load.sigma": 0},
    ],
)
def test_as_many_tasks_are_told_as_are_played(small_experiment, monkeypatch, changes):
    monkeypatch.setattr("simulator.driver.point.check_memory", lambda *_: None)
    experiment = small_experiment(*changes.items())
    extent = extent_of(experiment, lower(program_of(experiment)))
    assert extent.tasks == play(experiment).tasks
    drawn = experiment.with_overrides({"uncertainty.draws": 7})
    assert extent_of(drawn, lower(program_of(drawn))).tasks == 8 * extent.tasks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranks.jitter": 0.1, "uncertainty.draws": 99}, r"^run: at most 2e\+07 tasks can be"),
        (
            {"ranks.draws": 1000, "model.moe.routed_experts": 2**16}
            | {"ranks.expert_load": {"kind": "zipf", "exponent": 0.5}},
            r"^run: at most 16 GB can be held at once, got [\d.]+ [GT]B",
        ),
    ],
)
def test_what_cannot_be_played_is_refused_before_it_is(
    small_experiment, monkeypatch, changes, message
):
    monkeypatch.setattr("simulator.driver.point.check_memory", lambda *_: None)
    monkeypatch.setattr("simulator.driver.points.play_folded", None)
    monkeypatch.setattr("simulator.driver.extent.TASKS_MAX", 2 * 10**7)
    with pytest.raises(InfeasibleError, match=message):
        play(small_experiment(*changes.items()))


def test_micro_batches_times_stages_are_limited(v3_step, monkeypatch):
    from workloads.batch import BatchSpec
    from workloads.parallel import ParallelPlan

    plan = ParallelPlan(pp=16, schedule="1f1b")
    monkeypatch.setattr(training, "CHUNKS_MAX", 16 * 20)
    batch = BatchSpec(sequences=20, sequence_length=1)
    assert training._microbatches(plan, batch, 16) == 20
    with pytest.raises(InfeasibleError, match="at most 320 micro-batches times stages"):
        training._microbatches(plan, batch.model_copy(update={"sequences": 21}), 16)


@pytest.mark.parametrize("popular", [False, True])
def test_experts_drawn_in_blocks_are_those_drawn_at_once(monkeypatch, popular):
    moe = MoESpec(routed_experts=64, top_k=4, expert_width=1, groups=8, groups_per_token=3)
    popularity = np.linspace(1, 2, 64) if popular else None

    def drawn():
        return draw_experts(moe, 8, 3, 100, np.random.default_rng(5), popularity)

    at_once = drawn()
    monkeypatch.setattr("workloads.routing._SCORES_HELD", 64 * 7)
    np.testing.assert_array_equal(drawn(), at_once)
