"""Parallel plans: group sizes, places of ranks, and plans that cannot be."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, SpecError
from hwmodels.spec import validate
from workloads.batch import BatchSpec
from workloads.model import MODELS
from workloads.parallel import ParallelPlan

V3 = MODELS.load("deepseek-v3")
LLAMA = MODELS.load("llama3.1-405b")
PLAN = ParallelPlan(pp=16, ep=64, schedule="dualpipe", layout="3d+1m, 14*4m, 1m+mtp+2heads")


def test_v3_plan_has_128_pipelines_and_two_homes_for_every_stage():
    """2,048 GPUs, PP 16, EP 64 (arXiv 2412.19437v2 §3.2)."""
    PLAN.check(V3, 2048)
    mesh = PLAN.mesh(2048)
    assert (mesh.size("dp"), mesh.size("edp"), mesh.ranks) == (128, 2, 2048)
    assert PLAN.stages_of_rank(3) == (3, 12)
    assert PLAN.homes_of_stage(12) == (3, 12)
    assert PLAN.microbatches(BatchSpec(sequences=15360, sequence_length=4096), 2048) == 120


def test_1f1b_has_one_home_for_every_stage():
    assert PLAN.model_copy(update={"schedule": "1f1b"}).homes_of_stage(12) == (12,)


@pytest.mark.parametrize(
    ("schedule", "vpp", "stages", "held"),
    [
        ("1f1b", None, 16, (3,)),
        ("1f1b", 1, 16, (3,)),
        ("zb-h1", None, 16, (3,)),
        ("dualpipe", None, 16, (3, 12)),
        ("interleaved", None, 32, (3, 19)),
        ("interleaved", 4, 64, (3, 19, 35, 51)),
        ("zbv", None, 32, (3, 28)),
        ("vhalf", 2, 32, (3, 28)),
        ("dualpipev", 2, 32, (3, 28)),
    ],
)
def test_a_rank_holds_as_many_model_chunks_as_the_plan_asks_for(schedule, vpp, stages, held):
    """Stages are dealt out in the model's order; without `vpp` the schedule has its own."""
    plan = ParallelPlan(pp=16, ep=64, schedule=schedule, vpp=vpp)
    plan.check(V3, 2048)
    layout = plan.stages(V3)
    assert len(layout) == stages
    assert plan.stages_of_rank(3) == held
    homes = [plan.homes_of_stage(stage) for stage in range(stages)]
    assert {len(ranks) for ranks in homes} == {2 if schedule == "dualpipe" else 1}


def test_nodes_hold_data_parallel_ranks_of_one_pipeline_rank():
    mesh, node = PLAN.mesh(2048), np.arange(8, 16)
    assert mesh.at("pp", node).tolist() == mesh.at("edp", node).tolist() == [0] * 8
    assert mesh.at("dp", node).tolist() == mesh.at("ep", node).tolist() == list(range(8, 16))
    axes = ("pp", "dp", "cp", "tp", "edp", "ep", "etp")
    assert [int(mesh.at(axis, 200)) for axis in axes] == [1, 72, 0, 0, 1, 8, 0]


@pytest.mark.parametrize(
    ("changes", "gpus", "message"),
    [
        ({"ep": 48}, 2048, "plan.ep: must divide the 256 routed experts of deepseek-v3, got 48"),
        ({"dp": 256}, 2048, "at most the 2048 GPUs of the cluster, got 1 x 1 x 16 x 256 = 4096"),
        ({}, 2040, "tp x cp x pp = 16 must divide the 2040 GPUs of the cluster, unless plan.dp"),
        ({}, 8, "tp x cp x pp = 16"),
        ({"ep": 256}, 2048, "plan.ep: must divide the dp x cp x tp = 128 ranks"),
        ({"ep": 64, "etp": 4}, 2048, "plan.ep x etp: must divide the dp x cp x tp = 128 ranks"),
        ({"tp": 2, "sequence_parallel": False}, 2048, "plan.sequence_parallel: must be true for"),
        ({"layout": "16*4m"}, 2048, "plan.layout: misses a unit"),
        ({"vpp": 2}, 2048, "plan.vpp: must be 1 for dualpipe, interleaved takes more, got 2"),
        ({"vpp": 4, "schedule": "1f1b"}, 2048, "plan.vpp: must be 1 for 1f1b, interleaved takes"),
        ({"vpp": 3, "schedule": "zbv"}, 2048, "plan.vpp: must be 2 for zbv, got 3"),
        ({"schedule": "zbv"}, 2048, "plan.layout: must have pp x vpp = 32 stages, got 16"),
        (
            {"vpp": 5, "schedule": "interleaved", "layout": None},
            2048,
            "plan.pp: at most one stage per layer, MTP module and head of deepseek-v3 (64), got 80 "
            "= pp 16 x vpp 5",
        ),
        ({"pp": 15, "layout": None}, 1920, "dualpipe needs an even number of ranks, got 15"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(changes, gpus, message):
    with pytest.raises(InfeasibleError) as error:
        PLAN.model_copy(update=changes).check(V3, gpus)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_expert_parallelism_of_a_dense_model_is_refused():
    with pytest.raises(InfeasibleError, match=r"llama3\.1-405b has no experts, must be 1, got 8"):
        ParallelPlan(pp=16, ep=8).check(LLAMA, 128)
    ParallelPlan(pp=16).check(LLAMA, 128)


def test_too_few_microbatches_for_the_schedule_are_refused():
    batch = BatchSpec(sequences=128 * 30, sequence_length=4096)
    with pytest.raises(InfeasibleError, match="dualpipe needs at least 2 pp = 32 micro-batches"):
        PLAN.microbatches(batch, 2048)


def test_an_unknown_schedule_names_the_nearest():
    plan = PLAN.model_copy(update={"schedule": "dualpip"})
    with pytest.raises(SpecError, match="did you mean 'dualpipe'"):
        plan.check(V3, 2048)


@pytest.mark.parametrize("values", [{"zero": 2}, {"pp": 0}, {"pipeline": 2}])
def test_a_plan_out_of_bounds_is_refused(values):
    with pytest.raises(SpecError, match=next(iter(values))):
        validate(ParallelPlan, values)
