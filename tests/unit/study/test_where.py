"""Conditions on points: what they compute, and that nothing else of Python is in reach."""

import pytest

from hwmodels.errors import InfeasibleError, SpecError
from simulator import Experiment
from simulator.study.where import LETTERS_MAX, Conditions

BASE = Experiment.load("deepseek-v3-pretrain")
AXES = {"nics": 4.0, "name_of_it": "1f1b"}


def holds(*texts):
    conditions = Conditions.of(texts)
    conditions.check(AXES, BASE)
    return conditions.hold(AXES, lambda: BASE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nics * 2 <= 8", True),
        ("nics % 3 == 1 and nics // 3 == 1", True),
        ("1 < nics < 4", False),
        ("nics in [2, 4]", True),
        ("name_of_it in ('zb1p', 'dualpipe')", False),
        ("not nics > 4 or nics == 5", True),
        ("plan.pp * plan.ep <= cluster.gpus", True),
        ("cluster.node.chip.sms > 200", False),
        ("min(nics, 3) + max(1, 2) + abs(-1) + round(0.7) + log2(8) == 10", True),
        ("nics ** 2 == 16", True),
        ("  nics == 4\n", True),
    ],
)
def test_conditions_are_computed(text, expected):
    assert holds(text) is expected


def test_all_must_hold():
    assert holds()
    assert holds("nics > 1", "nics < 5")
    assert not holds("nics > 1", "nics > 5")


def test_the_experiment_is_asked_for_only_where_a_condition_looks_at_it():
    def never():
        raise AssertionError("not asked for")

    assert Conditions.of(("nics == 4",)).hold(AXES, never)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "plan.__class__.__mro__",
        "cluster._document",
        "cluster.parse_raw('x')",
        "model.model_copy()",
        "open('/etc/passwd')",
        "[x for x in [1, 2]]",
        "(lambda: 1)()",
        "f'{nics}'",
        "(nics := 3)",
        "nics is 4",
        "max(nics, key=abs)",
        "round(5, -1000000000)",
        "'%999999999d' % nics",
        "'a' * 10**9 == 1",
        "cluster.model_copy",
        "nics <",
        "",
        "nics\0",
        "1+" * LETTERS_MAX + "1",
        "nicks > 1",
        "plan.ppp > 1",
        "name_of_it > 1",
    ],
)
def test_everything_else_is_refused_in_one_line(text):
    with pytest.raises(SpecError) as error:
        holds(text)
    assert str(error.value).startswith("where ")
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()


@pytest.mark.parametrize("text", ["9**9**9 > 1", "1 / (nics - 4) > 1", "log2(nics - 4) > 1"])
def test_what_cannot_be_computed_at_a_point_is_a_reason_of_that_point(text):
    with pytest.raises(InfeasibleError, match="cannot be computed"):
        holds(text)


def test_a_wrong_name_is_told_with_the_nearest():
    with pytest.raises(SpecError, match="no axis or field 'nicks'; did you mean 'nics'"):
        holds("nicks > 1")
