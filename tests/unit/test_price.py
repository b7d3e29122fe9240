"""Prices of kernels: what they rest on, how they scale, and closed forms by hand."""

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.chip import CHIPS
from hwmodels.costs import attention_time_s, gemm_time_s, memory_op_time_s
from hwmodels.errors import SpecError
from hwmodels.formats import FORMATS
from simulator.price.kernels import KernelPricer
from tests.prices import CAST, DENSE, FITTED, H800, PROFILE, ROOFLINE
from workloads.ops import Attention, Gemm, MemoryOp

BF16, FP8 = FORMATS["bf16"], FORMATS["fp8_1x128"]
H20 = CHIPS.load("h20")
LOADS = np.array([0.8, 1.0, 1.3])

GROUPED = Gemm("grouped", 32768, 4096, 7168, FP8, groups=4, routed=True)
WGRAD = Gemm("wgrad", 7168, 4096, 32768, FP8, "wgrad", groups=4, routed=True)
HEAD = Gemm("head", 4096, 129280, 7168, BF16)
HEAD_WGRAD = Gemm("head wgrad", 129280, 7168, 4096, BF16, "wgrad")
CORE = Attention("core", 1, 4096, 128, 128, 192, 128)
CORE_BACKWARD = replace(CORE, backward=True)
PERMUTE = MemoryOp("permute", "permute", 464e6, routed=True)
SMALL = MemoryOp("small", "small", 0, launches=37)
OPS = (DENSE, GROUPED, WGRAD, HEAD, HEAD_WGRAD, CORE, CORE_BACKWARD, CAST, PERMUTE, SMALL)


# Roofline


def test_the_roofline_turns_at_the_ridge_point():
    """A chip of P FLOP/s and B bytes/s computes for as long as it reads at P / B FLOPs a byte."""
    peak, bandwidth = H800.tensor_flops_per_s("bf16"), H800.hbm_bytes_per_s
    whole = KernelPricer(H800, None, H800.sms)
    shallow, deep = (Gemm("x", 8192, 8192, k, BF16) for k in (64, 4096))
    assert shallow.flops / shallow.bytes < peak / bandwidth < deep.flops / deep.bytes
    costs = whole.price([shallow, deep])
    assert costs.bound.tolist() == ["memory", "compute"]
    assert costs.duration_s[:, 0] == pytest.approx(
        [shallow.bytes / bandwidth, deep.flops / peak], rel=1e-12
    )


def test_the_roofline_computes_on_the_sms_in_use_and_reads_with_all_of_hbm():
    """112 of 132 SMs: 132/112 of the time where compute is the limit, the same where memory is."""
    whole = KernelPricer(H800, None, 132).price([HEAD, CAST]).duration_s[:, 0]
    part = ROOFLINE.price([HEAD, CAST]).duration_s[:, 0]
    assert part[0] == pytest.approx(whole[0] * 132 / 112, rel=1e-12)
    assert part[1] == whole[1] == 88e6 / H800.hbm_bytes_per_s


def test_the_roofline_takes_the_tensor_rate_of_the_format():
    """FP8 at twice the BF16 rate; attention at the BF16 one."""
    core = CORE.flops / H800.tensor_flops_per_s("bf16", 112)
    product = DENSE.flops / H800.tensor_flops_per_s("fp8", 112)
    times = ROOFLINE.price([CORE, DENSE]).duration_s[:, 0]
    assert times == pytest.approx([core, product], rel=1e-12)


def test_a_chip_without_fp8_cannot_price_it_silently():
    with pytest.raises(SpecError, match="a100: no 'fp8' tensor rate"):
        KernelPricer(CHIPS.load("a100"), None, 108).price([DENSE])


# Basis


def test_every_price_says_what_it_rests_on():
    assert {FITTED.basis_of(op.family) for op in OPS} == {"profile h800-deepseek"}
    assert {ROOFLINE.basis_of(op.family) for op in OPS} == {"roofline of h800"}
    transferred = {KernelPricer(H20, PROFILE, 60).basis_of(op.family) for op in OPS}
    assert transferred == {"profile h800-deepseek, transferred from h800 to h20"}


def test_a_family_that_the_profile_lacks_is_priced_by_the_roofline_and_says_so():
    """The others keep the profile's price; what stands in for one slows beside nothing."""
    lacking = (
        Gemm("grouped in BF16", 32768, 4096, 7168, BF16, groups=4, routed=True),
        MemoryOp("x", "casts", 88e6),
    )
    told = FITTED.price((*OPS, *lacking), [0.5, 1.0])
    assert told.duration_s[: len(OPS)].tolist() == FITTED.price(OPS, [0.5, 1.0]).duration_s.tolist()
    stands_in = ROOFLINE.price(lacking, [0.5, 1.0])
    assert told.duration_s[len(OPS) :].tolist() == stands_in.duration_s.tolist()
    assert told.beside_factor[len(OPS) :].tolist() == [1, 1]
    assert [FITTED.basis_of(op.family) for op in lacking] == [
        "roofline of h800, as profile h800-deepseek has no family bf16_grouped",
        "roofline of h800, as profile h800-deepseek has no family casts",
    ]
    assert {FITTED.basis_of(op.family) for op in OPS} == {"profile h800-deepseek"}


# Profile


