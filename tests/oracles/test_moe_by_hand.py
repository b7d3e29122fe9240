"""A layer of experts, kernel by kernel, against lists written by hand, in BF16 and in FP8.

16 tokens of hidden 8, four experts of width 12 of which a token visits two, two of them on this
rank: 32 rows on it, balanced. A token goes to 1.5 GPUs, so 24 arrive. No expert is shared.
"""

import pytest

from hwmodels.formats import FORMATS
from workloads.blocks import Site
from workloads.blocks.moe import MoESpec
from workloads.ops import Comm
from workloads.recipes import recipe

T, H, W, EXPERTS, LOCAL, ROWS, ARRIVED = 16, 8, 12, 4, 2, 32, 24
MOE = MoESpec(routed_experts=EXPERTS, top_k=2, expert_width=W)


def site(name, wire):
    return Site(H, 2, 8, recipe(name), local_experts=LOCAL, gpus_per_token=ARRIVED / T,
                dispatch=FORMATS[wire])  # fmt: skip


BF16 = site("bf16", "bf16")
FP8 = site("fp8-blockwise", "fp8_1x128")


def grouped(family, m, n, k, element):
    """Operands of `element` bytes, a weight an expert; the result in BF16."""
    size = (m + LOCAL * n) * k * element + m * n * 2
    return family, 1, 2 * m * n * k, size, True


def grouped_wgrad(family, m, n, k, element):
    """A gradient an expert, added to in FP32."""
    return family, 1, 2 * m * n * k, (m + n) * k * element + LOCAL * m * n * 8, True


def memory(family, size, launches=1, routed=False):
    return family, launches, 0, size, routed


def routed(family, size):
    return memory(family, size, routed=True)


EXPERTS_BF16 = {
    "F": [
        memory("expert_map", 0, 2),
        routed("permute", ROWS * H * (2 + 2)),
        grouped("bf16_grouped", ROWS, 2 * W, H, 2),
        routed("swiglu", ROWS * 3 * W * 2),
        grouped("bf16_grouped", ROWS, H, W, 2),
        routed("permute", (ROWS + ARRIVED) * H * 2),  # rows in, a sum for each token that came out
    ],
    "B": [
        routed("permute", ROWS * H * (2 + 2)),
        grouped("bf16_grouped", ROWS, W, H, 2),
        routed("swiglu", ROWS * 5 * W * 2),
        routed("swiglu", ROWS * 2 * W * 2),  # a row's weight: activation times its gradient
        grouped("bf16_grouped", ROWS, H, 2 * W, 2),
        routed("permute", (ROWS + ARRIVED) * H * 2),
    ],
    "W": [
        grouped_wgrad("bf16_grouped", W, H, ROWS, 2),
        grouped_wgrad("bf16_grouped", H, 2 * W, ROWS, 2),
    ],
}
EXPERTS_FP8 = {
    "F": [
        memory("expert_map", 0, 2),
        memory("small", 0, 5),
        routed("permute", ROWS * H * (1 + 1)),
        memory("transpose", LOCAL * 2 * W * H * 2),
        grouped("fp8_block_grouped", ROWS, 2 * W, H, 1),
        routed("swiglu", ROWS * (2 * W * 2 + W)),  # what it gives is cast
        routed("cast", ROWS * 2 * W * 3),  # what goes in is kept in FP8
        memory("transpose", LOCAL * W * H * 2),
        grouped("fp8_block_grouped", ROWS, H, W, 1),
        routed("permute", (ROWS + ARRIVED) * H * 2),
    ],
    "B": [
        memory("add_norm", T * H * 8),  # computed again, for the router's gradient
        routed("permute", ROWS * H * (1 + 1)),
        grouped("fp8_block_grouped", ROWS, W, H, 1),
        routed("cast", ROWS * 2 * W * 3),
        routed("swiglu", ROWS * 6 * W * 2),
        routed("swiglu", ROWS * 2 * W * 2),
        routed("transpose", ROWS * W * 3),
        routed("cast", ROWS * 2 * W * 3),
        grouped("fp8_block_grouped", ROWS, H, 2 * W, 1),
        routed("transpose", ROWS * 2 * W * 3),
        routed("permute", (ROWS + ARRIVED) * H * 2),
        memory("small", 0, 5),
    ],
    "W": [
        routed("recast_transpose", ROWS * H * 2),
        grouped_wgrad("fp8_block_wgrad", W, H, ROWS, 1),
        routed("recast_transpose", ROWS * H * 2),
        grouped_wgrad("fp8_block_wgrad", H, 2 * W, ROWS, 1),
    ],
}


def written(passes, pass_, stream="compute"):
    return [
        (op.family, op.launches, op.flops, op.bytes, op.routed)
        for op in passes.of(pass_)
        if not isinstance(op, Comm) and op.stream == stream
    ]


@pytest.mark.parametrize("pass_", "FBW")
@pytest.mark.parametrize(("place", "listed"), [(BF16, EXPERTS_BF16), (FP8, EXPERTS_FP8)])
def test_experts_run_these_kernels_in_this_order(place, listed, pass_):
    assert written(MOE.passes(place), pass_) == listed[pass_]


@pytest.mark.parametrize(
    ("place", "glue"),
    [(BF16, []), (FP8, [memory("cast", T * H * 3), memory("small", 0, 5)])],
)
def test_the_router_runs_before_tokens_leave(place, glue):
    """A gate in BF16 and small kernels; FP8 casts for the wire."""
    entry = MOE.entry(place)
    gate = 2 * T * EXPERTS * H
    assert written(entry, "F") == [
        memory("add_norm", T * H * 8),
        ("bf16_narrow", 1, gate, (T * H + EXPERTS * H + T * EXPERTS) * 2, False),
        memory("small", 0, 37),
        memory("small", 0, 2),
        *glue,
    ]
    assert [family for family, *_ in written(entry, "B")] == [
        "small",
        "bf16_narrow",
        "bf16_narrow_wgrad",
        "elementwise",
        "norm_backward",
    ]


@pytest.mark.parametrize(("place", "copy"), [(BF16, 2 * H), (FP8, H + H / 128 * 4)])
def test_tokens_go_out_as_the_recipe_says_and_come_home_in_bf16(place, copy):
    """Gradients go out as tokens do, and are cast for it on the stream that sends them."""
    whole = MOE.entry(place) + MOE.passes(place)
    sizes = {
        pass_: [op.size_bytes for op in whole.of(pass_) if isinstance(op, Comm)] for pass_ in "FB"
    }
    assert sizes == {"F": [copy, 2 * H], "B": [copy, 2 * H]}
    casts = [memory("cast", T * H * 3)] if place is FP8 else []
    assert written(whole, "B", "comm") == casts


def test_what_is_kept_in_bf16_is_every_input():
    """Norm in and out, permuted rows, input and output of the activation, and routing tables."""
    kept = MOE.entry(BF16).saved_bytes + MOE.passes(BF16).saved_bytes
    assert kept == T * 2 * H * 2 + ROWS * (H + 2 * W + W) * 2 + T * 4096


def test_what_is_kept_in_fp8_is_what_came_and_the_input_of_the_activation():
    """Residual in BF16; tokens that arrived and inputs of SwiGLU in FP8 with their scales."""
    kept = MOE.entry(FP8).saved_bytes + MOE.passes(FP8).saved_bytes
    fp8 = (ARRIVED * H + ROWS * 2 * W) * (1 + 4 / 128)
    assert kept == T * H * 2 + fp8 + T * 4096
