"""What is wrong with an experiment: one line for everything refused."""

import pytest

from hwmodels.errors import InfeasibleError, SpecError, UnknownPresetError
from simulator import Experiment
from tests.refusals import refusal

REFUSED = {
    "unknown preset": (
        {"cluster": "h800-2048-mptf"},
        UnknownPresetError,
        "cluster 'h800-2048-mptf': unknown preset; did you mean 'h800-2048-mpft'?",
    ),
    "unknown nested preset": (
        {"cluster.node.chip": "h80"},
        UnknownPresetError,
        "chip 'h80': unknown preset; did you mean 'h800'?",
    ),
    "unknown key": (
        {"plan.epp": 4},
        SpecError,
        "plan.epp: unknown key 'epp'; did you mean 'pp'?",
    ),
    "unknown key at the top": ({"modle": "deepseek-v3"}, SpecError, "did you mean 'model'?"),
    "a table below a value": (
        {"batch.sequences.x": 1},
        SpecError,
        "batch.sequences is a single value, not a table",
    ),
    "wrong unit": (
        {"cluster.node.chip.hbm_capacity_bytes": "80 GHz"},
        SpecError,
        "cluster.node.chip.hbm_capacity_bytes: expected a unit of B such as '80 GB', got '80 GHz'",
    ),
    "bytes for a rate": (
        {"cluster.fabric.link_bytes_per_s": "50 GB"},
        SpecError,
        "cluster.fabric.link_bytes_per_s: expected a unit of B/s",
    ),
    "EP that does not divide the experts": (
        {"plan.ep": 96},
        InfeasibleError,
        "plan.ep: must divide the 256 routed experts of deepseek-v3, got 96",
    ),
    "EP that does not divide the ranks": (
        {"cluster.nodes": 100},
        InfeasibleError,
        "plan.ep: must divide the dp x cp x tp = 50 ranks of a pipeline rank, got 64",
    ),
    "more GPUs than there are": (
        {"plan.dp": 256},
        InfeasibleError,
        "must be at most the 2048 GPUs of the cluster, got 1 x 1 x 16 x 256 = 4096",
    ),
    "GPUs that do not divide": (
        {"plan.pp": 15},
        InfeasibleError,
        "tp x cp x pp = 15 must divide the 2048 GPUs of the cluster, unless plan.dp says how many",
    ),
    "too few micro-batches": (
        {"batch.sequences": 2048},
        InfeasibleError,
        "dualpipe needs at least 2 pp = 32 micro-batches per pipeline, got 16",
    ),
    "sequences that do not divide": (
        {"batch.sequences": 15361},
        InfeasibleError,
        "batch.sequences: must be a multiple of dp x microbatch_sequences (128 x 1 = 128)",
    ),
    "a layout that misses a layer": (
        {"plan.layout": "3d+1m, 14*4m, mtp+2heads"},
        InfeasibleError,
        "plan.layout: misses a unit, deepseek-v3 has 58 x moe layer, got 57",
    ),
    "a layout that repeats a layer": (
        {"plan.layout": "3d+1m, 14*4m, 2m+mtp+2heads"},
        InfeasibleError,
        "plan.layout: repeats a unit, deepseek-v3 has 58 x moe layer, got 59",
    ),
    "memory over capacity": (
        {"cluster.node.chip.hbm_capacity_bytes": "74 GB"},
        InfeasibleError,
        "memory of pipeline rank 1: needs 75.9 GB (activations 43.5 GB, gradients 13.1 GB, "
        "weights 6.55 GB ...), the GPU has 74 GB",
    ),
    "unknown schedule": (
        {"plan.schedule": "dualpip"},
        SpecError,
        "plan.schedule: 'dualpip' is unknown; did you mean 'dualpipe'?",
    ),
    "no SMs to compute on": (
        {"communication.sms": 132},
        SpecError,
        "communication.sms: must leave SMs to compute, at most 131 on h800, got 132",
    ),
    "unknown wire format": (
        {"communication.dispatch": "fp4"},
        SpecError,
        "should be 'fp8' or 'bf16', got",
    ),
    "zero sequences": ({"batch.sequences": 0}, SpecError, "batch.sequences:"),
    "negative spread": ({"ranks.expert_load.sigma": -0.1}, SpecError, "ranks.expert_load.sigma:"),
    "a spread that is no number": (
        {"ranks.expert_load.sigma": float("nan")},
        SpecError,
        "ranks.expert_load.sigma: input should be a finite number, got nan",
    ),
    "a kind of load that is not drawn": (
        {"ranks.expert_load.kind": "normal"},
        SpecError,
        "ranks.expert_load.kind: input should be 'balanced', 'lognormal', 'zipf', 'matrix' or "
        "'measured'",
    ),
    "a correlation above 1": (
        {"ranks.expert_load.correlation": 1.5},
        SpecError,
        "ranks.expert_load.correlation: input should be less than or equal to 1, got 1.5",
    ),
    "a matrix without loads": (
        {"ranks.expert_load.kind": "matrix"},
        SpecError,
        "ranks.expert_load: kind = 'matrix' and 'loads' come together",
    ),
    "loads without a matrix": (
        {"ranks.expert_load.loads": [[1.0] * 64]},
        SpecError,
        "ranks.expert_load: kind = 'matrix' and 'loads' come together",
    ),
    "loads for other ranks": (
        {"ranks.expert_load": {"kind": "matrix", "loads": [[1, 2]]}},
        SpecError,
        "ranks.expert_load.loads: rows must have plan.ep = 64 loads, got 2",
    ),
    "rows of two lengths": (
        {"ranks.expert_load": {"kind": "matrix", "loads": [[1] * 64, [1] * 63]}},
        SpecError,
        "loads: rows must be as long as the first, 64, got 63 in row 1",
    ),
    "a row of nothing": (
        {"ranks.expert_load": {"kind": "matrix", "loads": [[1] * 64, [0] * 64]}},
        SpecError,
        "loads: rows must have a load above 0, got none in row 1",
    ),
    "a load below nothing": (
        {"ranks.expert_load": {"kind": "matrix", "loads": [[-1] + [1] * 63]}},
        SpecError,
        "ranks.expert_load.loads.0.0: input should be greater than or equal to 0, got -1",
    ),
    "a straggler that is not there": (
        {"ranks.stragglers": [{"gpu": 2048, "slowdown": 2}]},
        SpecError,
        "ranks.stragglers: gpu must be from 0 to 2047, got 2048",
    ),
    "a straggler that is faster": (
        {"ranks.stragglers": [{"gpu": 3, "slowdown": 0.5}]},
        SpecError,
        "ranks.stragglers.0.slowdown: input should be greater than or equal to 1, got 0.5",
    ),
    "a straggler of another part": (
        {"ranks.stragglers": [{"gpu": 3, "part": "hbm", "slowdown": 2}]},
        SpecError,
        "ranks.stragglers.0.part: input should be 'gpu', 'nic' or 'nvlink', got 'hbm'",
    ),
    "a part that stands still": (
        {"ranks.stragglers": [{"gpu": 3, "slowdown": 1000}] * 3},
        SpecError,
        "ranks.stragglers: gpu of GPU 3: must be at most 1e+06 times as slow, got more",
    ),
    "exchanges that never end": (
        {"communication.exposed_rate": 0},
        SpecError,
        "communication.exposed_rate: input should be greater than 0.0001, got 0",
    ),
    "a chip without FP8": (
        {"cluster.node.chip": "a100"},
        SpecError,
        "fp8-blockwise multiplies in fp8, of which a100 has no tensor rate; use bf16",
    ),
    "a model without experts": (
        {"model": "llama3.1-405b"},
        InfeasibleError,
        "plan.ep: llama3.1-405b has no experts, must be 1, got 64",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line_with_exit_code_2(case):
    values, kind, message = REFUSED[case]
    error = refusal(values)
    assert type(error) is kind
    assert error.exit_code == 2
    assert message in str(error)
    assert "\n" not in str(error)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"none\.toml"):
        Experiment.load(tmp_path / "none.toml")


def test_a_file_that_is_not_toml_is_refused_in_one_line(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("model = = 3", encoding="utf-8")
    with pytest.raises(SpecError, match=r"bad\.toml") as error:
        Experiment.load(path)
    assert "\n" not in str(error.value)


def test_an_experiment_without_a_model_is_refused():
    with pytest.raises(SpecError, match="model: missing"):
        Experiment.from_values({"cluster": "h800-2048-mpft"})


def test_an_unknown_experiment_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownPresetError, match="did you mean 'deepseek-v3-pretrain'"):
        Experiment.load("deepseek-v3-pretrian")
