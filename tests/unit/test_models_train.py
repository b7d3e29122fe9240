"""Every model preset trains: each recipe, each schedule, priced by roofline or by a profile."""

import pytest

from hwmodels.errors import InfeasibleError, SpecError
from simulator import Experiment, run
from simulator.driver.program import program_of
from simulator.tell.facts.kernels import Kernels
from workloads.layout import default_layout, resolve_layout
from workloads.model import MODELS
from workloads.recipes import RECIPES
from workloads.schedules import SCHEDULES
from workloads.units import layout_text

SMALL = {
    "model.layers": 7,
    "cluster.nodes": 8,
    "plan.pp": 4,
    "plan.layout": "none",
    "batch.sequences": 160,
    "communication.dispatch": "none",
    "profile": "none",
    # Not to be had: whether a step fits is asked below.
    "cluster.node.chip.hbm_capacity_bytes": "4 TB",
}


def small(name, *changes):
    """Seven layers of a model on 64 GPUs: pp 4, two expert groups of 8, 10 micro-batches."""
    model = MODELS.load(name)
    dense = 7 if model.moe is None else min(model.dense_layers, 1)
    own = {"model": name, "model.dense_layers": dense, "plan.ep": 8 if model.moe else 1}
    return Experiment.load("deepseek-v3-pretrain").with_overrides(own | SMALL | dict(changes))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_trains_with_every_recipe_and_schedule(name, recipe, schedule):
    """The step does the model's FLOPs in less than the chip's peak allows, and no time is lost."""
    experiment = small(name, ("precision.recipe", recipe), ("plan.schedule", schedule))
    result = run(experiment)
    metrics = result.metrics
    assert result.provenance.time_share_by_basis == {"roofline of h800": 1}
    assert 0 < metrics.mfu_causal < (2 if recipe == "fp8-blockwise" else 1)
    assert sum(result.breakdown_s.values()) == pytest.approx(metrics.step_time_s, rel=1e-9)
    layers = [layer for stage in program_of(experiment).stages for layer in stage]
    assert [layer.kind for layer in layers][:7] == list(experiment.model.layer_kinds)


@pytest.mark.parametrize("name", ["mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v2-lite"])
def test_bf16_sends_and_multiplies_in_bf16(name):
    program = program_of(small(name, ("precision.recipe", "bf16")))
    works = [w for part in program.parts for segment in part.segments for w in segment.work]
    hidden = MODELS.load(name).hidden
    wire = {work.size_bytes for work in works if hasattr(work, "size_bytes")}
    assert wire == {2 * hidden}
    formats = {work.format.name for work in works if hasattr(work, "format")}
    assert formats == {"bf16"}
    assert all("fp8_weights" not in terms for terms in program.memory_bytes)


def test_a_bf16_recipe_may_send_tokens_in_fp8():
    """They are cast before they leave and as they are ordered by expert: 3 bytes an element."""
    wires = {}
    for wire in ("bf16", "fp8"):
        changes = ("precision.recipe", "bf16"), ("communication.dispatch", wire)
        program = program_of(small("mixtral-8x7b", *changes))
        works = {w for part in program.parts for segment in part.segments for w in segment.work}
        sizes = {w.name: w.bytes for w in works if w.name in ("permute", "permute dY")}
        casts = sorted(w.name for w in works if getattr(w, "family", "") == "cast")
        wires[wire] = sizes, casts
    rows = 4096 * 2 * 4096
    assert wires["bf16"] == ({"permute": rows * 4, "permute dY": rows * 4}, [])
    assert wires["fp8"] == (
        {"permute": rows * 3, "permute dY": rows * 3},
        ["cast dY for dispatch", "cast hidden for dispatch"],
    )


def test_a_profile_without_a_family_is_helped_out_and_says_so():
    """H800's has no grouped BF16 products: they are priced by the roofline and named."""
    result = run(small("qwen3-30b-a3b", ("precision.recipe", "bf16"), ("profile", "h800-deepseek")))
    stands_in = "roofline of h800, as profile h800-deepseek has no family bf16_grouped"
    shares = result.provenance.time_share_by_basis
    assert set(shares) == {"profile h800-deepseek", stands_in}
    grouped = result.fact(Kernels).compute_share["bf16_grouped"]
    assert shares[stands_in] == pytest.approx(grouped, rel=1e-9)
    assert f"kernels priced from {stands_in}" in result.provenance.notes


def test_a_step_that_does_not_fit_names_its_largest_terms():
    """405 billion parameters, two of four stages a rank under DualPipe, on 80 GB."""
    values = ("model.layers", 126), ("model.dense_layers", 126)
    real = ("cluster.node.chip.hbm_capacity_bytes", "80 GB"), ("precision.recipe", "bf16")
    with pytest.raises(
        InfeasibleError, match=r"needs 1\.65 TB \(gradients 816 GB, weights 408 GB, "
    ):
        run(small("llama3.1-405b", *values, *real))


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(
        SpecError, match=r"precision.recipe: 'bf61' is unknown; did you mean 'bf16'"
    ):
        small("mixtral-8x7b", ("precision.recipe", "bf61"))


