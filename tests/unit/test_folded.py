"""Folded play of a pipeline: ranks that run ahead in chunks without exchanges."""

import numpy as np
import pytest

from simulator.driver.step import play
from simulator.engines import array
from simulator.engines.order import ready_s
from simulator.lower.pipeline import rank_times
from workloads.schedules import SCHEDULES


@pytest.fixture(scope="module", params=SCHEDULES)
def run(request, small_experiment):
    changes = ("plan.schedule", request.param), ("ranks.expert_load.sigma", 0.3)
    return play(small_experiment(("cluster.node.chip.hbm_capacity_bytes", "2 TB"), *changes))


def runs_of_steps(run):
    """Runs of steps without exchanges that follow one another on a pipeline rank."""
    joined = [run.parts[key].is_joined for key in run.lowered.keys]
    number = 0
    for own in run.program.table.steps:
        found = []
        for _ in own:
            if joined[run.lowered.part_of_step[number]]:
                yield found
                found = []
            else:
                found.append(number)
            number += 1
        yield found


def test_behind_a_run_of_steps_the_slowest_rank_lags_by_what_it_took_longer(run):
    """Rank by rank over the whole run, step by step as drawn; nothing lags elsewhere."""
    folded, expected = run.folded, np.zeros(len(run.lowered.steps))
    for steps in filter(None, runs_of_steps(run)):
        took_s = np.array(
            [
                run.parts[run.lowered.keys[run.lowered.part_of_step[step]]].by_rank_s[
                    folded.draw.of_step[step]
                ]
                for step in steps
            ]
        ).sum(axis=0)
        expected[steps[-1]] = took_s.max() - took_s.mean()
    assert folded.lag_s == pytest.approx(expected, rel=1e-9, abs=1e-12)
    lags = any(step.kind == "W" for own in run.program.table.steps for step in own)
    assert (folded.lag_s > 0).any() == lags


def test_steps_last_as_long_as_on_the_mean_rank_and_wait_for_the_slowest(run):
    """A step without exchanges takes its chunk's time; the next starts as soon as it may, and ends
    where it would if all had ended with the slowest.
    """
    folded, timeline = run.folded, run.folded_timeline
    steps = len(folded.lag_s)
    lasted_s = (timeline.end_s - timeline.start_s)[:steps]
    alone = np.array([not run.parts[run.lowered.keys[k]].is_joined for k in folded_keys(run)])
    assert lasted_s[alone] == pytest.approx(folded.steps_s[alone], rel=1e-9)
    assert (lasted_s >= folded.steps_s * (1 - 1e-9)).all()
    assert (timeline.start_s >= timeline.ready_s).all()
    assert timeline.ready_s == pytest.approx(ready_s(timeline.graph, timeline.end_s), rel=1e-12)
    optimizer_s = (timeline.end_s - timeline.start_s)[-len(run.program.table.steps) :]
    message_s = (timeline.end_s - timeline.start_s)[run.pipeline.phase == -1]
    held = array.play(run.pipeline.timed(folded.steps_s + folded.lag_s, message_s, optimizer_s))
    assert timeline.makespan_s == pytest.approx(held.makespan_s, rel=1e-12)
    assert timeline.end_s[:steps] + folded.lag_s == pytest.approx(held.end_s[:steps], rel=1e-9)


def folded_keys(run):
    return run.lowered.part_of_step.tolist()


def test_weight_gradients_alone_take_what_they_take_with_every_rank_played(small_experiment):
    """Within the chance of the draws, at any spread of the loads."""
    for sigma in (0.08, 0.3):
        experiment = small_experiment(
            ("cluster.node.chip.hbm_capacity_bytes", "2 TB"),
            ("plan.schedule", "zb1p"),
            ("ranks.expert_load.sigma", sigma),
            ("ranks.play", "explicit"),
            ("ranks.draws", 64),
        )
        played = play(experiment)
        folded_s = weight_s(played.pipeline, played.folded_timeline)
        explicit_s = played.explicit.times.phases["weight"]
        assert folded_s == pytest.approx(explicit_s, rel=0.01)


def weight_s(pipeline, timeline):
    return rank_times(pipeline, timeline).phases["weight"]
