"""Stage layouts: the language, the default, and every way not to hold a model exactly once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.errors import InfeasibleError, SpecError
from workloads.layout import (
    check_layout,
    default_layout,
    layout_text,
    model_units,
    parse_layout,
    resolve_layout,
)
from workloads.model import MODELS

V3 = MODELS.load("deepseek-v3")
LLAMA = MODELS.load("llama3.1-405b")
LAYOUT_A = "3d+1m, 14*4m, 1m+mtp+2heads"


def test_layout_a_reads_as_sixteen_stages():
    stages = parse_layout(LAYOUT_A)
    assert len(stages) == 16
    assert stages[0] == ("dense", "dense", "dense", "moe")
    assert stages[1:15] == (("moe",) * 4,) * 14
    assert stages[15] == ("moe", "mtp", "head", "head")
    assert layout_text(stages) == LAYOUT_A


def test_long_names_and_blanks_mean_the_same():
    assert parse_layout(" 3dense + moe,14 * 4moe , m+1mtp+head+head") == parse_layout(LAYOUT_A)


@pytest.mark.parametrize(
    "text",
    ["", "3d+", "3x", "0*4m", "4*3*2m", "3 4m", "3d;1m", "1000m", "-1m", "3D", "d,,m", "4m\n*"],
)
def test_a_text_outside_the_grammar_is_refused(text):
    with pytest.raises(SpecError, match="layout"):
        parse_layout(text)


def test_the_default_for_v3_on_sixteen_stages_is_layout_a():
    """61 layers + 1 MTP module + 2 heads are 64 units, four a stage, embedding and heads on one
    rank of DualPipe as arXiv 2412.19437v2 §3.2.3 says.
    """
    assert default_layout(V3, 16) == parse_layout(LAYOUT_A)


def test_the_default_gives_the_first_stages_what_does_not_divide():
    """126 layers + 1 head on 16 stages: fifteen of eight, then 6 layers with the head."""
    assert layout_text(default_layout(LLAMA, 16)) == "15*8d, 6d+head"
    assert layout_text(default_layout(V3, 1)) == "3d+58m+mtp+2heads"


@given(st.sampled_from(MODELS.names()), st.data())
def test_the_default_always_holds_the_model(name, data):
    model = MODELS.load(name)
    pp = data.draw(st.integers(1, min(61, len(model_units(model)))))
    layout = default_layout(model, pp)
    check_layout(layout, model, pp)
    sizes = [len(stage) for stage in layout]
    assert max(sizes) - min(sizes) <= 1
    assert parse_layout(layout_text(layout)) == layout
    assert tuple(unit for stage in layout for unit in stage) == model_units(model)


def test_more_stages_than_units_are_refused():
    with pytest.raises(InfeasibleError, match=r"plan.pp: at most .* \(64\), got 65"):
        default_layout(V3, 65)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3d+1m, 13*4m, 1m+mtp+2heads", "must have pp = 16 stages, got 15"),
        ("2d+1m, 14*4m, 1m+mtp+2heads", "misses a unit, deepseek-v3 has 3 x dense layer, got 2"),
        ("3d+1m, 14*4m, 2m+mtp+2heads", "repeats a unit, deepseek-v3 has 58 x moe layer, got 59"),
        ("3d+1m, 14*4m, 1m+2heads", "misses a unit, deepseek-v3 has 1 x mtp, got 0"),
        ("3d+1m, 14*4m, 1m+mtp+head", "misses a unit, deepseek-v3 has 2 x head, got 1"),
        ("4m, 13*4m, 2m+3d, 0m", "no unit"),
        ("4m, 13*4m, 2m, 3d+mtp+2heads", "layers must come in the model's order"),
        ("3d+1m+head, 14*4m, 1m+mtp+head", "then mtp and heads"),
    ],
)
def test_a_layout_that_does_not_hold_the_model_is_refused(text, message):
    with pytest.raises((InfeasibleError, SpecError)) as error:
        resolve_layout(text, V3, 16)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
