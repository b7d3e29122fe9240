"""Loads of MoE tables, rebuilt: what enters comes out, and the draws are those of the collector."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.read.expert_counts import _filled, _power_law, _rebalanced, rank_load

LAYERS = [(128, 8), (8, 2), (256, 8), (384, 8)]


@pytest.mark.parametrize(("experts", "topk"), LAYERS)
@pytest.mark.parametrize("tokens", [1, 7, 32, 1000])
def test_balanced_tokens_are_shared_out_evenly(experts: int, topk: int, tokens: int) -> None:
    pairs, active, *_ = rank_load("balanced", tokens, experts, topk, 1, experts)
    assert pairs == tokens * topk
    assert active == min(experts, tokens * topk)
    half = rank_load("balanced", tokens, experts, topk, 2, experts)
    assert half[0] == pytest.approx(pairs / 2, abs=topk / 2)


@given(
    st.sampled_from(LAYERS),
    st.integers(1, 600),
    st.sampled_from([0.6, 1.01, 1.2]),
    st.integers(0, 9),
)
def test_a_power_law_deals_out_every_pair_and_gives_no_expert_a_token_twice(
    layer: tuple[int, int], tokens: int, alpha: float, seed: int
) -> None:
    experts, topk = layer
    count = _power_law(np.random.default_rng(seed), alpha, tokens, experts, topk, 4)
    assert count.sum() == tokens * topk
    assert count.min() >= 0
    assert count.max() <= tokens
    np.testing.assert_array_equal(count, count.round())


@given(st.integers(0, 50), st.integers(0, 9))
def test_pairs_left_over_go_rank_after_rank_to_its_smallest(amount: int, seed: int) -> None:
    of_rank = np.random.default_rng(seed).integers(0, 6, (3, 5)).astype(float)
    expected = of_rank.copy()
    for turn in range(amount):
        row = expected[turn % 3]
        row[np.argmin(row)] += 1
    got = _filled(of_rank, amount, 99)
    np.testing.assert_array_equal(np.sort(got, axis=1), np.sort(expected, axis=1))


def test_a_full_rank_leaves_its_turns_to_the_others() -> None:
    got = _filled(np.array([[4.0, 4.0], [4.0, 3.0], [0.0, 0.0]]), 6, 4)
    np.testing.assert_array_equal(np.sort(got, axis=1), [[4, 4], [4, 4], [2, 3]])


def test_the_timed_rank_has_more_pairs_than_its_share() -> None:
    load = rank_load("power_law_1.2", 4096, 256, 8, 8, 256)
    assert load[0] > 4096


def test_uniform_loads_of_few_tokens_are_of_the_first_experts() -> None:
    """16 tokens of 8 experts of 256 on 4 ranks: 32 pairs a rank, one each for half of its 64."""
    np.testing.assert_array_equal(rank_load("uniform", 16, 256, 8, 4, 256), [32, 32, 32, 32, 32])
    assert rank_load("uniform", 4096, 256, 8, 4, 256)[0] == 8192


def test_packed_rows_of_several_experts_are_computed_with_the_first_ones_weights() -> None:
    """512 tokens of 8 experts of 256 on 2 ranks: 2,048 rows are 16 tiles of 128 rows."""
    pairs, active, _, tiles, _ = rank_load("packed", 512, 256, 8, 2, 256)
    assert (pairs, active, tiles) == (2048, 16, 16)


def test_a_load_balancer_brings_the_timed_rank_near_its_share() -> None:
    skewed = rank_load("power_law_1.2", 4096, 256, 8, 32, 256)[0]
    balanced = rank_load("power_law_1.2_eplb", 4096, 256, 8, 32, 256)[0]
    copied = rank_load("power_law_1.2_eplb", 4096, 256, 8, 32, 288)[0]
    assert copied <= balanced < skewed
    assert copied == pytest.approx(1024, rel=0.05)


def test_copies_of_the_largest_experts_take_part_of_its_tokens() -> None:
    slots = _rebalanced(np.array([90.0, 10.0, 20.0]), ranks=2, slots=4)
    assert sorted(slots) == [10, 20, 45, 45]
    assert slots.reshape(2, 2).sum(axis=1).max() == 65


def test_draws_are_the_same_every_time() -> None:
    first = rank_load("power_law_1.01", 77, 128, 8, 4, 128)
    rank_load.cache_clear()
    again = rank_load("power_law_1.01", 77, 128, 8, 4, 128)
    np.testing.assert_array_equal(first, again)
