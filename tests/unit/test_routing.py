"""Routing: expected copies per token against published counts and closed forms, and rank loads."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, SpecError
from workloads.model import MODELS
from workloads.routing import draw_experts, expected_copies, expert_load

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
        (64, 24, None, "must fill whole nodes of 24 GPUs, got 64"),
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


def test_a_group_that_would_straddle_nodes_is_refused():
    """Of 72 GPUs in order, the second group of 64 would have 8 on one node and 56 on the next."""
    with pytest.raises(InfeasibleError, match="inside one node it must divide its 72 GPUs, got 64"):
        expected_copies(V3, 64, 72)


def test_loads_have_mean_one_and_the_spread_asked_for():
    load = expert_load("lognormal", 0.08, 0.0, 64, 4000, np.random.default_rng(0))
    np.testing.assert_allclose(load.mean(axis=1), 1, rtol=1e-14)
    assert load.std() == pytest.approx(0.08, rel=0.02)
    assert (load > 0).all()


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_loads_of_two_layers_correlate_as_asked(correlation):
    load = expert_load("lognormal", 0.08, correlation, 20_000, 2, np.random.default_rng(0))
    assert np.corrcoef(load)[0, 1] == pytest.approx(correlation, abs=0.03)


def test_balanced_loads_are_ones_and_draw_nothing():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert (expert_load("balanced", 0.5, 0.0, 4, 3, rng) == np.ones((3, 4))).all()
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(
    ("kind", "sigma", "correlation", "message"),
    [
        ("normal", 0.1, 0.0, "expert_load.kind"),
        ("lognormal", -0.1, 0.0, "expert_load.sigma: at least 0, got -0.1"),
        ("lognormal", float("nan"), 0.0, "expert_load.sigma"),
        ("lognormal", 0.1, 1.5, "expert_load.correlation: from 0 to 1, got 1.5"),
    ],
)
def test_a_load_that_cannot_be_drawn_is_refused(kind, sigma, correlation, message):
    with pytest.raises(SpecError, match=message):
        expert_load(kind, sigma, correlation, 4, 3, np.random.default_rng(0))
