"""Routing: expected copies per token against published counts and closed forms, and rank loads."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.errors import InfeasibleError
from workloads.blocks.moe import MoESpec
from workloads.model import MODELS
from workloads.routing import (
    copies_on,
    correlated,
    draw_experts,
    expected_copies,
    lognormal_load,
    zipf_load,
)

V3 = MODELS.load("deepseek-v3").moe
BENCHMARK = V3.model_copy(update={"group_score": "max"})


@pytest.mark.parametrize(
    ("ep", "nodes", "gpus"),
    [(8, 1, 5.29), (16, 1.99, 6.53), (32, 3.62, 7.27), (64, 3.98, 7.48), (128, 4.00, 7.63)],
)
def test_copies_are_those_of_the_benchmark_routing(ep, nodes, gpus):
    """Routing of DeepEP's tests (groups = nodes, score = max, at most 4 nodes), drawn apart."""
    found = expected_copies(BENCHMARK, ep, gpus_per_node=8, routed_nodes_max=4)
    assert found.nodes_per_token == pytest.approx(nodes, abs=0.01)
    assert found.gpus_per_token == pytest.approx(gpus, abs=0.02)
    assert found.nodes == ep // 8
    assert found.remote_nodes_per_token == found.nodes_per_token * (1 - 8 / ep)


def test_v3_receives_about_thirty_thousand_tokens_per_rank():
    """The H800 trace has 26.6 to 34.1 thousand for 4,096 tokens a rank; 30.6 expected."""
    received = 4096 * expected_copies(V3, 64, 8, routed_nodes_max=4).gpus_per_token
    assert received == pytest.approx(30_650, rel=0.005)


def test_on_eight_nodes_v3s_own_groups_are_the_nodes():
    own, limited = expected_copies(V3, 64, 8), expected_copies(V3, 64, 8, routed_nodes_max=4)
    assert own == limited
    assert own.nodes_per_token == pytest.approx(3.95, abs=0.01)


