"""Ranks and loads of an experiment: what sets ranks apart, and whether they may be folded."""

import pytest

from hwmodels.errors import SpecError
from tests.refusals import MPFT, refusal

UNLIKE = {
    "ranks.gpu_speed_sigma": {"ranks.gpu_speed_sigma": 0.01},
    "ranks.jitter": {"ranks.jitter": 0.01},
    "ranks.stragglers": {"ranks.stragglers": [{"gpu": 2047, "slowdown": 1.1}]},
    "ranks.expert_load.correlation": {"ranks.expert_load.correlation": 0.1},
    "ranks.expert_load.loads": {
        "ranks.expert_load": {"kind": "matrix", "loads": [[1] * 64] * 58 + [[1] * 63 + [2]]}
    },
}


@pytest.mark.parametrize("name", UNLIKE)
def test_ranks_that_are_unlike_are_all_played(name):
    experiment = MPFT.with_overrides(UNLIKE[name])
    assert experiment.ranks.unlike == (name,)
    assert experiment.ranks.is_explicit
    assert not MPFT.ranks.is_explicit
    assert MPFT.with_overrides({"ranks.play": "explicit"}).ranks.is_explicit


@pytest.mark.parametrize("name", sorted(set(UNLIKE) - {"ranks.expert_load.correlation"}))
def test_what_sets_ranks_apart_cannot_be_folded(name):
    error = refusal(UNLIKE[name] | {"ranks.play": "folded"})
    assert type(error) is SpecError
    assert str(error) == (
        f"ranks.play: folded ranks are alike, but {name} sets them apart; use auto or explicit"
    )


def test_given_loads_that_are_one_row_over_and_over_may_be_folded():
    """Only where rows differ do stages that share a chunk meet loads of their own; unasked, the
    ranks that are always loaded are played.
    """
    for rows in (1, 59):
        loads = {"kind": "matrix", "loads": [[1] * 63 + [2]] * rows}
        given = MPFT.with_overrides({"ranks.expert_load": loads})
        assert given.ranks.is_explicit
        assert not given.with_overrides({"ranks.play": "folded"}).ranks.is_explicit


def test_a_correlation_may_be_folded_and_matters_to_drawn_loads_only():
    correlated = MPFT.with_overrides({"ranks.expert_load.correlation": 0.5})
    assert not correlated.with_overrides({"ranks.play": "folded"}).ranks.is_explicit
    for values in (
        {"ranks.expert_load.sigma": 0},
        {"ranks.expert_load.kind": "balanced"},
        {"ranks.expert_load.kind": "zipf"},  # of exponent 0
    ):
        assert correlated.with_overrides(values).ranks.unlike == ()
    zipf = {"ranks.expert_load.kind": "zipf", "ranks.expert_load.exponent": 0.3}
    assert correlated.with_overrides(zipf).ranks.is_explicit
    assert not MPFT.with_overrides(zipf).ranks.is_explicit


def test_loads_of_some_layers_only_are_refused():
    """One row for all 58 + 1 routed layers, or one for each."""
    for rows in (1, 59):
        loads = {"kind": "matrix", "loads": [[1] * 64] * rows}
        assert MPFT.with_overrides({"ranks.expert_load": loads})
    error = refusal({"ranks.expert_load": {"kind": "matrix", "loads": [[1] * 64] * 7}})
    assert "ranks.expert_load.loads" in str(error)