def test_prices_are_those_of_the_cost_functions():
    """A weight gradient of 4 experts that share the depth passes 4 m rows of depth k / 4."""
    gemm = {"tensor_family": "fp8", "element_bytes": 1.0, "sms": 112}
    expected = [
        gemm_time_s(
            H800, PROFILE.parameters("fp8_block"), 4096, 7168, 16384, output_bytes=2, **gemm
        ).time_s,
        gemm_time_s(
            H800,
            PROFILE.parameters("fp8_block_grouped"),
            32768,
            4096,
            7168,
            4,
            output_bytes=2,
            **gemm,
        ).time_s,
        gemm_time_s(
            H800,
            PROFILE.parameters("fp8_block_wgrad"),
            4 * 7168,
            4096,
            8192,
            4,
            output_bytes=8,
            **gemm,
        ).time_s,
        attention_time_s(
            H800,
            PROFILE.parameters("attention_forward"),
            1,
            4096,
            128,
            128,
            192,
            128,
            sms=112,
        ).time_s,
        memory_op_time_s(H800, PROFILE.parameters("cast"), 88e6, sms=112).time_s,
        memory_op_time_s(H800, PROFILE.parameters("small"), 0, 37, sms=112).time_s,
    ]
    priced = FITTED.price([DENSE, GROUPED, WGRAD, CORE, CAST, SMALL])
    assert priced.duration_s[:, 0].tolist() == [float(seconds) for seconds in expected]


def test_bf16_weight_gradients_move_eight_bytes_an_element():
    """Two families of outputs within one family of kernels are priced apart, in any order. A small
    product shows its output.
    """
    small = Gemm("small", 1024, 7168, 1024, BF16, "dgrad")
    small_wgrad = replace(small, role="wgrad")
    shape = {"tensor_family": "bf16", "element_bytes": 2.0, "sms": 112}
    two, eight = (
        float(
            gemm_time_s(
                H800, PROFILE.parameters("bf16"), 1024, 7168, 1024, output_bytes=size, **shape
            ).time_s
        )
        for size in (2, 8)
    )
    assert two < eight
    assert FITTED.price([small, small_wgrad]).duration_s[:, 0].tolist() == [two, eight]
    assert FITTED.price([small_wgrad, small]).duration_s[:, 0].tolist() == [eight, two]


def test_gaps_are_paid_for_each_launch_and_not_on_a_roofline():
    one, many = (MemoryOp("x", "cast", 1e6, launches=n) for n in (1, 11))
    costs = FITTED.price([one, many], LOADS)
    assert costs.gap_s.tolist() == [PROFILE.launch_gap_s, 11 * PROFILE.launch_gap_s]
    assert costs.total_s == pytest.approx(
        costs.duration_s.sum(axis=0) + 12 * PROFILE.launch_gap_s, rel=1e-12
    )
    roofline = ROOFLINE.price([one, many])
    assert roofline.gap_s.tolist() == [0, 0]
    assert roofline.duration_s[:, 0].tolist() == [1e6 / H800.hbm_bytes_per_s] * 2


@pytest.mark.parametrize("pricer", [FITTED, ROOFLINE], ids=["profile", "roofline"])
def test_all_ops_at_once_cost_what_each_costs_alone(pricer):
    together = pricer.price(OPS, LOADS)
    for index, op in enumerate(OPS):
        alone = pricer.price([op], LOADS)
        assert together.duration_s[index].tolist() == alone.duration_s[0].tolist(), op.name
        assert together.bound[index] == alone.bound[0]
        assert together.beside_factor[index] == alone.beside_factor[0]
    gap_s = (PROFILE.launch_gap_s if pricer.profile else 0) * sum(op.launches for op in OPS)
    assert together.total_s == pytest.approx(together.duration_s.sum(axis=0) + gap_s, rel=1e-12)


def test_a_list_that_has_grown_is_priced_as_it_is_now():
    ops = [DENSE]
    FITTED.price(ops)
    ops.append(CAST)
    expected = FITTED.price([DENSE, CAST])
    assert FITTED.price(ops).duration_s.tolist() == expected.duration_s.tolist()


def test_pricing_again_gives_the_same_bits_whatever_was_priced_between():
    """Other chips, SMs, profiles and loads have their own prices, though ops are the same."""
    pricers = (FITTED, ROOFLINE, replace(FITTED, sms=60), KernelPricer(H20, PROFILE, 60))
    once = [pricer.price(OPS, LOADS).duration_s.tobytes() for pricer in pricers]
    FITTED.price(OPS, 1.7)
    again = [pricer.price(tuple(OPS), LOADS).duration_s.tobytes() for pricer in pricers[::-1]]
    assert once == again[::-1]
    assert len(set(once)) == len(pricers)


@pytest.mark.parametrize("pricer", [FITTED, ROOFLINE], ids=["profile", "roofline"])
def test_only_routed_ops_follow_the_expert_load(pricer):
    """A load of 1 is the balanced price, to the bit; more rows take longer, fewer less."""
    costs = pricer.price(OPS, LOADS).duration_s
    balanced = pricer.price(OPS).duration_s[:, 0]
    assert costs[:, 1].tolist() == balanced.tolist()
    for op, (fewer, even, more) in zip(OPS, costs.tolist(), strict=True):
        assert (fewer < even < more) if op.routed else (fewer == even == more), op.name


def test_a_loaded_rank_pays_for_the_rows_it_has():
    """1.25 x 32768 rows: the grouped product has 40960, its weight gradient that depth."""
    loaded = FITTED.price([GROUPED, WGRAD, PERMUTE], 1.25).duration_s[:, 0]
    by_hand = FITTED.price(
        [replace(GROUPED, m=40960), replace(WGRAD, k=40960), replace(PERMUTE, bytes=580e6)]
    )
    assert loaded == pytest.approx(by_hand.duration_s[:, 0], rel=1e-12)