def test_unlimited_routing_agrees_with_its_closed_form_by_monte_carlo():
    """N (1 - C(E - E/N, k) / C(E, k)) against a draw that keeps all groups."""
    closed = expected_copies(V3, 32, 8, routed_nodes_max=4)
    experts = draw_experts(V3, 4, 4, 20_000, np.random.default_rng(1))
    gpus = np.mean([len(set(row)) for row in (experts // 8).tolist()])
    assert closed.gpus_per_token == pytest.approx(gpus, abs=0.02)


@pytest.mark.parametrize("score", ["max", "top2"])
def test_drawn_experts_are_distinct_and_keep_to_the_groups(score):
    moe = V3.model_copy(update={"group_score": score})
    experts = draw_experts(moe, 8, 4, 500, np.random.default_rng(0))
    assert experts.shape == (500, 8)
    assert all(len(set(row)) == 8 for row in experts.tolist())
    assert all(len(set(row)) <= 4 for row in (experts // 32).tolist())


def test_drawn_experts_are_the_best_of_the_best_groups():
    """The rule of DeepSeek-V3 written out for one token at a time."""
    moe = V3.model_copy(update={"routed_experts": 32, "top_k": 3})
    experts = draw_experts(moe, 8, 4, 50, np.random.default_rng(7))
    scores = np.random.default_rng(7).random((50, 8, 4), dtype=np.float32)
    for row, token in zip(experts, scores, strict=True):
        best = sorted(range(8), key=lambda g: sorted(token[g])[-1] + sorted(token[g])[-2])[-4:]
        allowed = [(token[g, e], g * 4 + e) for g in best for e in range(4)]
        assert sorted(row) == sorted(e for _, e in sorted(allowed)[-3:])


def test_every_expert_is_as_likely_as_the_other():
    experts = draw_experts(V3, 8, 4, 20_000, np.random.default_rng(3))
    counts = np.bincount(experts.ravel(), minlength=256) / (20_000 * 8 / 256)
    assert counts.std() < 0.06  # 625 draws an expert: 4 % expected


@pytest.mark.parametrize(
    ("ep", "gpus_per_node", "limit", "message"),
    [
        (48, 8, None, "must divide the 256 routed experts, got 48"),
        (64, 24, 2, "the 3 nodes of an expert group that they share unevenly"),
        (256, 1, 4, "4 of 256 nodes hold fewer than top_k = 8 experts"),
    ],
)
def test_groups_that_do_not_divide_are_refused(ep, gpus_per_node, limit, message):
    with pytest.raises(InfeasibleError, match=message):
        expected_copies(V3, ep, gpus_per_node, limit)


def test_one_large_node_has_no_remote_copies():
    """A scale-up domain of 128 GPUs holds two expert groups of 64."""
    found = expected_copies(V3, 64, 128)
    assert (found.nodes, found.nodes_per_token, found.remote_nodes_per_token) == (1, 1, 0)


def test_a_part_of_a_node_is_as_good_as_a_whole_one():
    """64 GPUs of a rack of 72, as of one of 64."""
    assert expected_copies(V3, 64, 72) == expected_copies(V3, 64, 64)


def test_a_group_that_straddles_nodes_hits_each_as_its_experts_are_chosen():
    """Of 72 GPUs in order, the second group of 64 has 8 on one node and 56 on the next: 32 and 224
    of 256 experts.
    """
    free = MoESpec(routed_experts=256, top_k=8, expert_width=1)
    found = copies_on(free, (8, 56))
    missed = [math.comb(256 - held, 8) / math.comb(256, 8) for held in (32, 224)]
    assert found.node_hits == pytest.approx([1 - each for each in missed], rel=1e-12)
    assert found.nodes_per_token == pytest.approx(sum(found.node_hits), rel=1e-12)
    assert found.remote_nodes_per_token == pytest.approx(1 - missed[1], rel=1e-12)
    assert found.gpus_per_token == expected_copies(free, 64, 64).gpus_per_token


MEMBERS = st.sampled_from([(1, 7), (3, 5), (8,), (4, 4), (2, 3, 3), (1, 1, 6), (6, 10), (5, 8, 3)])


@given(MEMBERS, st.sampled_from([1, 2, 4]), st.integers(1, 4), st.sampled_from([1, 4]))
def test_hits_of_nodes_are_what_drawing_tokens_gives(members, local, top_k, groups):
    """With and without groups of experts that limit the choice; 3 sigma of 4,000 tokens or more."""
    experts, limit = sum(members) * local, max(1, groups // 2)
    moe = MoESpec(
        routed_experts=experts,
        top_k=min(top_k, experts // groups * limit),
        expert_width=1,
        groups=groups,
        groups_per_token=limit,
    )
    found = copies_on(moe, members)
    drawn = draw_experts(moe, groups, limit, 4000, np.random.default_rng(1))
    node = np.repeat(np.arange(len(members)), np.array(members) * local)[drawn]
    hits = [(node == each).any(axis=1).mean() for each in range(len(members))]
    assert found.members == members
    assert found.node_hits == pytest.approx(hits, abs=0.04)


# Loads


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_loads_have_mean_one_and_the_spread_asked_for():
    load = lognormal_load(normals(4000, 64), 0.08)
    assert load.shape == (4000, 64)
    np.testing.assert_allclose(load.mean(axis=1), 1, rtol=1e-14)
    assert load.std() == pytest.approx(0.08, rel=0.02)
    assert (load > 0).all()


def test_a_rank_is_as_loaded_as_its_normal_says():
    """exp(s z) with s^2 = ln(1 + sigma^2), over the mean of the ranks: of z = 0 and z = 1/s, the
    second has e times the first, 2e / (1 + e) of the mean.
    """
    sigma = 0.3
    z = np.array([0.0, 1 / np.sqrt(np.log1p(sigma**2))])
    assert lognormal_load(z, sigma) == pytest.approx([2 / (1 + np.e), 2 * np.e / (1 + np.e)])


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_loads_of_two_layers_correlate_as_asked(correlation):
    """On 20,000 ranks: normals to the letter, log-normal loads of 8 % nearly."""
    z = correlated(normals(1, 20_000), normals(2, 20_000, seed=1), correlation)
    assert np.corrcoef(z)[0, 1] == pytest.approx(correlation, abs=0.03)
    assert z.std(axis=1) == pytest.approx([1, 1], abs=0.02)  # still standard normals
    load = lognormal_load(z, 0.08)
    assert np.corrcoef(load)[0, 1] == pytest.approx(correlation, abs=0.03)


def test_the_ends_of_correlation_are_the_normals_themselves():
    """Fresh ones at 0; at 1 the same for every layer, to the bit."""
    persistent, fresh = normals(3, 1, 8), normals(3, 5, 8, seed=1)
    assert (correlated(persistent, fresh, 0.0) == fresh).all()
    assert (correlated(persistent, fresh, 1.0) == persistent).all()
    assert correlated(persistent, fresh, 0.5).shape == (3, 5, 8)


@pytest.mark.parametrize("load", [lambda z: lognormal_load(z, 0.0), lambda z: zipf_load(z, 0.0, 8)])
def test_without_a_spread_loads_are_ones(load):
    np.testing.assert_allclose(load(normals(5, 8)), np.ones((5, 8)), rtol=1e-14)


def test_popular_experts_draw_tokens_by_the_power_of_their_place():
    """Twelve experts on four ranks in a known order: the k-th draws k^-1.5."""
    places = np.array([7, 1, 12, 4, 5, 2, 9, 3, 11, 6, 10, 8])  # of each expert
    load = zipf_load(-places.astype(float), 1.5, 4)
    share = [sum(k**-1.5 for k in places[3 * r : 3 * r + 3].tolist()) for r in range(4)]
    assert load == pytest.approx([4 * own / sum(share) for own in share], rel=1e-14)


def test_the_rank_of_the_most_popular_expert_has_its_closed_form():
    """One expert a rank, exponent 1: the k-th has n / (k H_n), H the harmonic number."""
    load = np.sort(zipf_load(normals(64), 1.0, 64))[::-1]
    harmonic = sum(1 / k for k in range(1, 65))
    assert load == pytest.approx([64 / (k * harmonic) for k in range(1, 65)], rel=1e-13)


def test_zipf_loads_are_the_same_numbers_in_another_order():
    """Each row has mean 1; with one expert a rank, who is popular only decides whose is which."""
    load = zipf_load(normals(50, 3, 16), 0.7, 16)
    assert load.shape == (50, 3, 16)
    np.testing.assert_allclose(load.mean(axis=-1), 1, rtol=1e-14)
    ordered = np.sort(load, axis=-1)
    np.testing.assert_allclose(ordered, np.broadcast_to(ordered[0, 0], ordered.shape), rtol=1e-13)
    assert len({row.tobytes() for row in load.reshape(-1, 16)}) == 150


def test_more_experts_on_a_rank_even_its_load_out():
    """And a larger exponent spreads it."""
    z = normals(400, 256)
    spread = {
        (ranks, exponent): zipf_load(z, exponent, ranks).std()
        for ranks in (16, 64, 256)
        for exponent in (0.3, 0.6)
    }
    for exponent in (0.3, 0.6):
        assert spread[16, exponent] < spread[64, exponent] < spread[256, exponent]
    for ranks in (16, 64, 256):
        assert spread[ranks, 0.3] < spread[ranks, 0.6]
