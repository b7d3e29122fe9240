"""Explicit ranks against the replay of their program, and against folded play where it is exact."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import Experiment
from simulator.driver.step import play
from simulator.lower.expansion import expand
from simulator.network.machine import Machine
from simulator.price.messages import message_times
from tests.placements import job, jobs
from tests.program_replay import replay_group

SMALL = {
    "plan.pp": 4,
    "plan.ep": 8,
    "plan.layout": "3d+13m, 15m, 15m, 15m+mtp+2heads",
    "cluster.nodes": 8,
    "cluster.node.chip.hbm_capacity_bytes": "2 TB",
    "batch.sequences": 16 * 8,
    "ranks.play": "explicit",
    "ranks.draws": 1,
}
SKEWED = {
    "ranks.jitter": 0.05,
    "ranks.gpu_speed_sigma": 0.03,
    "ranks.expert_load.correlation": 0.5,
    "ranks.stragglers": [
        {"gpu": 3, "slowdown": 1.5},
        {"gpu": 21, "part": "nic", "slowdown": 3.0},
        {"gpu": 40, "part": "nvlink", "slowdown": 2.0},
    ],
}


def small(**changes):
    """A step of DeepSeek-V3 on 64 GPUs: 4 pipeline ranks, 16 pipelines in two groups."""
    values = SMALL | changes
    return Experiment.load("deepseek-v3-pretrain").with_overrides(values)


def play_all(experiment):
    """Play a step and keep the timelines of all its groups."""
    return play(experiment, pipelines=range(experiment.pipelines))


def replayed(run, group, pipelines=8):
    """The replay of one group with the durations that the engine was given."""
    lowered, expansion = run.lowered, expand(run.lowered)
    _, played, duration_s = run.explicit.groups[group]
    first = lowered.pipeline.links.first
    numbers = {id(step): number for number, step in enumerate(lowered.steps)}

    def segments_of(step):
        key = lowered.keys[lowered.part_of_step[numbers[id(step)]]]
        return lowered.parts[key].graph.segments

    def seconds(rank, place, number):
        return duration_s[expansion.begin[first[rank] + place] + 1 + number]

    def sent_s(sender, receiver):
        links = lowered.pipeline.links
        own = (links.rank[links.sender] == sender) & (links.receiver == receiver)
        return duration_s[expansion.message[own][0]]

    program = run.program.table.steps
    return replay_group(program, segments_of, seconds, sent_s, pipelines), played


@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b", "zb1p"])
@pytest.mark.parametrize("group", [0, 1])
def test_every_step_of_every_rank_begins_and_ends_as_in_the_replay(schedule, group):
    run = play_all(small(**SKEWED, **{"plan.schedule": schedule}))
    expected, played = replayed(run, group)
    expansion, first = expand(run.lowered), run.pipeline.links.first
    for (rank, place), begin_s in expected.begin_s.items():
        number = first[rank] + place
        assert played.end_s[expansion.begin[number]] == pytest.approx(begin_s, rel=1e-12)
        assert played.end_s[expansion.end[number]] == pytest.approx(
            expected.end_s[rank, place], rel=1e-12
        )


def test_waits_are_those_of_the_replay():
    run = play_all(small(**SKEWED))
    for group in (0, 1):
        expected, _ = replayed(run, group)
        own = slice(8 * group, 8 * group + 8)
        for rank in range(4):
            assert run.explicit.wait_s[rank, own] == pytest.approx(expected.wait_s[rank], rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_random_steps_are_those_of_the_replay(seed):
    """Spreads, slow GPUs, schedules and micro-batches at random; who is blamed for the waits, too,
    which is all that GPUs are blamed for.
    """
    rng = random.Random(seed)
    given = {
        "plan.schedule": rng.choice(["dualpipe", "1f1b", "zb1p"]),
        "batch.sequences": 16 * rng.choice([8, 10, 12]),
        "ranks.jitter": rng.choice([0.0, 0.01, 0.2]),
        "ranks.gpu_speed_sigma": rng.choice([0.0, 0.01, 0.1]),
        "ranks.expert_load.sigma": rng.choice([0.0, 0.1, 0.5]),
        "ranks.expert_load.correlation": rng.random(),
        "ranks.stragglers": [{"gpu": rng.randrange(64), "slowdown": 1 + rng.random()}],
        "ranks.seed": seed,
    }
    run = play_all(small(**given))
    group = rng.randrange(2)
    expected, played = replayed(run, group)
    ends = played.end_s[expand(run.lowered).end]
    first, own = run.pipeline.links.first, slice(8 * group, 8 * group + 8)
    for (rank, place), end_s in expected.end_s.items():
        assert ends[first[rank] + place] == pytest.approx(end_s, rel=1e-12)
    for rank in range(4):
        blame_s = run.explicit.blame_s[rank, own]
        assert blame_s == pytest.approx(expected.blame_s[rank], rel=1e-9, abs=1e-12)


def test_the_reference_engine_plays_the_same_step():
    """All ranks of two pipeline ranks and few micro-batches, so that SimPy can."""
    changes = {
        "plan.pp": 2,
        "plan.layout": "3d+28m, 30m+mtp+2heads",
        "cluster.nodes": 2,
        "batch.sequences": 8 * 4,
    }
    compiled, defined = (
        play_all(small(**SKEWED | {"ranks.stragglers": []}, **changes, **{"ranks.engine": engine}))
        for engine in ("array", "reference")
    )
    assert compiled.explicit.phase_s == pytest.approx(defined.explicit.phase_s, rel=1e-9, abs=1e-9)
    assert compiled.explicit.wait_s == pytest.approx(defined.explicit.wait_s, rel=1e-9)
    assert compiled.explicit.step_s == pytest.approx(defined.explicit.step_s, rel=1e-12)


def test_balanced_ranks_played_one_by_one_are_the_folded_ones():
    """Alike ranks end every chunk together, so folding is exact."""
    run = play_all(small(**{"ranks.expert_load.kind": "balanced"}))
    assert run.explicit.step_s == pytest.approx(run.folded_timeline.makespan_s, rel=1e-9)
    assert not run.explicit.wait_s.any()


def test_the_phases_of_every_rank_sum_to_the_step():
    run = play_all(small(**SKEWED))
    assert (run.explicit.phase_s >= 0).all()
    assert run.explicit.phase_s.sum(axis=0) == pytest.approx(
        np.full((4, 16), run.explicit.step_s), rel=1e-12
    )


@given(jobs(), st.integers(0, 100))
@settings(max_examples=12)
def test_steps_of_ranks_placed_anyhow_are_those_of_the_replay(changes, seed):
    """Hops and groups inside nodes, across, or both; each pipeline's messages take its own link."""
    unlike = {
        "ranks.play": "explicit",
        "ranks.jitter": 0.05,
        "ranks.gpu_speed_sigma": 0.03,
        "ranks.expert_load.correlation": 0.5,
        "ranks.seed": seed,
        "ranks.stragglers": [{"gpu": 0, "part": "nic", "slowdown": 3.0}],
    }
    run = play_all(job(changes | unlike))
    mesh, placement = run.program.placement.mesh, run.program.placement
    for group in range(mesh.size("edp")):
        expected, played = replayed(run, group, mesh.size("ep"))
        expansion, first = expand(run.lowered), run.pipeline.links.first
        for (rank, place), end_s in expected.end_s.items():
            ends = played.end_s[expansion.end[first[rank] + place]]
            assert ends == pytest.approx(end_s, rel=1e-12)
    library = run.experiment.profile.communication
    machine = Machine.of_ports(run.experiment.cluster, library)
    times = message_times(run.program, run.lowered.message_pairs, machine)
    message_s = times.between(times.times.seconds)
    duration_s = np.concatenate([each.seconds for each in run.explicit.groups.values()], axis=1)
    links, message = run.pipeline.links, expand(run.lowered).message
    for number, task in enumerate(message.tolist()):
        sender, receiver = links.rank[links.sender[number]], links.receiver[number]
        for pipeline in range(mesh.size("dp")):
            crosses = placement.crosses[sender, receiver, pipeline]
            slow = 3.0 if crosses and pipeline == 0 and 0 in (sender, receiver) else 1.0
            expected_s = slow * message_s[sender, receiver, pipeline]
            assert duration_s[task, pipeline] == pytest.approx(expected_s, rel=1e-12)
