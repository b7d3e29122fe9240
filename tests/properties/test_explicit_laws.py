"""Laws of explicit ranks, over random spreads, stragglers and seeds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import Experiment
from simulator.driver.step import play
from simulator.tell.facts.critical_path import critical_path_s

PP, PIPELINES = 4, 8
BASE = Experiment.load("deepseek-v3-pretrain").with_overrides(
    {
        "plan.pp": PP,
        "plan.ep": PIPELINES,
        "plan.layout": "3d+13m, 15m, 15m, 15m+mtp+2heads",
        "cluster.nodes": PP * PIPELINES // 8,
        "cluster.node.chip.hbm_capacity_bytes": "2 TB",
        "batch.sequences": 8 * PIPELINES,
        "ranks.play": "explicit",
        "ranks.draws": 1,
    }
)


def step(critical=False, **ranks):
    values = {f"ranks.{name}": value for name, value in ranks.items()}
    return play(BASE.with_overrides(values), critical=critical)


spreads = st.fixed_dictionaries(
    {
        "jitter": st.sampled_from([0.0, 0.02, 0.2]),
        "gpu_speed_sigma": st.sampled_from([0.0, 0.015, 0.1]),
        "seed": st.integers(0, 1000),
    }
)
parts = st.sampled_from(["gpu", "nic", "nvlink"])
gpus = st.integers(0, PP * PIPELINES - 1)


@given(spreads)
@settings(max_examples=10)
def test_the_step_is_its_critical_path_and_no_stream_works_longer(ranks):
    played = step(critical=True, **ranks)
    explicit = played.explicit
    path = critical_path_s(played.lowered, played.folded.prices, explicit)
    assert sum(path.values()) == pytest.approx(explicit.step_s, rel=1e-9)
    assert min(path.values()) >= 0
    assert max(explicit.compute_s.max(), explicit.communication_s.max()) <= explicit.step_s


@given(spreads, gpus, parts, st.floats(1, 3), st.floats(1, 3))
@settings(max_examples=10)
def test_a_slower_part_of_a_gpu_never_speeds_up_the_step(ranks, gpu, part, one, other):
    fast, slow = (
        step(**ranks, stragglers=[{"gpu": gpu, "part": part, "slowdown": slowdown}])
        for slowdown in sorted((one, other))
    )
    assert slow.times.step_s >= fast.times.step_s


@given(st.integers(0, PP - 1), st.integers(0, PIPELINES - 1), st.integers(0, PIPELINES - 1), parts)
@settings(max_examples=10)
def test_among_alike_ranks_it_does_not_matter_which_one_is_slow(rank, one, other, part):
    plays = [
        step(
            **{"expert_load.kind": "balanced"},
            stragglers=[{"gpu": rank * PIPELINES + place, "part": part, "slowdown": 2.0}],
        ).explicit
        for place in (one, other)
    ]
    assert plays[0].step_s == plays[1].step_s
    for name in ("compute_s", "wait_s", "blame_s", "finish_s"):
        first, second = (np.sort(getattr(play, name), axis=1) for play in plays)
        assert first.tobytes() == second.tobytes(), name


@given(spreads)
@settings(max_examples=5)
def test_one_seed_gives_one_step_to_the_bit_and_another_seed_another(ranks):
    same, again = (step(**ranks).explicit for _ in range(2))
    other = step(**ranks | {"seed": ranks["seed"] + 1}).explicit
    assert same.phase_s.tobytes() == again.phase_s.tobytes()
    assert same.phase_s.tobytes() != other.phase_s.tobytes()


def test_waiting_is_what_was_caused():
    """Every second a rank waited, another caused."""
    play = step(jitter=0.05, gpu_speed_sigma=0.02).explicit
    assert play.blame_s.sum() == pytest.approx(play.wait_s.sum(), rel=1e-12)
    assert play.blame_s.sum(axis=1) == pytest.approx(play.wait_s.sum(axis=1), rel=1e-12)
