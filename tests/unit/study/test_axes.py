"""Axes in closed form: what a study's document says, as values of fields and as columns."""

import numpy as np
import pytest

from hwmodels.errors import SpecError
from simulator import Experiment
from simulator.study.axes import read_axis
from simulator.study.document import POINTS_MAX, AxisSpec

BASE = Experiment.load("deepseek-v3-pretrain")
SMS = "communication.sms"
NVLINK = "cluster.node.chip.nvlink_bytes_per_s"


def axis(changes, **options):
    return read_axis(AxisSpec.model_validate({"name": "moved", "set": changes} | options), BASE)


def values(changes, **options):
    return [of_place[0] for of_place in axis(changes, **options).values]


def test_steps_include_both_ends_and_nothing_beyond():
    assert values({SMS: {"from": 8, "to": 32, "step": 8}}) == [8, 16, 24, 32]
    assert values({SMS: {"from": 8, "to": 31, "step": 8}}) == [8, 16, 24]
    rates = values({"communication.exposed_rate": {"from": 0.1, "to": 1, "step": 0.1}})
    assert len(rates) == 10
    assert rates == pytest.approx(np.arange(1, 11) / 10, rel=1e-12)
    assert max(rates) == 1.0  # which the field takes, and no rounding above it


def test_a_count_is_equal_steps_or_equal_ratios():
    even = values({NVLINK: {"from": "100 GB/s", "to": "400 GB/s", "count": 4}})
    assert even == [100e9, 200e9, 300e9, 400e9]
    ratios = values({NVLINK: {"from": "100 GB/s", "to": "800 GB/s", "count": 4, "log": True}})
    assert ratios == pytest.approx([100e9, 200e9, 400e9, 800e9], rel=1e-12)
    assert (ratios[0], ratios[-1]) == (100e9, 800e9)


def test_fields_of_whole_numbers_get_whole_numbers_each_once():
    found = values({SMS: {"from": 1, "to": 8, "count": 15, "log": True}})
    assert found == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {type(value) for value in found} == {int}


def test_multiples_are_kept_to():
    found = values({"cluster.fabric.switch_radix": {"from": 32, "to": 64, "count": 5, "log": True}})
    assert all(value % 2 == 0 for value in found)


def test_numbers_with_units_are_in_base_units():
    found = axis({NVLINK: ["160 GB/s", "3200 Gb/s", 9e11]})
    assert [value for (value,) in found.values] == [160e9, 400e9, 900e9]
    assert found.column.unit == "B/s"
    assert found.shown == (160e9, 400e9, 900e9)


def test_the_experiments_own_value_is_marked():
    assert axis({SMS: [8, 20]}).column.base == 20.0
    assert axis({SMS: [8, 16]}).column.base is None
    assert axis({"plan.schedule": ["1f1b", "dualpipe"]}).column.base == "dualpipe"
    assert axis({"cluster.node.chip": ["h20", "h800"]}).column.base == "h800"
    assert axis({SMS: [8, 20]}, labels=["few", "own"]).column.base == "own"


def test_fields_of_one_axis_move_together():
    found = axis({SMS: [8, 16], NVLINK: ["1 GB/s", "2 GB/s"]})
    assert found.values == ((8, 1e9), (16, 2e9))
    assert found.changes(1) == {SMS: 16, NVLINK: 2e9}


def test_presets_tables_and_none_are_called_by_name():
    found = axis({"profile": ["h800-deepseek", "none"]})
    assert found.column.labels == found.shown == ("h800-deepseek", "none")
    table = {"base": "h100", "sms": 100}
    assert axis({"cluster.node.chip": ["h800", table]}).column.labels == ("h800", "h100")
    limits = axis({"communication.routed_nodes_max": [4, "none"]})
    assert limits.column.labels == ("4", "none")


def test_only_numbers_that_shape_no_layout_are_put_in_without_a_document():
    assert axis({SMS: [8, 16]}).by_numbers
    assert not axis({"plan.pp": [8, 16]}).by_numbers
    assert not axis({"profile": ["none"]}).by_numbers
    drawn = BASE.with_overrides({"uncertainty.draws": 8})
    spec = AxisSpec.model_validate({"name": "moved", "set": {SMS: [8, 16]}})
    assert not read_axis(spec, drawn).by_numbers  # its distribution goes with its old value


def test_the_digest_knows_what_a_file_says(tmp_path):
    chip = tmp_path / "mine.toml"
    chip.write_text('base = "h100"\nsms = 100\n', encoding="utf-8")
    first = axis({"cluster.node.chip": [str(chip)]}).digest
    assert first == axis({"cluster.node.chip": [str(chip)]}).digest
    chip.write_text('base = "h100"\nsms = 101\n', encoding="utf-8")
    assert axis({"cluster.node.chip": [str(chip)]}).digest != first
    assert axis({SMS: [8]}).digest == ""


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({"communication.smss": [8]}, {}, "did you mean 'sms'"),
        ({"cluster.node.chip": ["h801"]}, {}, "h801"),
        ({SMS: [8, 16], NVLINK: [1e9]}, {}, "equally many, got 2 of communication.sms, 1 of"),
        ({SMS: [8, 16]}, {"labels": ["few"]}, "labels: must be 2, one a value, got 1"),
        ({SMS: [8, 8.0]}, {}, "no two places may be called alike, got 8.0 twice"),
        ({SMS: [8, 16]}, {"labels": ["a", "a"]}, "got 'a' twice"),
        ({NVLINK: ["1 GB"]}, {}, "expected a unit of B/s"),
        ({NVLINK: ["fast"]}, {}, "expected a quantity"),
        ({SMS: ["many"]}, {}, "expected a quantity"),
        ({NVLINK: [float("nan")]}, {}, "expected a finite quantity"),
        ({NVLINK: [10**400]}, {}, "expected a finite quantity"),
        ({"plan.schedule": {"from": 1, "to": 2, "count": 2}}, {}, "needs a field of numbers"),
        ({SMS: {"from": 16, "to": 8, "step": 1}}, {}, "must go up, got from 16 to 8"),
        ({SMS: {"from": 8, "to": 16, "step": -1}}, {}, "step must be above 0"),
        ({NVLINK: {"from": 0, "to": 1e9, "count": 3, "log": True}}, {}, "must start above 0"),
        ({NVLINK: {"from": "none", "to": 1e9, "count": 3}}, {}, "from number to number"),
        ({NVLINK: {"from": 0, "to": 1e300, "step": 1e-9}}, {}, f"at most {POINTS_MAX:,} points"),
        ({"uncertainty.draws": [0, 8]}, {}, "are the experiment's"),
    ],
)  # fmt: skip
def test_what_is_no_axis_is_told_in_one_line(changes, options, told):
    with pytest.raises(SpecError) as error:
        axis(changes, **options)
    assert told in str(error.value)
    assert str(error.value).startswith("axes.moved")
    assert len(str(error.value)) < 300
