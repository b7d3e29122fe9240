"""Model specs: presets are sourced and survive a round trip, wrong ones are refused in one line."""

import pytest

from hwmodels.errors import SpecError, UnknownPresetError
from hwmodels.formats import FORMATS
from hwmodels.spec import validate
from workloads.blocks import AttentionCore
from workloads.blocks.gqa import GQASpec
from workloads.blocks.mla import MLASpec
from workloads.blocks.moe import MoESpec
from workloads.model import MODELS, ModelSpec

TINY = {
    "name": "tiny",
    "layers": 3,
    "hidden": 8,
    "vocabulary": 100,
    "attention": {"kind": "gqa", "heads": 2, "kv_heads": 1, "d_head": 4},
    "dense_ffn_width": 16,
    "dense_layers": 1,
    "moe": {"routed_experts": 4, "shared_experts": 1, "top_k": 2, "expert_width": 4},
}


def numbers(values, path=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{path}{key}.")
        elif isinstance(value, (int, float)):
            yield f"{path}{key}"


@pytest.mark.parametrize("name", MODELS.names())
def test_every_number_of_a_preset_has_a_source(name):
    document = MODELS.document(name)
    unsourced = [path for path in numbers(document.values) if document.source_of(path) is None]
    assert unsourced == []


@pytest.mark.parametrize("name", MODELS.names())
def test_a_preset_survives_json_and_can_be_a_key(name):
    model = MODELS.load(name)
    assert ModelSpec.model_validate_json(model.model_dump_json()) == model
    assert {model: name}[model] == name


def test_counts_of_a_tiny_model_are_those_done_by_hand():
    """Attention 8*4*2*(2+1) = 192; FFN 3*8*16 = 384; expert 3*8*4 = 96; router 32; two norms 16."""
    model = validate(ModelSpec, TINY)
    assert model.layer_parameters("dense") == 192 + 16 + 384
    assert model.layer_parameters("moe") == 192 + 16 + 32 + 5 * 96
    assert model.layer_parameters("moe", activated=True) == 192 + 16 + 32 + 3 * 96
    assert model.total_parameters == 2 * 800 + 592 + 2 * 720 + 8
    assert model.activated_parameters == 800 + 592 + 2 * 528 + 8
    assert model.gemm_parameters == 3 * 192 + 384 + 2 * 3 * 96 + 800
    core = 2 * 10 * 2 * (4 + 4)
    assert model.flops_per_token(10, causal=False) == 3 * (2 * model.gemm_parameters + 3 * core)
    assert model.flops_per_token(10, causal=True) == 3 * (2 * model.gemm_parameters + 3 * core / 2)
    assert model.kv_bytes_per_token() == 3 * 2 * 1 * 4 * 2


def test_a_tied_embedding_is_stored_once_but_still_multiplies():
    model, tied = validate(ModelSpec, TINY), validate(ModelSpec, TINY | {"tied_embedding": True})
    assert model.total_parameters - tied.total_parameters == 800
    assert model.gemm_parameters == tied.gemm_parameters


def test_mla_without_a_query_latent_projects_in_one_step():
    """DeepSeek-V2-Lite has no q_lora_rank."""
    shape = {"heads": 2, "kv_lora_rank": 8, "d_nope": 4, "d_rope": 2, "d_v": 4}
    one_step, two_steps = MLASpec(**shape), MLASpec(**shape, q_lora_rank=4)
    assert one_step.projection_parameters(16) - two_steps.projection_parameters(16) == (
        16 * 12 - (16 * 4 + 4 * 12)
    )
    assert (one_step.vector_parameters(), two_steps.vector_parameters()) == (8, 12)
    assert one_step.core == AttentionCore(heads=2, kv_heads=2, d_qk=6, d_v=4)


def test_gqa_biases_count_as_vectors():
    plain, biased = (GQASpec(heads=4, kv_heads=2, d_head=8, qkv_bias=b) for b in (False, True))
    assert plain.vector_parameters() == 0
    assert biased.vector_parameters() == (4 + 2 * 2) * 8
    assert plain.projection_parameters(32) == biased.projection_parameters(32)


def test_a_scaled_format_adds_its_scales_to_the_kv_cache():
    model = MODELS.load("qwen2.5-72b")
    expected = model.layers * 2048 * (1 + 4 / 128)
    assert model.kv_bytes_per_token(FORMATS["fp8_1x128"]) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense_layers": 4}, "at most layers"),
        ({"dense_layers": 3}, "'moe' must be left out"),
        ({"moe": None}, "'moe' must be given"),
        ({"dense_ffn_width": 0}, "dense_ffn_width: must be positive"),
        ({"hidden": 0}, "hidden: input should be greater than or equal to 1, got 0"),
        ({"hiden": 8}, "hiden: unknown key; did you mean 'hidden'?"),
        ({"attention": {"kind": "mqa", "heads": 2}}, "kind 'mqa': unknown"),
        ({"attention": {"kind": "gqa", "heads": 2}}, "attention.kv_heads: missing"),
        ({"moe": TINY["moe"] | {"top_k": 5}}, "top_k: at most the experts of the chosen groups"),
        ({"moe": TINY["moe"] | {"groups": 3}}, "groups: must divide routed_experts"),
        ({"moe": TINY["moe"] | {"groups_per_token": 2}}, "groups_per_token: at most groups"),
        (
            {"attention": {"kind": "gqa", "heads": 8, "kv_heads": 5, "d_head": 4}},
            "kv_heads: must divide heads (8), got 5",
        ),
        (
            {"attention": {"kind": "gqa", "heads": 2, "kv_heads": 4, "d_head": 4}},
            "kv_heads: must divide heads (2), got 4",
        ),
        (
            {
                "dense_ffn_width": 0,
                "dense_ffn": {
                    "kind": "moe",
                    "routed_experts": 4,
                    "top_k": 2,
                    "expert_width": 4,
                },
            },
            "must be one without experts, which are 'moe', got 'moe'",
        ),
        ({"layer_order": "999*999m," * 999 + "d"}, "at most 4,096 units"),
    ],
)
def test_an_impossible_model_is_refused_in_one_line(changes, message):
    with pytest.raises(SpecError) as error:
        validate(ModelSpec, TINY | changes, "tiny")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(UnknownPresetError, match="did you mean 'deepseek-v3'"):
        MODELS.load("deepseek-v33")


def test_groups_of_v3_hold_enough_experts():
    moe = MODELS.load("deepseek-v3").moe
    assert isinstance(moe, MoESpec)
    assert (moe.groups, moe.groups_per_token, moe.top_k) == (8, 4, 8)
