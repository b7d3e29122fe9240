"""Latent attention whose queries have no latent (DeepSeek-V2-Lite), against a list written by hand.

Two sequences of 8 tokens (t = 16), hidden 8, two heads: keys of 4 + 2 (rotary), values of 3, a
latent of 6. Queries are 12 columns, what kv_a gives 8, what kv_b gives 14, values 6.
"""

import pytest

from workloads.blocks import Site
from workloads.blocks.mla import MLASpec
from workloads.recipes import recipe

T, H, Q, LATENT, KV_A, KV_B, V, ROTARY = 16, 8, 12, 6, 8, 14, 6, 4
PAIRS = 2 * 2 * 8 * 8 / 2  # causal scores of two sequences, both heads
LITE = MLASpec(heads=2, kv_lora_rank=LATENT, d_nope=4, d_rope=2, d_v=3)


def site(name):
    return Site(H, sequences=2, length=8, recipe=recipe(name))


def product(m, n, k, element=2):
    return "bf16_narrow", 1, 2 * m * n * k, (m * k + n * k) * 2 + m * n * element


def wgrad(m, n):
    family, *sizes = product(m, n, T, element=8)
    return f"{family}_wgrad", *sizes


def memory(family, size, launches=1):
    return family, launches, 0, size


LISTED = {
    "F": [
        memory("add_norm", T * H * 8),
        product(T, Q, H),
        product(T, KV_A, H),
        memory("low_rank", T * LATENT * 4),
        memory("low_rank", T * KV_A * 4, 2),  # latent and rotary key
        product(T, KV_B, LATENT),
        memory("rotary", T * 2 * 4),
        memory("copy", T * 8 * 4),  # keys of all heads
        memory("rotary", T * ROTARY * 2),  # one rotary key for all of them
        memory("rotary", T * ROTARY * 4),
        ("attention_forward", 1, 2 * PAIRS * (6 + 3), T * 2 * 2 * (6 + 3) * 2),
        product(T, H, V),
        memory("elementwise", T * H * 4),
    ],
    "B": [
        memory("elementwise", T * H * 4),
        product(T, V, H),
        memory("copy", T * (V + Q) * 4),
        ("attention_backward", 1, 2 * PAIRS * (3 * 6 + 2 * 3), T * 2 * 2 * (6 + 3) * 4),
        memory("copy", T * Q * 6),
        memory("rotary", T * (ROTARY + 2) * 4, 2),
        memory("rotary", T * ROTARY * 2),
        memory("copy", T * KV_B * 4, 2),
        product(T, LATENT, KV_B),
        memory("small", 0, 3 + 5),  # one norm, slices
        product(T, H, KV_A),
        product(T, H, Q),
        memory("elementwise", T * H * 6),
        memory("norm_backward", T * H * 10, 3),
    ],
    "W": [wgrad(V, H), wgrad(LATENT, KV_B), wgrad(H, KV_A), wgrad(H, Q)],
}


def written(passes, pass_):
    return [(op.family, op.launches, op.flops, op.bytes) for op in passes.of(pass_)]


@pytest.mark.parametrize("pass_", "FBW")
def test_latent_attention_runs_these_kernels_in_this_order(pass_):
    assert written(LITE.passes(site("bf16")), pass_) == LISTED[pass_]


def test_bf16_keeps_queries_keys_and_values_and_what_they_come_from():
    """Norm in and out, queries, latent and rotary key, normed latent, keys, values, their output,
    and an FP32 sum a head.
    """
    elements = H + H + Q + KV_A + LATENT + Q + V + V
    assert LITE.passes(site("bf16")).saved_bytes == T * (2 * elements + 2 * 4)


def test_fp8_computes_keys_and_values_again_but_not_queries():
    """There is no latent they would come from: they are kept, keys and values are not."""
    passes = LITE.passes(site("fp8-blockwise"))
    again = [op.name for op in passes.backward if op.name.endswith(" again") and op.flops]
    assert again == ["kv_b again"]
    output = V * (1.5 + 1 / 128 * 4)  # E5M6 and scales
    assert passes.saved_bytes == T * (2 * (H + Q + KV_A) + output + 2 * 4)


def test_a_query_latent_is_two_linears_and_a_norm_more():
    """And one linear less: queries come from the latent, and are computed again from it."""
    lite, full = (
        spec.passes(site("fp8-blockwise"))
        for spec in (LITE, LITE.model_copy(update={"q_lora_rank": 4}))
    )
    for pass_, more in (("F", 1), ("B", 2), ("W", 1)):
        count = [sum(op.flops > 0 for op in passes.of(pass_)) for passes in (lite, full)]
        assert count[1] - count[0] == more, pass_
    scales = [
        sum(op.launches for op in passes.backward if "scale transposes" in op.name)
        for passes in (lite, full)
    ]
    assert scales == [5, 7]
