"""Ranks that differ: what lock-step makes of uneven loads and of GPUs of uneven speed.

Pair times of a prototype that played 64 ranks from the blocks of DeepSeek's training trace
(deepseek-ai/profile-data @4496024): 129.8 ms with loads of 8 % spread drawn for each layer anew,
135.8 ms with the same ranks always loaded; the trace itself waits 2.04 ms in an exchange.
"""

import numpy as np
import pytest

from simulator import Experiment
from simulator.driver.step import play
from simulator.lower.expansion import expand
from workloads.routing import lognormal_load

PAIR = ("FB", 1, 1)  # four MoE layers beside four, as in the trace


def step(**ranks):
    """The pre-training step with `ranks.*` as given; dots as double underscores."""
    values = {f"ranks.{name.replace('__', '.')}": value for name, value in ranks.items()}
    return play(Experiment.load("deepseek-v3-pretrain").with_overrides(values), pipelines=[64])


def test_a_pair_takes_what_a_prototype_on_measured_blocks_took():
    run = step(play="folded", draws=64)
    assert run.parts[PAIR].duration_s.mean() == pytest.approx(0.1298, rel=0.01)


def test_a_pair_whose_layers_all_load_the_same_ranks_does_too():
    """Eight rows of loads with 8 % of spread, each for all layers: worse than any one layer's."""
    rows = lognormal_load(np.random.default_rng(0).standard_normal((8, 64)), 0.08)
    pairs_s = [
        step(play="folded", expert_load={"kind": "matrix", "loads": [row.tolist()]}).parts[PAIR]
        for row in rows
    ]
    assert np.mean([pair.duration_s for pair in pairs_s]) == pytest.approx(0.1358, rel=0.01)


def test_loads_that_last_in_each_layer_for_itself_cost_a_pair_what_fresh_ones_do():
    """Who is loaded on one layer is not on the next, so that ranks make up for it: what lasts must
    be told apart from what layers have in common, which is 6 ms more.
    """
    seeds = [step(play="folded", seed=seed, expert_load__correlation=1.0) for seed in range(8)]
    mean_s = np.mean([run.parts[PAIR].duration_s.mean() for run in seeds])
    assert mean_s == pytest.approx(0.1298, rel=0.01)


def test_ranks_wait_in_exchanges_about_as_long_as_in_the_trace():
    run = step(play="folded", draws=64)
    assert run.parts[PAIR].mean_wait_s == pytest.approx(2.04e-3, rel=0.30)


def test_gpus_of_uneven_speed_cost_more_than_their_mean():
    """1.5 % of spread over 2,048 GPUs leaves the work as it was and lengthens the step by several
    times that much of a per cent: every exchange waits for the slowest of 64 GPUs, the optimizer
    for the slowest of all pipelines.
    """
    alike, uneven = step(play="explicit"), step(gpu_speed_sigma=0.015)
    assert uneven.explicit.compute_s.mean() == pytest.approx(
        alike.explicit.compute_s.mean(), rel=2e-3
    )
    assert 1.015 < uneven.times.step_s / alike.times.step_s < 1.06
    assert uneven.explicit.wait_s.mean() > 1.1 * alike.explicit.wait_s.mean()
    slow = np.argsort(uneven.explicit.compute_s[7])[-6:]  # of pipeline rank 7, two groups of 64
    caused = uneven.explicit.blame_s[7]
    assert caused[slow].sum() > 0.3 * caused.sum()  # 5 % of its GPUs


def test_one_slow_gpu_holds_up_its_group_and_is_named():
    """GPU 500 at half speed: pipeline rank 3, pipeline 116, in the second expert group."""
    alike = step(play="explicit")
    slow = step(stragglers=[{"gpu": 500, "slowdown": 2.0}])
    assert slow.times.step_s > 1.5 * alike.times.step_s
    assert np.unravel_index(np.argmax(slow.explicit.blame_s), (16, 128)) == (3, 116)


def test_one_slow_nic_slows_the_groups_that_contain_it():
    """A NIC at a tenth of its rate makes every exchange of its group wait for it."""
    alike = step(play="explicit")
    slow = step(stragglers=[{"gpu": 500, "part": "nic", "slowdown": 10.0}])
    busy = slow.explicit.communication_s / alike.explicit.communication_s
    assert busy[3, 64:].min() > 5
    assert np.delete(busy, 3, axis=0) == pytest.approx(np.ones((15, 128)), rel=1e-9)
    assert busy[3, :64] == pytest.approx(np.ones(64), rel=1e-9)


@pytest.mark.parametrize("part", ["nic", "nvlink"])
def test_a_slow_link_is_named_and_slows_the_rings_at_the_end(part):
    """What it adds to the exchanges of 63 others is booked on it, though it never comes last."""
    slow = step(stragglers=[{"gpu": 500, "part": part, "slowdown": 5.0}])
    alike = step(play="explicit")
    assert np.unravel_index(np.argmax(slow.explicit.blame_s), (16, 128)) == (3, 116)
    assert (slow.explicit.optimizer_s > 2 * alike.explicit.optimizer_s).tolist() == [
        rank in (3, 12)
        for rank in range(16)  # the two homes of its stages
    ]


def test_a_message_is_as_slow_as_the_slower_of_its_two_nics():
    """GPU 500 sends to and hears from its neighbours, pipeline ranks 2 and 4 of pipeline 116."""
    slow = step(stragglers=[{"gpu": 500, "part": "nic", "slowdown": 7.0}])
    alike = step(play="explicit")
    messages, links = expand(slow.lowered).message, slow.lowered.pipeline.links
    slow_s, alike_s = (each.explicit.groups[1].seconds[messages] for each in (slow, alike))
    slower = slow_s / alike_s
    near = (links.rank[links.sender] == 3) | (links.receiver == 3)
    assert slower[near, 116 - 64] == pytest.approx(np.full(near.sum(), 7.0), rel=1e-12)
    assert np.delete(slower, 116 - 64, axis=1).max() == slower[~near].max() == 1