def test_a_wire_that_the_recipe_does_not_write_is_refused_with_those_that_it_does():
    message = r"communication.dispatch: recipe fp8-blockwise sends tokens in fp8, got 'bf16'"
    with pytest.raises(SpecError, match=message):
        small("deepseek-v3", ("communication.dispatch", "bf16"))


# Dense and MoE layers in any order

ORDER = ("model.layer_order", "2*d+m, d, 2m"), ("model.dense_layers", 3)


def test_layers_come_in_the_order_of_the_model():
    """Pairs, then one dense layer, then two with experts; stages hold them in that order."""
    experiment = small("deepseek-v3", *ORDER, ("plan.pp", 2), ("plan.schedule", "1f1b"))
    kinds = ["dense", "moe", "dense", "moe", "dense", "moe", "moe"]
    assert list(experiment.model.layer_kinds) == kinds
    stages = program_of(experiment).stages
    assert [layer.kind for stage in stages for layer in stage] == [*kinds, "mtp", "head", "head"]
    assert layout_text(default_layout(experiment.model, 2)) == "1d+1m+1d+1m+1d, 2m+mtp+2heads"


def test_closed_forms_do_not_ask_where_a_layer_stands():
    first = small("deepseek-v3", ("model.dense_layers", 3)).model
    mixed = small("deepseek-v3", *ORDER).model
    assert mixed.total_parameters == first.total_parameters
    assert mixed.activated_parameters == first.activated_parameters
    flops = [each.flops_per_token(4096, causal=True) for each in (mixed, first)]
    assert flops[0] == flops[1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_interleaved_layers_are_played_by_every_schedule(schedule):
    result = run(small("deepseek-v3", *ORDER, ("plan.schedule", schedule)))
    assert result.metrics.step_time_s > 0


def test_a_prediction_module_is_of_the_kind_of_the_last_layer():
    """Dense here, so that no load is asked for it and no expert is held."""
    order = ("model.layer_order", "2*m+d, m, d, d"), ("model.dense_layers", 4)
    experiment = small("deepseek-v3", *order, ("model.layers", 7))
    model = experiment.model
    assert (model.last_layer_kind, model.moe_layers, model.routed_layers) == ("dense", 3, 3)
    layers = {layer.kind: layer for stage in program_of(experiment).stages for layer in stage}
    assert layers["mtp"].parameters.routed == 0
    assert not layers["mtp"].routed
    flops = model.mtp_flops_per_token(4096, causal=True)
    module = model.attention_parameters + model.ffn("dense").parameters(model.hidden)
    module += model.mtp_projection_parameters + model.head_parameters
    core = model.attention.core_flops_per_token(4096, causal=True)
    assert flops == 3 * (2 * module + core)


def test_a_layout_must_follow_the_order_of_the_model():
    model = small("deepseek-v3", *ORDER).model
    layout = resolve_layout("1d+1m+1d+1m, 1d+2m+mtp+2heads", model, 2)
    assert len(layout) == 2
    with pytest.raises(InfeasibleError, match=r"in the model's order \(2\*d\+m, d, 2m\), then mtp"):
        resolve_layout("3d+1m, 3m+mtp+2heads", model, 2)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("4d+3m", "must have dense_layers = 3 dense and 4 MoE layers, got 4 and 3"),
        ("3d+3m+mtp", r"'mtp' is no unit, write \[count\] and one of d, dense, m, moe$"),
        ("3d+4x", "'4x' is no unit"),
        ("3d**4m", "is no stage"),
    ],
)
def test_an_order_that_is_not_the_models_is_refused(order, message):
    with pytest.raises(SpecError, match=rf"layer_order.*{message}"):
        small("deepseek-v3", ("model.layer_order", order), ("model.dense_layers", 3))


# FFNs of another kind


def test_a_dense_ffn_may_be_a_table_of_its_kind():
    """`dense_ffn_width` is short for the common kind."""
    short = small("llama3.1-405b").model
    table = {"kind": "gated", "width": short.dense_ffn_width}
    told = small("llama3.1-405b", ("model.dense_ffn_width", 0), ("model.dense_ffn", table)).model
    assert told.ffn("dense") == short.ffn("dense")
    assert told.total_parameters == short.total_parameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.dense_ffn": {"kind": "gated", "width": 8}}, "instead of dense_ffn_width"),
        ({"model.dense_ffn_width": 0}, "dense_ffn_width: must be positive"),
        (
            {"model.dense_ffn_width": 0, "model.dense_ffn": {"kind": "gate", "width": 8}},
            "kind 'gate': unknown; did you mean 'gated'",
        ),
        ({"model.moe.kind": "gated"}, "model.moe"),
    ],
)
def test_an_ffn_that_cannot_be_is_refused(changes, message):
    with pytest.raises(SpecError) as refused:
        small("deepseek-v3", *changes.items())
    assert message in str(refused.value)
