"""Many experiments at once give what each gives alone, in every byte, clocks left out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.errors import InfeasibleError, InputError, OutOfRangeError, SpecError
from simulator import play, run, run_many
from simulator.driver import points
from simulator.driver.step import play as play_one
from simulator.lower.lowered import lower
from simulator.tell.outcome import outcome
from workloads.scenarios.training import training_program

ROOM = ("cluster.node.chip.hbm_capacity_bytes", "2 TB")
NUMBERS = {
    "cluster.node.chip.hbm_bytes_per_s": (1e12, 8e12),
    "cluster.node.chip.nvlink_bytes_per_s": (5e10, 9e11),
    "cluster.node.chip.peak_clock_hz": (1e9, 2e9),
    "cluster.node.chip.l2_bytes": (2e7, 1e8),
    "cluster.node.chip.sms": (60, 160),
    "communication.sms": (4, 40),
    "communication.exposed_rate": (0.5, 1.0),
    "profile.gemm.fp8_block.tensor_efficiency": (0.6, 1.0),
    "profile.gemm.fp8_block_grouped.hbm_efficiency": (0.72, 0.9),
    "profile.memory_op.cast.hbm_efficiency": (0.3, 0.9),
    "profile.interference.fp8_block": (1.0, 1.5),
    "ranks.seed": (0, 3),
}
KINDS = {
    "eight loads": {},
    "balanced": {"ranks.expert_load.sigma": 0.0},
    "wide loads": {"ranks.expert_load.sigma": 0.5, "ranks.draws": 3},
    "popular experts": {"ranks.expert_load": {"kind": "zipf", "exponent": 0.5}},
    "roofline": {"profile": "none"},
    "all ranks": {"ranks.play": "explicit", "ranks.jitter": 0.02},
    "shared NICs": {"communication.nics": "shared"},
    "another plan": {"plan.schedule": "1f1b"},
}


def whole(results):
    return [result.without_timing().to_json() for result in results]


@st.composite
def hardware(draw):
    """Some numbers of a machine, and of how its ranks are loaded."""
    paths = draw(st.lists(st.sampled_from(sorted(NUMBERS)), max_size=5, unique=True))
    found = {}
    for path in paths:
        low, high = NUMBERS[path]
        number = st.integers(low, high) if isinstance(low, int) else st.floats(low, high)
        found[path] = draw(number)
    return found


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), hardware()), min_size=2, max_size=6))
def test_many_experiments_give_the_results_of_each(small_experiment, asked):
    experiments = []
    for kind, numbers in asked:
        experiment = small_experiment(ROOM, *KINDS[kind].items())
        known = {path: n for path, n in numbers.items() if experiment.profile or
                 not path.startswith("profile.")}  # fmt: skip
        experiments.append(experiment.with_numbers(known))
    assert whole(run_many(experiments)) == whole(map(run, experiments))


def test_points_are_the_same_however_many_are_priced_and_played_at_once(
    small_experiment, monkeypatch
):
    """Three of seven at a time, two priced together, one group of replicas at a time."""
    base = small_experiment(ROOM)
    experiments = [
        base.with_numbers({"cluster.node.chip.hbm_bytes_per_s": n * 1e12, "ranks.seed": n})
        for n in range(2, 9)
    ]
    expected = [outcome(played).numbers for played in play(experiments)]
    monkeypatch.setattr(points, "AT_ONCE", 3)
    monkeypatch.setattr("simulator.driver.folded.PRICED_AT_ONCE", 2)
    monkeypatch.setattr("simulator.driver.folded.REPLICAS_AT_ONCE", 1)
    assert [outcome(played).numbers for played in play(experiments)] == expected
    assert len({numbers["step_time_s"] for numbers in expected}) == 7


def test_a_run_with_draws_among_many_is_what_it_is_alone(small_experiment):
    drawn = small_experiment(
        ROOM,
        ("uncertainty.draws", 3),
        ("communication.exposed_rate", {"value": 0.8, "p10": 0.7, "p90": 0.9, "source": "a test"}),
    )
    plain = small_experiment(ROOM)
    assert whole(run_many([plain, drawn, plain])) == whole(map(run, [plain, drawn, plain]))


def test_who_cannot_run_among_many_is_named(small_experiment):
    good = small_experiment(ROOM)
    with pytest.raises(InfeasibleError, match=r"experiment 1 \(deepseek-v3-pretrain\): memory of"):
        play([good, small_experiment(), good])


def test_who_cannot_be_priced_among_many_is_named(small_experiment, monkeypatch):
    """Found while they are priced together, and looked for one by one."""
    good = small_experiment(ROOM)
    bad = good.with_numbers({"cluster.node.chip.hbm_bytes_per_s": 1e6})
    monkeypatch.setattr("simulator.price.kernels.check_finite", refuse_slow)
    with pytest.raises(OutOfRangeError, match=r"experiment 2 \(deepseek-v3-pretrain\): too slow"):
        play([good, good, bad])


def refuse_slow(values, name):
    """Stands for whatever may be refused while machines are priced together."""
    if values.max() > 10:
        raise OutOfRangeError("too slow")


def test_what_is_no_experiment_is_told(small_experiment):
    one = small_experiment(ROOM)
    with pytest.raises(InputError, match="experiments: must be several, got one"):
        play(one)
    with pytest.raises(InputError, match="experiment 1: must be an Experiment, got str"):
        play([one, "deepseek-v3-pretrain"])
    assert play([]) == list(run_many([])) == []


def test_whose_draws_are_refused_among_many_is_named(small_experiment):
    """Before anything is played."""
    asked = small_experiment(ROOM, ("uncertainty.draws", 3), ("profile", "none"))
    with pytest.raises(
        SpecError, match=r"experiment 1 \(deepseek-v3-pretrain\): uncertainty.draws"
    ):
        next(run_many([small_experiment(ROOM), asked]))


def test_each_program_is_built_once_in_whatever_order_experiments_come(small_experiment):
    """Ten plans, round and round."""
    plans = [small_experiment(ROOM, ("batch.sequences", 160 + 32 * n)) for n in range(10)]
    experiments = [plan.with_numbers({"ranks.seed": n}) for n in range(3) for plan in plans]
    training_program.cache_clear()
    lower.cache_clear()
    played = play(experiments)
    assert training_program.cache_info().misses == 10
    programs = {id(step.lowered) for step in played}
    assert len(programs) == 10
    expected = [outcome(play_one(each, pipelines=())).numbers for each in experiments]
    assert [outcome(step).numbers for step in played] == expected
