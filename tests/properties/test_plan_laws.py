"""Laws of plans: meshes folded over the same ranks, and what random ones cost in every engine."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwmodels.errors import InfeasibleError
from workloads.parallel import ParallelPlan
from workloads.placement import Placement

POWERS = st.integers(0, 3).map(lambda n: 2**n)


@st.composite
def plans(draw):
    """A plan and GPUs that it fills."""
    tp, cp, pp, dp = (draw(POWERS) for _ in range(4))
    width = tp * cp * dp
    ep = draw(POWERS)
    etp = draw(POWERS)
    assume(width % (ep * etp) == 0)
    return ParallelPlan(tp=tp, cp=cp, pp=pp, ep=ep, etp=etp), pp * width


@given(plans(), st.sampled_from([4, 8, 72]))
def test_every_rank_is_in_one_group_along_any_axes(planned, gpus_per_node):
    plan, gpus = planned
    mesh = plan.mesh(gpus)
    for axes in (("tp",), ("cp",), ("dp", "cp"), ("ep",), ("etp",), ("edp",), ("ep", "etp")):
        groups = mesh.groups(*axes)
        assert groups.shape[1] == mesh.size(*axes)
        assert sorted(groups.ravel().tolist()) == list(range(gpus))
    placement = Placement(mesh, gpus_per_node)
    assert sorted(placement.expert_groups.ravel().tolist()) == list(range(gpus))
    assert (mesh.at("pp", placement.expert_groups) == np.arange(plan.pp)[:, None, None]).all()
    for pipeline in range(len(placement.pipelines)):
        group, member = placement.group_of_pipeline(pipeline)
        assert placement.pipelines_of_group[group, member] == pipeline
    held = [sum(members) for members in placement.layouts]
    assert held == [plan.ep] * len(held)


@given(plans())
def test_who_holds_the_same_weights_lies_alike_on_the_axes_that_split_them(planned):
    plan, gpus = planned
    mesh = plan.mesh(gpus)
    placement = Placement(mesh, 8)
    dense, experts = placement.dense_replicas([0]), placement.expert_replicas([0])
    assert dense.shape == (plan.tp, gpus // plan.pp // plan.tp)
    assert experts.shape == (plan.ep * plan.etp, gpus // plan.pp // plan.ep // plan.etp)
    assert (mesh.at("tp", dense) == np.arange(plan.tp)[:, None]).all()
    for axis in ("ep", "etp"):
        assert (np.diff(mesh.at(axis, experts), axis=1) == 0).all()


@given(POWERS, POWERS)
def test_experts_folded_like_attention_have_its_groups(tp, dp):
    """Where `etp` is `tp` and experts are split over data-parallel ranks."""
    mesh = ParallelPlan(tp=tp, etp=tp, ep=dp).mesh(tp * dp)
    assert (mesh.groups("tp") == mesh.groups("etp")).all()
    assert (mesh.groups("dp") == mesh.groups("ep")).all()


MODEL = {
    "name": "small",
    "layers": 4,
    "hidden": 1024,
    "vocabulary": 4096,
    "dense_layers": 1,
    "dense_ffn_width": 2048,
    "attention": {"kind": "gqa", "heads": 16, "kv_heads": 8, "d_head": 64},
    "moe": {"routed_experts": 16, "shared_experts": 1, "top_k": 4, "expert_width": 512},
}


@st.composite
def small_plans(draw):
    tp, cp, pp = (draw(st.sampled_from([1, 2, 4])) for _ in range(3))
    width = 32 // pp
    ep, etp = (draw(st.sampled_from([1, 2, 4])) for _ in range(2))
    assume(width % (tp * cp) == 0 and width % (ep * etp) == 0)
    way = draw(st.sampled_from(["p2p", "all_gather", "a2a"]))
    assume(way != "a2a" or tp * cp <= 8)
    return {"pp": pp, "tp": tp, "cp": cp, "ep": ep, "etp": etp, "cp_comm": way,
            "schedule": draw(st.sampled_from(["1f1b", "zb1p"]))}  # fmt: skip


def experiment(plan, **changes):
    from simulator import Experiment

    changed = {
        "model": MODEL, "plan": plan, "cluster": "h100-2048", "cluster.nodes": 4,
        "profile": "h100-sglang", "precision.recipe": "bf16",
        "batch.sequences": 128, "batch.sequence_length": 512,
    }  # fmt: skip
    return Experiment.load("deepseek-v3-pretrain").with_overrides(changed | changes)


@settings(max_examples=12, deadline=None)
@given(small_plans(), st.booleans())
def test_engines_and_every_rank_agree_on_random_plans(plan, skewed):
    """Folded, and rank by rank where all are alike; both engines to 1e-9."""
    from simulator.driver.step import play

    load = {"ranks.expert_load.kind": "lognormal", "ranks.expert_load.sigma": 0.3 * skewed}
    step_s = {
        engine: play(experiment(plan, **load, **{"ranks.engine": engine})).times.step_s
        for engine in ("array", "reference")
    }
    assert step_s["array"] == pytest.approx(step_s["reference"], rel=1e-9)
    if not skewed:
        every = play(experiment(plan, **load, **{"ranks.play": "explicit"})).times.step_s
        assert every == pytest.approx(step_s["array"], rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cp": 2, "pp": 1}, "plan.cp: 2 cp must divide the sequence length 510"),
        ({"tp": 8, "pp": 1}, "plan.tp: must divide the 510 tokens of a micro-batch"),
    ],
)
def test_sequences_that_ranks_cannot_share_are_refused(changes, message):
    from simulator.driver.program import program_of

    with pytest.raises(InfeasibleError, match=message):
        program_of(experiment(changes, **{"batch.sequence_length": 510}))


def test_redundant_experts_that_are_split_are_refused():
    counts = [list(range(1, 17))]
    placed = {
        "ranks.expert_load": {"kind": "measured", "counts": counts},
        "ranks.expert_placement": {"policy": "eplb", "redundant_experts": 4},
    }
    with pytest.raises(InfeasibleError, match=r"must be 0 where plan\.etp is above 1"):
        experiment({"ep": 4, "etp": 2}, **placed)
