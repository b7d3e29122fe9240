"""Published counts that follow from a model's shape alone; they must round to what was printed."""

import pytest

from workloads.model import MODELS

V3 = MODELS.load("deepseek-v3")
V2 = MODELS.load("deepseek-v2")
QWEN = MODELS.load("qwen2.5-72b")
LLAMA = MODELS.load("llama3.1-405b")


@pytest.mark.parametrize(("model", "printed"), [(V3, 70272), (QWEN, 327680), (LLAMA, 516096)])
def test_kv_bytes_per_token_are_those_of_isca25_table_1(model, printed):
    """ISCA'25 (arXiv 2505.09343) Table 1, BF16: 70.272, 327.680 and 516.096 KB."""
    assert model.kv_bytes_per_token() == printed


def test_serving_with_mtp_adds_one_layer_of_kv():
    """62 layers instead of 61: 71,424 bytes (FlashMLA docs/20250929)."""
    assert V3.kv_bytes_per_token(mtp=True) == 71424


@pytest.mark.parametrize(("model", "printed", "digits"), [(V3, 250, 249.81), (V2, 155, 155.01)])
def test_training_flops_per_token_are_those_of_isca25_table_2(model, printed, digits):
    """ISCA'25 Table 2: 250 and 155 GFLOP per token at S = 4096, causal attention."""
    gflops = model.flops_per_token(4096, causal=True) / 1e9
    assert round(gflops) == printed
    assert round(gflops, 2) == digits


def test_v3_flops_reproduce_both_conventions_of_isca25_table_4():
    """1541.70 tokens/s/GPU at 249.811 and 280.514 GFLOP are 385 and 432 TFLOPS."""
    causal, full = (V3.flops_per_token(4096, causal=c) for c in (True, False))
    assert round(causal / 1e9, 3) == 249.811
    assert round(full / 1e9, 3) == 280.514
    rate = 15360 * 4096 / 19.926 / 2048
    assert [round(rate * flops / 1e12) for flops in (causal, full)] == [385, 432]
    assert [round(rate * flops / 989e12 * 100, 2) for flops in (causal, full)] == [38.94, 43.73]


def test_llama_flops_are_near_the_printed_figure():
    """Table 2 prints 2448; the public shape gives 2473.2 (what it leaves out is unknown)."""
    assert LLAMA.flops_per_token(4096, causal=True) / 1e9 == pytest.approx(2473.2, abs=0.05)


def test_flops_that_papers_leave_out_are_counted_apart():
    """MTP: one MoE layer, its projection and a second head are 10.2 (causal) and 10.7 GFLOP."""
    assert round(V3.mtp_flops_per_token(4096, causal=True) / 1e9, 1) == 10.2
    assert round(V3.mtp_flops_per_token(4096, causal=False) / 1e9, 1) == 10.7
    assert V2.mtp_flops_per_token(4096, causal=True) == 0


def test_v3_parameter_counts_are_those_of_its_weights_file():
    """README_WEIGHTS of deepseek-ai/DeepSeek-V3: 671 B, MTP 11.5 B unique and 2.4 B activated.

    The file's MTP figures leave out the 102.8 M projection; 36.7 B activated is 36.63 B computed
    with router and head, without the embedding.
    """
    assert V3.total_parameters == 671_026_404_352
    assert round(V3.activated_parameters / 1e9, 2) == 36.63
    assert round(V3.gemm_parameters / 1e9, 4) == 36.5182
    assert round((V3.mtp_parameters - V3.mtp_projection_parameters) / 1e9, 1) == 11.5
    assert round((V3.mtp_activated_parameters - V3.mtp_projection_parameters) / 1e9, 1) == 2.4
    assert round(V3.mtp_projection_parameters / 1e6, 1) == 102.8


def test_v3_pieces_are_those_of_the_digest():
    """MLA 187.105 M a layer, dense FFN 396.36 M, an expert 44.040 M, the head 129280 x 7168."""
    assert V3.attention_parameters == 187_105_280
    assert V3.ffn("dense").parameters(V3.hidden) == 396_361_728
    assert V3.expert_parameters == 44_040_192
    assert V3.head_parameters == 129280 * 7168


@pytest.mark.parametrize(("model", "billions"), [(V2, 235.7), (QWEN, 72.7), (LLAMA, 405.9)])
def test_other_models_have_their_published_size(model, billions):
    """236 B (arXiv 2405.04434), 72.7 B (Qwen2.5-72B's model card), 405 B or 406 (its weights)."""
    assert round(model.total_parameters / 1e9, 1) == billions


