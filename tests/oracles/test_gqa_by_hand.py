"""A layer of grouped queries in BF16, kernel by kernel, against a list written by hand.

Two sequences of 8 tokens (t = 16), hidden 8, four query heads and two key heads of depth 2 (queries
8, keys 4, values 4 columns: 16 in all), FFN of width 12. Bytes: BF16 tensors read and written.
"""

import pytest

from workloads.blocks import Site
from workloads.blocks.ffn import GatedFFN
from workloads.blocks.gqa import GQASpec
from workloads.recipes import recipe

T, H, Q, KV, QKV, W = 16, 8, 8, 4, 16, 12
SITE = Site(H, sequences=2, length=8, recipe=recipe("bf16"))
GQA = GQASpec(heads=4, kv_heads=2, d_head=2)
FFN = GatedFFN(width=W)
PAIRS = 2 * 4 * 8 * 8 / 2  # causal scores of two sequences, all heads


def product(m, n, k, element=2):
    """Family, launches, FLOPs, bytes: two operands read, the result of `element` bytes moved."""
    return "bf16_narrow", 1, 2 * m * n * k, (m * k + n * k) * 2 + m * n * element


def wgrad(m, n, k):
    """Added to an FP32 gradient, which is read and written."""
    family, *sizes = product(m, n, k, element=8)
    return f"{family}_wgrad", *sizes


def memory(family, size, launches=1):
    return family, launches, 0, size


ATTENTION = {
    "F": [
        memory("add_norm", T * H * 8),  # x, residual in; their sum and the norm of it out
        product(T, QKV, H),
        memory("rotary", T * (Q + KV) * 4, 2),  # queries, then keys, in place
        ("attention_forward", 1, 2 * PAIRS * (2 + 2), T * (2 * Q + 2 * KV) * 2),
        product(T, H, Q),
    ],
    "B": [
        product(T, Q, H),  # dO
        memory("copy", T * (Q + Q) * 4),  # O and dO in, the FP32 sum of dQ cleared
        ("attention_backward", 1, 2 * PAIRS * (3 * 2 + 2 * 2), T * (2 * Q + 2 * KV) * 4),
        memory("copy", T * Q * 6),  # FP32 dQ to BF16
        memory("copy", T * 2 * KV * 10, 4),  # dK and dV of shared heads cleared, to BF16
        memory("rotary", T * (Q + KV) * 4, 2),
        memory("copy", T * QKV * 4),  # dQ, dK, dV side by side
        product(T, H, QKV),  # dX
        memory("elementwise", T * H * 6),  # added to the residual's gradient
        memory("norm_backward", T * H * 10, 3),
    ],
    "W": [wgrad(Q, H, T), wgrad(H, QKV, T)],
}
FFN_WORK = {
    "F": [
        memory("add_norm", T * H * 8),
        product(T, 2 * W, H),
        memory("swiglu", T * 3 * W * 2),
        product(T, H, W),
    ],
    "B": [
        product(T, W, H),
        memory("swiglu", T * 5 * W * 2),  # gate, up and the gradient in, two gradients out
        product(T, H, 2 * W),
        memory("elementwise", T * H * 6),
        memory("norm_backward", T * H * 10, 3),
    ],
    "W": [wgrad(W, H, T), wgrad(H, 2 * W, T)],
}


def written(passes, pass_):
    return [(op.family, op.launches, op.flops, op.bytes) for op in passes.of(pass_)]


@pytest.mark.parametrize("pass_", "FBW")
def test_attention_runs_these_kernels_in_this_order(pass_):
    assert written(GQA.passes(SITE), pass_) == ATTENTION[pass_]


@pytest.mark.parametrize("pass_", "FBW")
def test_the_ffn_runs_these_kernels_in_this_order(pass_):
    assert written(FFN.passes(SITE), pass_) == FFN_WORK[pass_]
    assert not FFN.entry(SITE).of(pass_)


def test_a_bias_costs_the_sum_of_its_gradient():
    """Added in the product's epilogue; dQ, dK and dV are read once more, over rows."""
    biased = GQA.model_copy(update={"qkv_bias": True}).passes(SITE)
    assert written(biased, "F") == ATTENTION["F"]
    assert written(biased, "B") == [
        *ATTENTION["B"][:7],
        memory("elementwise", T * QKV * 2),
        *ATTENTION["B"][7:],
    ]


def test_norms_of_heads_stand_before_positions():
    """Heads are read and written; backward they and their gradients are read, one written."""
    normed = GQA.model_copy(update={"qk_norm": True}).passes(SITE)
    columns = Q + KV
    forward, backward = ATTENTION["F"], ATTENTION["B"]
    norm = memory("add_norm", T * columns * 4, 2)
    assert written(normed, "F") == [*forward[:2], norm, *forward[2:]]
    norm = memory("norm_backward", T * columns * 6, 6)
    assert written(normed, "B") == [*backward[:6], norm, *backward[6:]]
    kept = normed.saved_bytes - GQA.passes(SITE).saved_bytes
    assert kept == T * columns * 2


def test_heads_of_their_own_sum_no_gradients_of_keys():
    """Multi-head attention: every query head has its key head."""
    several = GQA.model_copy(update={"kv_heads": 4}).passes(SITE)
    assert len(several.backward) == len(ATTENTION["B"]) - 1


def test_what_is_kept_is_what_arxiv_2205_05198_counts():
    """§4.1, s b h = T H elements of 2 bytes: inputs of norms, of the projection, queries, keys and
    values, input of the output projection, inputs of both linears of the FFN and of its activation
    (two of them for SwiGLU); instead of scores an FP32 sum a head.
    """
    attention = 2 * H + 2 * H + 2 * QKV + 2 * Q + 4 * 4
    ffn = 2 * H + 2 * H + 2 * (2 * W) + 2 * W
    assert GQA.passes(SITE).saved_bytes == T * attention
    assert FFN.passes(SITE).saved_bytes == T * ffn
