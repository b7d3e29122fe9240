"""Ops: FLOPs, bytes and family of each kind, written out by hand."""

import numpy as np
import pytest

from hwmodels.formats import FORMATS
from tests.layer_work import exchange
from workloads.ops import Attention, DecodeAttention, Gemm, MemoryOp
from workloads.shapes import cost_shape

BF16, FP8 = FORMATS["bf16"], FORMATS["fp8_1x128"]


@pytest.mark.parametrize("role", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_product_takes_two_flops_for_each_multiply_add_whatever_its_groups(role, groups):
    """Rows (of a weight gradient: the depth) are counted over all groups: 2 m n k."""
    assert Gemm("x", 100, 30, 7, FP8, role, groups).flops == 2 * 100 * 30 * 7


def test_a_product_reads_its_operands_once_and_writes_bf16():
    """FP8: 8 x 4 and 4 x 6 elements of one byte, 8 x 6 of two. BF16: two bytes each."""
    assert Gemm("x", 8, 6, 4, FP8).bytes == 8 * 4 + 4 * 6 + 8 * 6 * 2
    assert Gemm("x", 8, 6, 4, BF16, "dgrad").bytes == (8 * 4 + 4 * 6 + 8 * 6) * 2


def test_an_operand_may_be_wider_in_memory_than_where_it_is_multiplied():
    """Activations of two bytes, weights of one; a weight gradient of two kinds of activations."""
    assert Gemm("x", 8, 6, 4, FP8, groups=3, in_memory=(2, 1)).bytes == (
        2 * 8 * 4 + 3 * 4 * 6 + 8 * 6 * 2
    )
    wgrad = Gemm("x", 8, 6, 4, FP8, "wgrad", in_memory=(1, 2))
    assert wgrad.bytes == 8 * 4 + 2 * 6 * 4 + 8 * 6 * 8
    shape = cost_shape([wgrad], np.ones((1, 1)))
    assert (shape["element_bytes"], shape["operand_bytes"]) == (1, (1, 2))
    assert "operand_bytes" not in cost_shape([Gemm("x", 8, 6, 4, FP8)], np.ones((1, 1)))


def test_each_group_has_a_weight_of_its_own():
    """Three experts: 8 rows together, three weights of 4 x 6."""
    assert Gemm("x", 8, 6, 4, FP8, groups=3).bytes == 8 * 4 + 3 * 4 * 6 + 8 * 6 * 2
    once = (8 + 6) * 4  # the depth is shared out, so operands do not multiply
    assert Gemm("x", 8, 6, 4, FP8, "wgrad", groups=3).bytes == once + 3 * 8 * 6 * 8


def test_a_weight_gradient_is_accumulated_in_fp32():
    """Read and written, 8 bytes an element, whatever the operands."""
    assert Gemm("x", 8, 6, 4, FP8, "wgrad").bytes == (8 + 6) * 4 + 8 * 6 * 8
    assert Gemm("x", 8, 6, 4, BF16, "wgrad").bytes == (8 + 6) * 4 * 2 + 8 * 6 * 8


@pytest.mark.parametrize(
    ("number_format", "role", "groups", "family"),
    [
        (FP8, "fprop", 1, "fp8_block"),
        (FP8, "dgrad", 1, "fp8_block"),
        (FP8, "fprop", 4, "fp8_block_grouped"),
        (FP8, "dgrad", 4, "fp8_block_grouped"),
        (FP8, "wgrad", 1, "fp8_block_wgrad"),
        (FP8, "wgrad", 4, "fp8_block_wgrad"),
        (BF16, "fprop", 1, "bf16"),
        (BF16, "wgrad", 1, "bf16"),
    ],
)
def test_the_family_of_a_product_follows_format_role_and_groups(
    number_format, role, groups, family
):
    assert Gemm("x", 1024, 1024, 1024, number_format, role, groups).family == family


@pytest.mark.parametrize("narrow", [1, 256, 512])
def test_a_bf16_product_with_one_narrow_side_is_a_family_of_its_own(narrow):
    """Whichever side it is; FP8 kernels have one tile anyway."""
    for place in range(3):
        sides = [4096, 4096, 4096]
        sides[place] = narrow
        assert Gemm("x", *sides, BF16).family == "bf16_narrow"
        assert Gemm("x", *sides, BF16, "dgrad").family == "bf16_narrow"
        assert Gemm("x", *sides, BF16, "wgrad").family == "bf16_narrow_wgrad"
        assert Gemm("x", *sides, FP8).family == "fp8_block"
    assert Gemm("x", 4096, 513, 4096, BF16).family == "bf16"


def attention(**changes):
    shape = {"sequences": 2, "length": 64, "heads": 8, "kv_heads": 2, "d_qk": 24, "d_v": 16}
    return Attention("x", **shape | changes)


def test_attention_multiplies_queries_by_keys_and_weights_by_values():
    """2 products of the square: 2 S^2 heads (d_qk + d_v) a sequence; the triangle is half."""
    square = 2 * 64 * 64 * 8 * (24 + 16) * 2
    assert attention(causal=False).flops == square
    assert attention().flops == square / 2


def test_attention_backward_takes_five_products_for_two():
    """3 d_qk + 2 d_v: 2.5 times forward for equal depths, 2.6 for MLA's 192 and 128."""
    equal = {"d_qk": 128, "d_v": 128}
    assert attention(backward=True, **equal).flops == 2.5 * attention(**equal).flops
    mla = {"d_qk": 192, "d_v": 128}
    assert attention(backward=True, **mla).flops == 2.6 * attention(**mla).flops


def test_attention_moves_q_k_v_and_o_once_and_backward_their_gradients_too():
    """Two bytes for each of 8 heads of q and o, 2 heads of k and v, over 128 tokens."""
    once = 128 * (8 * (24 + 16) + 2 * (24 + 16)) * 2
    assert attention().bytes == once
    assert attention(backward=True).bytes == 2 * once
    assert attention().family == "attention_forward"
    assert attention(backward=True).family == "attention_backward"


def test_only_memory_ops_take_several_launches_and_none_of_them_counts_flops():
    copy = MemoryOp("x", "copy", 100.0, launches=3)
    assert (copy.flops, copy.bytes, copy.launches) == (0, 100, 3)
    assert Gemm("x", 1, 1, 1, FP8, groups=4).launches == 1
    assert attention().launches == 1


def test_a_token_of_v3_is_7392_bytes_on_the_way_out_and_14336_on_the_way_home():
    """7168 FP8 values with an FP32 scale for each 128; 7168 BF16 values (table4_chain.md §2)."""
    out, home = (exchange(kind, tokens=4096) for kind in ("dispatch", "combine"))
    assert out.size_bytes == 7168 + 7168 / 128 * 4 == 7392
    assert home.size_bytes == 7168 * 2 == 14336
    assert home.token_bytes == 4096 * 14336


def test_decoding_reads_the_cache_once_for_all_heads():
    """Two sequences of 10 tokens, 3 heads, keys of 5 channels and values of 4: by hand."""
    op = DecodeAttention("x", 2, 10, 3, 5, 4)
    assert (op.family, op.launches) == ("mla_decode", 1)
    assert op.flops == 2 * 2 * 3 * 10 * (5 + 4)
    assert op.bytes == 2 * (2 * 10 * 5 + 2 * 3 * (5 + 4))


def test_a_latent_of_a_decoding_layer_is_key_and_value_at_once():
    shape = cost_shape([DecodeAttention("x", 2, 10, 3, 5, 4)], np.ones((1, 1)))
    assert {name: np.ravel(value).tolist() for name, value in shape.items()} == {
        "sequences": [2], "kv_length": [10], "heads": [3], "kv_heads": [1], "d_qk": [5], "d_v": [4],
        "kv_token_bytes": [10],
    }  # fmt: skip
