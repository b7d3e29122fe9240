"""Which GPU a rank sits on, and what a group of ranks knows of itself."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, InputError
from simulator.network.placement import Group, group_of, place
from tests.clusters import cluster

SMALL = cluster(nodes=4)


def test_packed_groups_fill_nodes():
    assert place(SMALL, 8, 2).tolist() == [list(range(8)), list(range(8, 16))]


def test_spread_groups_take_one_gpu_of_each_node_first():
    assert place(SMALL, 4, 2, "spread").tolist() == [[0, 8, 16, 24], [1, 9, 17, 25]]
    assert place(SMALL, 6, 1, "spread").tolist() == [[0, 8, 16, 24, 1, 9]]


def test_random_groups_are_disjoint_and_follow_the_seed():
    first, again = (place(SMALL, 8, 4, "random", seed=3) for _ in range(2))
    assert np.array_equal(first, again)
    assert sorted(first.ravel().tolist()) == list(range(32))
    assert not np.array_equal(first, place(SMALL, 8, 4, "random", seed=4))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0,), InputError, "ranks: must be at least 1, got 0"),
        ((8, 0), InputError, "groups: must be at least 1, got 0"),
        ((8, 5), InfeasibleError, "32 GPUs.*got 40"),
        ((8, 1, "tight"), InputError, "placement: unknown 'tight'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        place(SMALL, *arguments)


def test_a_rank_twice_none_or_outside_is_refused():
    with pytest.raises(InputError, match="got GPU 3 twice"):
        group_of(SMALL, [1, 3, 5, 3])
    with pytest.raises(InputError, match="at least one rank"):
        group_of(SMALL, [])
    with pytest.raises(InfeasibleError, match="0 to 31, got 32"):
        group_of(SMALL, [0, 32])


def test_a_group_knows_its_nodes_and_hands_channels_to_members_in_turn():
    group = Group((17, 2, 0, 16, 5), 8)
    assert group.nodes.tolist() == [0, 2]
    assert group.counts.tolist() == [3, 2]
    assert group.channels == 3
    assert group.slot([[0], [1]], np.arange(3)).tolist() == [[0, 2, 5], [16, 17, 16]]
