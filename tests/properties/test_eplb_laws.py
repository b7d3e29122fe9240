"""The expert-parallel load balancer: its published example, laws over random loads, limits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.errors import InfeasibleError
from workloads.eplb import eplb, pack, replicate


@st.composite
def cases(draw):
    """Loads (layers, experts), and slots, groups, nodes and GPUs that divide."""
    nodes, per_node = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 4]))
    gpus, groups = nodes * per_node, nodes * draw(st.sampled_from([1, 2]))
    experts = math.lcm(gpus, groups) * draw(st.integers(1, 3))
    slots = experts + gpus * draw(st.integers(0, 3))
    tokens = st.integers(0, 1000)
    loads = draw(
        st.lists(st.lists(tokens, min_size=experts, max_size=experts), min_size=1, max_size=2)
    )
    groups = draw(st.sampled_from([groups, nodes + 1 if experts % (nodes + 1) == 0 else groups]))
    return np.array(loads, np.float64), int(slots), groups, nodes, gpus


def of_gpus(loads, slots_of, gpus):
    """(layers, GPUs) loads, each replica taking its share."""
    found = []
    for layer, expert in zip(loads, slots_of, strict=True):
        count = np.bincount(expert, minlength=len(layer))
        found.append((layer[expert] / count[expert]).reshape(gpus, -1).sum(axis=1))
    return np.array(found)


def test_the_published_example_to_the_letter():
    """deepseek-ai/EPLB @d52c72d, README: 12 experts in 4 groups, 16 slots on 2 nodes of 4 GPUs."""
    loads = [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ]
    assert eplb(np.array(loads, np.float64), 16, groups=4, nodes=2, gpus=8).tolist() == [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]


@given(cases())
def test_every_expert_has_a_slot_and_every_gpu_equally_many(case):
    loads, slots, groups, nodes, gpus = case
    found = eplb(loads, slots, groups, nodes, gpus)
    assert found.shape == (len(loads), slots)
    assert slots % gpus == 0
    for layer in found:
        assert set(layer.tolist()) == set(range(loads.shape[1]))


@given(cases())
def test_no_load_is_lost_and_none_is_above_the_mean_by_more_than_a_replica(case):
    """What takes the largest first to the emptiest place ends within one item of the mean, of all
    GPUs where there is one node.
    """
    loads, slots, *_, gpus = case
    found = eplb(loads, slots, 1, 1, gpus)
    held = of_gpus(loads, found, gpus)
    assert held.sum(axis=1) == pytest.approx(loads.sum(axis=1))
    for layer, expert, ranks in zip(loads, found, held, strict=True):
        largest = (layer / np.bincount(expert, minlength=len(layer)))[expert].max()
        assert ranks.max() <= ranks.mean() + largest + 1e-9


@given(cases())
def test_replicas_stay_on_the_node_of_their_group(case):
    loads, slots, groups, nodes, gpus = case
    found = eplb(loads, slots, groups, nodes, gpus)
    size = loads.shape[1] // groups
    for layer in found.reshape(len(loads), nodes, -1):
        on_node = [set((node // size).tolist()) for node in layer]
        if groups % nodes == 0:
            assert sum(map(len, on_node)) == groups == len(set().union(*on_node))


@given(cases())
def test_more_slots_never_leave_a_larger_replica(case):
    loads, slots, *_, gpus = case
    largest = []
    for more in (slots, slots + gpus):
        for_layer = [np.bincount(replicate(layer, more)) for layer in loads]
        largest.append(
            [(layer / count).max() for layer, count in zip(loads, for_layer, strict=True)]
        )
    assert (np.array(largest[1]) <= np.array(largest[0])).all()


@given(st.lists(st.integers(0, 99), min_size=1, max_size=20), st.integers(1, 20))
def test_replicas_go_where_they_help_most(loads, more):
    """By exchange: no expert could have given a replica to the one with the largest load."""
    load = np.array(loads, np.float64)
    count = np.bincount(replicate(load, len(load) + more))
    assert count.sum() == len(load) + more
    for donor in np.flatnonzero(count > 1):
        assert load[donor] / (count[donor] - 1) >= (load / count).max() - 1e-9


def test_skewed_loads_are_better_balanced_than_in_order():
    """Zipf loads of 64 experts, the popular ones together: on 8 GPUs 4.4 times the mean in order,
    and with 8 redundant ones 1.1 times.
    """
    loads = (1.0 / np.arange(1, 65))[None]
    in_order = of_gpus(loads, np.arange(64)[None], 8)
    balanced = of_gpus(loads, eplb(loads, 72, 1, 1, 8), 8)
    assert in_order.max() / in_order.mean() > 4
    assert balanced.max() / balanced.mean() < 1.2


def test_a_greedy_packing_may_be_worse_than_what_is_there():
    """3 + 3 + 0 beside 2 + 2 + 2 is even; the largest first gives 7 and 5. So does EPLB."""
    loads = np.array([[3.0, 3.0, 0.0, 2.0, 2.0, 2.0]])
    assert of_gpus(loads, np.arange(6)[None], 2).tolist() == [[6, 6]]
    assert of_gpus(loads, eplb(loads, 6, 1, 1, 2), 2).max() == 7


def test_one_item_a_pack_stays_in_order():
    assert pack(np.array([1.0, 3.0, 2.0]), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((15, 1, 1, 4), "15 slots must divide over 4 GPUs"),
        ((16, 4, 2, 1), "1 GPUs over 2 nodes"),
        ((16, 5, 1, 4), "12 experts into 5 groups"),
        ((8, 1, 1, 4), "must have a slot for each of 12 experts, got 8"),
    ],
)
def test_what_does_not_divide_is_refused(shape, reason):
    with pytest.raises(InfeasibleError, match=reason):
        eplb(np.ones((1, 12)), *shape)
