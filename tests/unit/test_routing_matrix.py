"""Routing matrices: what is expected, what is drawn, and that no copy is lost."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, InputError
from workloads.blocks.moe import MoESpec
from workloads.routing import expected_copies
from workloads.routing_matrix import (
    RoutingMatrix,
    drawn_matrix,
    expected_matrix,
    straight_matrix,
)

MOE = MoESpec(routed_experts=64, top_k=4, expert_width=1, group_score="max")


def test_drawn_copies_tend_to_the_expected_ones() -> None:
    copies = expected_copies(MOE, 16, 4, 2)
    expected = expected_matrix(copies, 2000, MOE.top_k)
    drawn = drawn_matrix(MOE, 2000, 16, 4, np.random.default_rng(0), routed_nodes_max=2)
    for name in ("node_copies", "gpu_copies", "expert_copies"):
        assert getattr(drawn, name).sum() == pytest.approx(getattr(expected, name).sum(), rel=0.02)
        assert getattr(drawn, name) == pytest.approx(getattr(expected, name), rel=0.3)


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_a_token_goes_to_as_many_nodes_as_it_may_and_to_every_expert_once(limit: int) -> None:
    drawn = drawn_matrix(MOE, 300, 16, 4, np.random.default_rng(1), routed_nodes_max=limit)
    assert (drawn.expert_copies.sum(axis=1) == 300 * MOE.top_k).all()
    assert (drawn.node_copies.sum(axis=1) <= 300 * limit).all()
    assert (drawn.node_copies <= 300).all()
    assert (drawn.gpu_copies <= drawn.expert_copies).all()
    by_node = drawn.gpu_copies.reshape(16, 4, 4).sum(axis=2)
    assert (drawn.node_copies <= by_node).all()


def test_popular_experts_draw_tokens_in_proportion() -> None:
    """One expert of a plain choice of one: shares are the weights."""
    moe = MOE.model_copy(update={"top_k": 1})
    weights = np.repeat([1.0, 3.0], 32)
    drawn = drawn_matrix(moe, 5000, 4, 4, np.random.default_rng(2), popularity=weights)
    share = drawn.expert_copies.sum(axis=0) / drawn.expert_copies.sum()
    assert share == pytest.approx([0.125, 0.125, 0.375, 0.375], rel=0.05)


def test_equal_weights_draw_as_no_weights_do() -> None:
    plain, weighted = (
        drawn_matrix(MOE, 100, 8, 4, np.random.default_rng(3), popularity=popularity)
        for popularity in (None, np.ones(64))
    )
    assert (plain.expert_copies == weighted.expert_copies).all()


def test_a_load_moves_copies_but_never_beyond_one_of_each_token() -> None:
    copies = expected_copies(MOE, 8, 4)
    load = np.array([1.5, 0.5, 1, 1, 1, 1, 1, 1])
    even, skewed = (expected_matrix(copies, 100, MOE.top_k, each) for each in (None, load))
    assert skewed.gpu_copies[0] == pytest.approx(even.gpu_copies[0] * load, rel=1e-12)
    hot = expected_matrix(copies, 100, MOE.top_k, np.array([8.0, 0, 0, 0, 0, 0, 0, 0]))
    assert hot.gpu_copies.max() == 100
    assert hot.node_copies.max() == 100


def test_where_nothing_is_deduplicated_every_expert_costs_a_copy() -> None:
    matrix = straight_matrix(128, 8, (4, 4))
    assert matrix.node_copies == pytest.approx(np.full((8, 2), 128 * 8 / 2), rel=1e-12)
    assert matrix.gpu_copies == pytest.approx(np.full((8, 8), 128.0), rel=1e-12)
    assert (matrix.nodes, matrix.gpus, matrix.gpus_per_node) == (2, 8, 4)


def test_bad_matrices_are_refused_in_one_line() -> None:
    ones = np.ones((4, 4))
    with pytest.raises(InputError, match=r"must be \(gpus, nodes\) and \(gpus, gpus\)"):
        RoutingMatrix(1, np.ones((4, 3)), ones, ones)
    with pytest.raises(InputError, match="copies must be 0 or more, got -1"):
        RoutingMatrix(1, np.ones((4, 2)), -ones, ones)
    with pytest.raises(InputError, match="one number for each of 8 GPUs"):
        expected_matrix(expected_copies(MOE, 8, 4), 10, 4, np.ones(4))
    with pytest.raises(InfeasibleError, match=r"plan\.ep"):
        drawn_matrix(MOE, 1, 7, 4, np.random.default_rng(0))