def test_v2_activates_21_billion():
    """DeepSeek-V2 (arXiv 2405.04434), abstract: 21 B activated per token."""
    assert round(V2.activated_parameters / 1e9) == 21


LITE = MODELS.load("deepseek-v2-lite")
MIXTRAL = MODELS.load("mixtral-8x7b")
QWEN3 = MODELS.load("qwen3-30b-a3b")
LARGE_QWEN3 = MODELS.load("qwen3-235b-a22b")


@pytest.mark.parametrize(
    ("model", "billions"),
    [(MIXTRAL, 46.7), (QWEN3, 30.5), (LITE, 15.7)],
)
def test_models_with_experts_have_their_published_size(model, billions):
    """Mistral AI, "Mixtral of experts" (2023); model card of Qwen3-30B-A3B; arXiv 2405.04434
    appendix B.
    """
    assert round(model.total_parameters / 1e9, 1) == billions


def test_the_large_qwen3_has_235_billion_and_activates_22():
    """Model card of Qwen3-235B-A22B: 235B in total, 234B without the embedding, 22B activated."""
    assert round(LARGE_QWEN3.total_parameters / 1e9) == 235
    tables = LARGE_QWEN3.embedding_parameters + LARGE_QWEN3.head_parameters
    assert round((LARGE_QWEN3.total_parameters - tables) / 1e9) == 234
    assert round(with_embedding(LARGE_QWEN3)) == 22


def with_embedding(model):
    """Billions that a token meets where its row of the embedding counts as the whole table."""
    return (model.activated_parameters + model.embedding_parameters) / 1e9


def test_mixtral_uses_12_9_billion_a_token():
    """Mistral AI, "Mixtral of experts" (2023): 12.9B parameters per token, embedding included."""
    assert round(with_embedding(MIXTRAL), 1) == 12.9


def test_qwen3_activates_3_3_billion_and_has_29_9_without_its_tables():
    """Model card of Qwen3-30B-A3B: 3.3B activated is cut off 3.35, embedding included."""
    assert int(with_embedding(QWEN3) * 10) / 10 == 3.3
    tables = QWEN3.embedding_parameters + QWEN3.head_parameters
    assert round((QWEN3.total_parameters - tables) / 1e9, 1) == 29.9


def test_v2_lite_activates_2_4_billion():
    """arXiv 2405.04434 appendix B: 2.4 is cut off 2.45, head included and embedding not."""
    assert int(LITE.activated_parameters / 1e8) / 10 == 2.4


@pytest.mark.parametrize(
    ("model", "layers", "elements"),
    [
        (MIXTRAL, 32, 2 * 8 * 128),
        (QWEN3, 48, 2 * 4 * 128),
        (LARGE_QWEN3, 94, 2 * 4 * 128),
        (LITE, 27, 512 + 64),
    ],
)
def test_kv_bytes_are_two_of_each_key_and_value(model, layers, elements):
    """Keys and values of every KV head, or one latent and one rotary key, in BF16."""
    assert model.kv_bytes_per_token() == layers * elements * 2


@pytest.mark.parametrize(
    ("model", "weights", "heads", "depth"),
    [
        # Attention q, k, v, o; experts a token visits; head.
        (MIXTRAL, 32 * (4096 * 128 * 80 + 2 * 3 * 4096 * 14336) + 32000 * 4096, 32, 256),
        (QWEN3, 48 * (2048 * 128 * 72 + 8 * 3 * 2048 * 768) + 151936 * 2048, 32, 256),
        (
            LITE,
            # q, kv_a, kv_b, o of 27 layers; one dense FFN, 26 of 2 + 6 experts.
            27 * (2048 * 3072 + 2048 * 576 + 512 * 4096 + 2048 * 2048)
            + 3 * 2048 * (10944 + 26 * 8 * 1408)
            + 102400 * 2048,
            16,
            320,
        ),
    ],
)
def test_flops_are_six_a_weight_and_the_scores(model, weights, heads, depth):
    """6 P + 3 L S heads (d_qk + d_v) of a causal core at S = 4096; P without router and norms."""
    core = 3 * model.layers * 4096 * heads * depth
    assert model.gemm_parameters == weights
    expected = 6 * weights + core
    assert model.flops_per_token(4096, causal=True) == expected


def test_qk_norms_are_a_vector_of_one_head_each():
    assert QWEN3.attention.vector_parameters() == 2 * 128
    assert MIXTRAL.attention.vector_parameters() == 0
