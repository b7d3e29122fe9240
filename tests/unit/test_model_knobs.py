"""Experts, top-k, nodes of a token, MTP depth: FLOPs and weights by hand, steps by direction.

DeepSeek-V3 on GPUs with room for all of them.
"""

from functools import cache

import pytest

from hwmodels.errors import InfeasibleError
from simulator import Experiment, run

BASE = Experiment.load("deepseek-v3-pretrain").with_overrides(
    {"batch.sequences": 4096, "cluster.node.chip.hbm_capacity_bytes": "400 GB"}
)
HIDDEN, WIDTH, MOE_LAYERS, EXPERTS, VOCABULARY = 7168, 2048, 58, 256, 129_280
EXPERT = 3 * HIDDEN * WIDTH


@cache
def played(*changes):
    experiment = BASE.with_overrides(dict(changes))
    return experiment, run(experiment)


def with_moe(**changes):
    return played(*((f"model.moe.{name}", value) for name, value in changes.items()))


def finer(times):
    """As many times the experts, each as much narrower, shared ones too."""
    return with_moe(
        routed_experts=EXPERTS * times, expert_width=WIDTH // times, top_k=8 * times,
        shared_experts=times,
    )  # fmt: skip


def flops(experiment):
    return experiment.model.flops_per_token(4096, causal=True)


def reached_gpus(experiment):
    """GPUs that a token is sent to, expected."""
    from simulator.driver.program import program_of

    return max(statistics.gpus_per_token for statistics in program_of(experiment).routing)


@pytest.mark.parametrize("times", [2, 4])
def test_finer_experts_compute_the_same_and_have_a_larger_router(times):
    before, after = BASE.model, finer(times)[0].model
    assert flops(finer(times)[0]) == flops(BASE)
    grown = MOE_LAYERS * HIDDEN * EXPERTS * (times - 1)
    assert after.total_parameters - before.total_parameters == grown


def test_finer_experts_take_longer_and_keep_more():
    """More rows to permute and to send, smaller products; kept rows grow with top-k."""
    results = [finer(times)[1] for times in (1, 2, 4)]
    steps = [result.metrics.step_time_s for result in results]
    kept = [result.memory_bytes["activations"] for result in results]
    assert steps == sorted(set(steps))
    assert kept == sorted(set(kept))


@pytest.mark.parametrize("top_k", [1, 4, 16, 32])
def test_a_token_pays_for_each_expert_it_visits(top_k):
    """Six FLOPs a weight of each expert more, and no weight more."""
    after = with_moe(top_k=top_k)[0]
    assert flops(after) - flops(BASE) == 6 * MOE_LAYERS * EXPERT * (top_k - 8)
    assert after.model.total_parameters == BASE.model.total_parameters
    assert after.model.activated_parameters - BASE.model.activated_parameters == (
        MOE_LAYERS * EXPERT * (top_k - 8)
    )


def test_steps_grow_with_top_k():
    steps = [with_moe(top_k=top_k)[1].metrics.step_time_s for top_k in (1, 2, 4, 8, 16)]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("path", ["communication.routed_nodes_max", "model.moe.groups_per_token"])
def test_tokens_that_may_go_to_fewer_nodes_travel_less_and_compute_the_same(path):
    """The plan's own rule is the model's: four groups, a group being the experts of a node."""
    runs = [played((path, nodes)) for nodes in (1, 2, 4, 8)]
    steps = [result.metrics.step_time_s for _, result in runs]
    reached = [reached_gpus(experiment) for experiment, _ in runs]
    assert steps == sorted(set(steps))
    assert reached == sorted(set(reached))
    assert {flops(experiment) for experiment, _ in runs} == {flops(BASE)}
    assert steps[2] == played()[1].metrics.step_time_s


@pytest.mark.parametrize("depth", [0, 1, 2, 4])
def test_each_mtp_module_is_a_layer_a_projection_and_a_head(depth):
    """Published counts leave the modules out; three norms each are weights and no FLOPs."""
    experiment = played(("model.mtp_layers", depth))[0]
    model = experiment.model
    layer = model.layer_product_parameters("moe")
    core = model.attention.core_flops_per_token(4096, causal=True)
    once = 3 * (2 * (layer + 2 * HIDDEN**2 + VOCABULARY * HIDDEN) + core)
    assert model.mtp_flops_per_token(4096, causal=True) == depth * once
    weights = model.layer_parameters("moe") + 2 * HIDDEN**2 + 3 * HIDDEN
    assert model.mtp_parameters == depth * weights
    assert flops(experiment) == flops(BASE)


def test_steps_grow_with_mtp_depth_and_the_layout_gives_way():
    runs = [played(("model.mtp_layers", depth)) for depth in (0, 1, 2, 4)]
    steps = [result.metrics.step_time_s for _, result in runs]
    assert steps == sorted(set(steps))
    notes = [experiment.notes for experiment, _ in runs]
    assert notes[1] == ()
    for depth, (note,) in zip((0, 2, 4), (notes[0], *notes[2:]), strict=True):
        assert note.startswith("plan.layout: the preset's gives way to an even split")
        assert f"{depth} x mtp" in note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.moe.routed_experts": 96}, "plan.ep: must divide the 96 routed experts"),
        ({"model.mtp_layers": 4, "plan.pp": 128}, "plan.pp: at most one stage per layer"),
    ],
)
def test_what_cannot_be_laid_out_is_refused_in_one_line(change, message):
    with pytest.raises(InfeasibleError) as caught:
        run(BASE.with_overrides(change))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
