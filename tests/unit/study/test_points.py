"""Points of a study: how they are numbered, and that each is its base with values overridden."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.errors import InputError, SpecError
from simulator import Experiment
from simulator.driver.program import program_inputs
from simulator.study.document import StudySpec
from simulator.study.points import Grid

BASE = Experiment.load("deepseek-v3-pretrain")
AXES = {
    "hbm": {"cluster.node.chip.hbm_bytes_per_s": ["1 TB/s", "4 TB/s"]},
    "nvlink": {"cluster.node.chip.nvlink_bytes_per_s": {"from": 1e11, "to": 4e11, "count": 3}},
    "sms": {"communication.sms": [8, 20, 132, 5000]},
    "chip": {"cluster.node.chip": ["h100", "h20", {"base": "h800", "sms": 100}]},
    "schedule": {"plan.schedule": ["1f1b", "dualpipe", "zb1p"]},
    "depth": {"plan.pp": [8, 16], "plan.ep": [64, 32]},
    "fit": {"profile.gemm.fp8_block.tensor_efficiency": [0.7, 0.9]},
    "profile": {"profile": ["none", "h800-deepseek", "h100-sglang"]},
    "batch": {"batch.sequences": [7680, 15360]},
    "loads": {"ranks.expert_load.sigma": [0.0, 0.2]},
}


def grid(names, **options):
    axes = [{"name": name, "set": AXES[name]} for name in names]
    values = {"title": "t", "experiment": "deepseek-v3-pretrain", "axes": axes} | options
    return Grid.of(StudySpec.model_validate(values), BASE)


def told(make):
    """Return what an experiment says, or that it is none and why."""
    try:
        return make().model_dump()
    except InputError as error:
        return str(error)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=4, unique=True), st.data())
def test_a_point_is_its_base_with_values_overridden(names, data):
    """Whatever the order of axes: a chip's number is that of the chip put in."""
    seeds = data.draw(st.sampled_from(["common", "own"]))
    points = grid(names, seeds=seeds)
    number = data.draw(st.integers(0, len(points) - 1))
    found = told(lambda: points.experiment(number))
    assert found == told(lambda: BASE.with_overrides(points.changes(number), "study study"))


def test_the_last_axis_moves_fastest():
    points = grid(["schedule", "nvlink", "sms"])
    assert (points.shape, len(points)) == ((3, 3, 4), 36)
    for number in range(len(points)):
        assert points.places(number) == (number // 12, number // 4 % 3, number % 4)
    assert points.shown(13) == {"schedule": "dualpipe", "nvlink": 1e11, "sms": 20.0}
    assert points.changes(13) == {
        "plan.schedule": "dualpipe",
        "cluster.node.chip.nvlink_bytes_per_s": 1e11,
        "communication.sms": 20,
    }


def test_fields_that_move_together_are_shown_by_path():
    assert grid(["depth"]).shown(1) == {"depth": 16.0, "plan.ep": 32.0}


def test_points_of_one_program_come_one_after_another():
    points = grid(["nvlink", "schedule", "sms", "batch"])
    order = points.by_program()
    assert sorted(order) == list(range(len(points)))
    keys = [(points.places(number)[1], points.places(number)[3]) for number in order]
    changes = sum(one != other for one, other in pairwise(keys))
    assert changes == 3 * 2 - 1
    first = program_inputs(points.experiment(order[0]))
    assert first == program_inputs(points.experiment(order[1]))


def test_seeds_are_common_or_a_points_own():
    assert [grid(["hbm"]).experiment(n).ranks.seed for n in (0, 1)] == [BASE.ranks.seed] * 2
    common = grid(["hbm"], seed=7)
    assert [common.experiment(n).ranks.seed for n in (0, 1)] == [7, 7]
    own = grid(["hbm", "nvlink"], seed=7, seeds="own")
    assert [own.experiment(n).ranks.seed for n in range(6)] == list(range(7, 13))
    last = grid(["hbm"], seed=2**63 - 1, seeds="own")
    assert [last.experiment(n).ranks.seed for n in (0, 1)] == [2**63 - 1, 0]


def test_an_axis_of_seeds_and_seeds_of_the_study_are_too_much():
    axes = [{"name": "chance", "set": {"ranks.seed": [1, 2]}}]
    values = {"title": "t", "experiment": "deepseek-v3-pretrain", "axes": axes}
    assert Grid.of(StudySpec.model_validate(values), BASE).experiment(1).ranks.seed == 2
    with pytest.raises(SpecError, match=r"an axis moves ranks\.seed already"):
        Grid.of(StudySpec.model_validate(values | {"seeds": "own"}), BASE)


def test_conditions_leave_points_out():
    points = grid(["nvlink", "sms"], where=("sms * nvlink <= 4e12", "plan.ep == 64"))
    admitted = [number for number in range(len(points)) if points.admits(number)]
    nvlink, sms = np.meshgrid([1e11, 2.5e11, 4e11], [8, 20, 132, 5000], indexing="ij")
    assert admitted == np.flatnonzero((nvlink * sms).ravel() <= 4e12).tolist()
