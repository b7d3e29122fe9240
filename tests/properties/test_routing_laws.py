"""Laws of where tokens go: a limit on nodes or devices is the model's, wherever it is asked for."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import Experiment
from simulator.driver.program import program_of
from simulator.experiment import EXPERIMENTS
from simulator.lower.lowered import lower
from simulator.network.moe_exchange import ExpertTraffic
from workloads.blocks.moe import MoESpec

GPUS_PER_NODE = 8
V3 = Experiment.load("deepseek-v3-pretrain")


@st.composite
def expert_layers(draw):
    """An expert layer whose expected copies have a closed form: any group, or only the best."""
    groups = draw(st.sampled_from([1, 2, 4, 8]))
    experts = 128 * draw(st.integers(1, 4))
    return {
        "routed_experts": experts,
        "top_k": draw(st.integers(1, min(12, experts // groups))),
        "expert_width": 512,
        "groups": groups,
        "groups_per_token": draw(st.sampled_from([1, groups])),
        "group_score": draw(st.sampled_from(["max", "top2"])),
    }


def expected_bins(moe, bins):
    """Bins that hold one of `top_k` experts of the groups a token may use."""
    reached = moe["groups"] // moe["groups_per_token"]
    experts, bins = moe["routed_experts"] // reached, max(1, bins // reached)
    missed = math.comb(experts - experts // bins, moe["top_k"]) / math.comb(experts, moe["top_k"])
    return bins * (1 - missed)


def trained_routing(moe, ep, **changes):
    """Copies of a token in a training step of V3's experiment with another expert layer."""
    plan = {"pp": 2, "ep": ep, "schedule": "1f1b"}
    model = {"model.layers": 4, "model.mtp_layers": 0, "model.moe": moe}
    size = {"cluster.nodes": 2 * ep // GPUS_PER_NODE, "batch.sequences": 4 * ep}
    experiment = V3.with_overrides({"plan": plan, **model, **size, **changes})
    (copies,) = lower(program_of(experiment)).program.routing  # all groups lie over nodes alike
    return copies


@given(expert_layers(), st.sampled_from([8, 16, 32, 64]))
@settings(max_examples=40, deadline=None)
def test_after_any_change_of_model_the_limit_is_that_models(moe, ep):
    """4,096 drawn tokens tell a mean of bins, which spread by 1 or so, to 0.06 at four sigma."""
    found = trained_routing(moe, ep)
    for told, bins in ((found.nodes_per_token, ep // 8), (found.gpus_per_token, ep)):
        assert told == pytest.approx(expected_bins(moe, bins), abs=0.06)


@given(expert_layers(), st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
@settings(max_examples=40, deadline=None)
def test_an_exchange_by_itself_goes_where_the_models_tokens_go(moe, ranks):
    """One rule for `collective` and for training; copies for the own GPU are counted in both."""
    traffic = ExpertTraffic(ranks, tokens=1, moe=MoESpec(**moe))
    matrix = traffic.matrix("normal", GPUS_PER_NODE)
    nodes, gpus = (copies.sum(axis=1)[0] for copies in (matrix.node_copies, matrix.gpu_copies))
    assert nodes == pytest.approx(expected_bins(moe, max(1, ranks // 8)), abs=0.06)
    assert gpus == pytest.approx(expected_bins(moe, ranks), abs=0.06)
    if ranks >= GPUS_PER_NODE:
        trained = trained_routing(moe, ranks)
        assert (nodes, gpus) == pytest.approx((trained.nodes_per_token, trained.gpus_per_token))


def test_no_experiment_preset_limits_the_nodes_of_its_model():
    for name in EXPERIMENTS.names():
        assert Experiment.load(name).communication.routed_nodes_max is None


def test_384_experts_without_groups_reach_eight_nodes_as_often_as_counting_says():
    """8 (1 - C(336, 8) / C(384, 8)), the experts of Kimi-K2."""
    moe = {"routed_experts": 384, "top_k": 8, "expert_width": 2048, "shared_experts": 1}
    found = trained_routing(moe, 64)
    assert found.nodes_per_token == pytest.approx(5.28, abs=0.005)
    limited = trained_routing(moe, 64, **{"communication.routed_nodes_max": 4})
    assert limited.nodes_per_token == pytest.approx(3.98, abs=0.04)
