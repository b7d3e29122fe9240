"""Prices of kernels and messages: what they rest on, how they scale, and closed forms by hand."""

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.chip import CHIPS
from hwmodels.cluster import CLUSTERS
from hwmodels.costs import attention_time_s, gemm_time_s, memory_op_time_s
from hwmodels.errors import OutOfRangeError, SpecError
from hwmodels.formats import FORMATS
from hwmodels.profile import PROFILES
from simulator.price.collectives import ExchangePricer, LinkRates, link_rates, message_s, ring_s
from simulator.price.kernels import KernelPricer
from simulator.price.segments import (
    BALANCED_COLUMN,
    LOAD_STEP,
    SegmentPricer,
    collect_ops,
    load_index,
)
from workloads.chunks import chunk_program, segment_ops
from workloads.layers import Layer, PhaseOps
from workloads.ops import Attention, Exchange, Gemm, MemoryOp
from workloads.routing import RoutingStatistics

BF16, FP8 = FORMATS["bf16"], FORMATS["fp8_1x128"]
H800, H20 = CHIPS.load("h800"), CHIPS.load("h20")
CLUSTER = CLUSTERS.load("h800-2048-mpft")
PROFILE = PROFILES.load("h800-deepseek")
FITTED = KernelPricer(H800, PROFILE, 112)
ROOFLINE = KernelPricer(H800, None, 112)
LOADS = np.array([0.8, 1.0, 1.3])
HALVES = ("attn", "mlp")

DENSE = Gemm("dense", 4096, 7168, 16384, FP8)
GROUPED = Gemm("grouped", 32768, 4096, 7168, FP8, groups=4, routed=True)
WGRAD = Gemm("wgrad", 7168, 4096, 32768, FP8, "wgrad", groups=4, routed=True)
HEAD = Gemm("head", 4096, 129280, 7168, BF16)
HEAD_WGRAD = Gemm("head wgrad", 129280, 7168, 4096, BF16, "wgrad")
CORE = Attention("core", 1, 4096, 128, 128, 192, 128)
CORE_BACKWARD = replace(CORE, backward=True)
CAST = MemoryOp("cast", "cast", 88e6)
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
    assert set(FITTED.price(OPS).basis) == {"profile h800-deepseek"}
    assert set(ROOFLINE.price(OPS).basis) == {"roofline of h800"}
    transferred = KernelPricer(H20, PROFILE, 60).price(OPS).basis
    assert set(transferred) == {"profile h800-deepseek, transferred to h20 by datasheet"}


def test_a_family_that_the_profile_lacks_is_refused():
    with pytest.raises(OutOfRangeError, match="kernels: no family 'casts'; did you mean 'cast'"):
        FITTED.price([MemoryOp("x", "casts", 1.0)])


# Profile


def test_prices_are_those_of_the_cost_functions():
    """A weight gradient of 4 experts that share the depth passes 4 m rows of depth k / 4."""
    gemm = {"tensor_family": "fp8", "element_bytes": 1.0, "sms": 112}
    expected = [
        gemm_time_s(
            H800, PROFILE.parameters("fp8"), 4096, 7168, 16384, output_bytes=2, **gemm
        ).time_s,
        gemm_time_s(
            H800,
            PROFILE.parameters("fp8_grouped"),
            32768,
            4096,
            7168,
            4,
            output_bytes=2,
            **gemm,
        ).time_s,
        gemm_time_s(
            H800,
            PROFILE.parameters("fp8_wgrad"),
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
    """Two families of outputs within one family of kernels are priced apart, in any order. A router
    gate is small enough for its output to show.
    """
    gate = Gemm("gate", 256, 7168, 4096, BF16, "dgrad")
    gate_wgrad = replace(gate, role="wgrad")
    shape = {"tensor_family": "bf16", "element_bytes": 2.0, "sms": 112}
    two, eight = (
        float(
            gemm_time_s(
                H800, PROFILE.parameters("bf16"), 256, 7168, 4096, output_bytes=size, **shape
            ).time_s
        )
        for size in (2, 8)
    )
    assert two < eight
    assert FITTED.price([gate, gate_wgrad]).duration_s[:, 0].tolist() == [two, eight]
    assert FITTED.price([gate_wgrad, gate]).duration_s[:, 0].tolist() == [eight, two]


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


def test_the_mean_slowdown_weighs_kernels_by_their_time():
    costs = FITTED.price([DENSE, CAST])
    (dense_s, cast_s), factors = (
        costs.duration_s[:, 0],
        [
            PROFILE.interference_factor("fp8"),
            PROFILE.interference_factor("cast"),
        ],
    )
    assert costs.beside_factor.tolist() == factors
    expected = (dense_s * factors[0] + cast_s * factors[1]) / (dense_s + cast_s)
    segments = collect_ops([Layer("moe", mlp=PhaseOps(forward=(DENSE, CAST)))])
    priced = (SegmentPricer(kernels, PRICER).prices(segments) for kernels in (FITTED, ROOFLINE))
    assert next(priced).factor == pytest.approx([expected], rel=1e-12)
    assert next(priced).factor == [1]


# Exchange: 1,024 tokens of 1,000 bytes on 2 nodes of 4 GPUs; a token goes to 2 nodes and 4 GPUs

RATES = LinkRates(
    dispatch_nic=10e9,
    combine_nic=5e9,
    nvlink=200e9,
    exchange_nvlink=200e9,
    forwarding_nvlink=100e9,
    message_nic=20e9,
    latency_s=1e-6,
    scale_up_latency_s=5e-7,
    dispatch_beside_compute=1.5,
    combine_beside_compute=1.2,
)
ROUTING = RoutingStatistics(nodes=2, gpus=8, nodes_per_token=2.0, gpus_per_token=4.0)
EXCHANGE = Exchange(tokens=1024, hidden=1000, top_k=8, dispatch=FORMATS["fp8_e4m3"], combine=BF16)
PRICER = ExchangePricer(RATES, ROUTING, gpus_per_node=4)
EVEN = np.ones(8)


def test_an_exchange_between_nodes_is_its_nic_bytes_over_its_rate():
    """Half of 2 nodes' copies stay at home: 1.024 MB out, 2.048 MB home, over 10 and 5 GB/s."""
    assert PRICER.exchange_s(EXCHANGE, "dispatch", EVEN) == pytest.approx(
        1e-6 + 1.024e6 / 10e9, rel=1e-12
    )
    assert PRICER.exchange_s(EXCHANGE, "combine", EVEN) == pytest.approx(
        1e-6 + 2.048e6 / 5e9, rel=1e-12
    )


def test_nvlink_is_the_port_where_nics_are_fast():
    """4 GPUs' copies, of which 3/4 leave the GPU: 3.072 MB over 100 GB/s of forwarding."""
    fast = replace(PRICER, rates=replace(RATES, dispatch_nic=1e12))
    assert fast.exchange_s(EXCHANGE, "dispatch", EVEN) == pytest.approx(
        1e-6 + 3.072e6 / 100e9, rel=1e-12
    )


def test_inside_one_node_nothing_meets_a_nic_and_nvlink_runs_at_its_own_rate():
    """4 GPUs of one node: 3/4 of 2.5 copies over 200 GB/s."""
    routing = RoutingStatistics(nodes=1, gpus=4, nodes_per_token=1.0, gpus_per_token=2.5)
    pricer = ExchangePricer(RATES, routing, gpus_per_node=4)
    assert pricer.exchange_s(EXCHANGE, "dispatch", np.ones(4)) == pytest.approx(
        5e-7 + 1.024e6 * 2.5 * 0.75 / 200e9, rel=1e-12
    )


def test_an_exchange_is_as_slow_as_its_slowest_port():
    """A NIC carries its node's mean load, NVLink its own GPU's: nodes of 0.7 and 1.3."""
    load = np.array([0.7, 0.7, 0.7, 0.7, 1.3, 1.3, 1.3, 1.3])
    assert PRICER.exchange_s(EXCHANGE, "dispatch", load) == pytest.approx(
        1e-6 + 1.3 * 1.024e6 / 10e9, rel=1e-12
    )
    one_hot = np.array([1, 1, 1, 1, 0.2, 1.8, 1, 1])
    assert PRICER.exchange_s(EXCHANGE, "dispatch", one_hot) == PRICER.exchange_s(
        EXCHANGE, "dispatch", EVEN
    )
    fast = replace(PRICER, rates=replace(RATES, dispatch_nic=1e12))
    assert fast.exchange_s(EXCHANGE, "dispatch", one_hot) == pytest.approx(
        1e-6 + 1.8 * 3.072e6 / 100e9, rel=1e-12
    )


def test_many_exchanges_at_once_cost_what_each_costs_alone():
    """Loads of two draws of three layers, and NICs of one layer; to the last bit."""
    rng = np.random.default_rng(0)
    load = rng.lognormal(0, 0.3, (2, 3, 8))
    load /= load.mean(axis=-1, keepdims=True)
    nic, nvlink = rng.uniform(1, 3, (3, 8)), rng.uniform(1, 30, (2, 1, 8))
    for carrier in ("dispatch", "combine"):
        together = PRICER.exchange_s(EXCHANGE, carrier, load, nic, nvlink)
        plain = PRICER.exchange_s(EXCHANGE, carrier, load)
        assert together.shape == plain.shape == (2, 3)
        assert len({*together.ravel().tolist(), *plain.ravel().tolist()}) == 12
        for draw, slot in np.ndindex(2, 3):
            own = load[draw, slot]
            assert plain[draw, slot] == PRICER.exchange_s(EXCHANGE, carrier, own)
            alone = PRICER.exchange_s(EXCHANGE, carrier, own, nic[slot], nvlink[draw, 0])
            assert together[draw, slot] == alone


def test_a_slow_nic_carries_its_nodes_mean_load_at_its_own_rate():
    """NICs of 102.4 us, NVLink of 30.72 us. One NIC of 8 at half its rate holds all up; a more
    loaded node hides a slowdown up to its own load. What a node receives may be half of the mean,
    but what its NICs carry the other way is its own tokens, and those are the mean.
    """
    slow = np.where(np.arange(8) == 5, 2.0, 1.0)
    assert PRICER.exchange_s(EXCHANGE, "dispatch", EVEN, slow) == pytest.approx(
        1e-6 + 2 * 1.024e6 / 10e9, rel=1e-12
    )
    load = np.array([1.5, 1.5, 1.5, 1.5, 0.5, 0.5, 0.5, 0.5])
    for slowdown, held_up in ((1.2, 1.5), (2.0, 2.0), (4.0, 4.0)):
        slow = np.where(np.arange(8) == 5, slowdown, 1.0)
        assert PRICER.exchange_s(EXCHANGE, "dispatch", load, slow) == pytest.approx(
            1e-6 + held_up * 1.024e6 / 10e9, rel=1e-12
        )


def test_a_slow_nvlink_shows_once_it_is_slower_than_the_nics():
    """30.72 us against 102.4 us: not at 3 times, at 4 times; and only on the GPU it is."""
    for slowdown, seconds in ((3.0, 1.024e6 / 10e9), (4.0, 4 * 3.072e6 / 100e9)):
        slow = np.where(np.arange(8) == 2, slowdown, 1.0)
        assert PRICER.exchange_s(EXCHANGE, "dispatch", EVEN, nvlink_slowdown=slow) == pytest.approx(
            1e-6 + seconds, rel=1e-12
        )
    load = np.array([1, 1, 0.2, 1, 1.8, 1, 1, 1])
    fast = replace(PRICER, rates=replace(RATES, dispatch_nic=1e12))
    for slowdown, held_up in ((1.7, 1.8), (4.0, 4.0)):  # what it sends on is a load of 1
        slow = np.where(np.arange(8) == 2, slowdown, 1.0)
        assert fast.exchange_s(EXCHANGE, "dispatch", load, nvlink_slowdown=slow) == pytest.approx(
            1e-6 + held_up * 3.072e6 / 100e9, rel=1e-12
        )


@pytest.mark.parametrize("seed", range(5))
def test_no_exchange_is_faster_than_its_bytes_over_the_wire(seed):
    """The busiest node's bytes over its NICs at datasheet rate bound every direction and load."""
    load = np.random.default_rng(seed).lognormal(0, 0.3, 64)
    load /= load.mean()
    routing = RoutingStatistics(nodes=8, gpus=64, nodes_per_token=3.95, gpus_per_token=7.5)
    wire = CLUSTER.node.scale_out_bytes_per_s_per_gpu
    exchange = Exchange(tokens=4096, hidden=7168, top_k=8, dispatch=FP8, combine=BF16)
    for parameters in (None, PROFILE.communication):
        pricer = ExchangePricer(link_rates(CLUSTER, parameters, 20), routing, gpus_per_node=8)
        busiest = load.reshape(8, 8).mean(axis=1).max()
        for direction, size in (("dispatch", 7392), ("combine", 14336)):
            leaves = 4096 * size * 3.95 * 7 / 8
            assert pricer.exchange_s(exchange, direction, load) >= leaves * busiest / wire


def test_rates_without_a_profile_are_the_datasheets():
    rates = link_rates(CLUSTER, None, 20)
    assert (rates.dispatch_nic, rates.combine_nic, rates.message_nic) == (50e9, 50e9, 50e9)
    assert (rates.nvlink, rates.forwarding_nvlink) == (200e9, 200e9)
    assert (rates.dispatch_beside_compute, rates.combine_beside_compute) == (1, 1)
    assert rates.latency_s == pytest.approx(3.7e-6, rel=1e-9)  # ISCA'25 Table 5, across leaves


def test_rates_grow_with_the_sms_of_communication_up_to_saturation():
    """In proportion below the profile's saturating number; NVLink alone and messages need none."""
    full = PROFILE.communication.saturating_sms
    half, saturated, more = (
        link_rates(CLUSTER, PROFILE.communication, sms) for sms in (full / 2, full, 2 * full)
    )
    for name in ("dispatch_nic", "combine_nic", "forwarding_nvlink"):
        assert getattr(half, name) == pytest.approx(getattr(saturated, name) / 2, rel=1e-12)
    assert (half.nvlink, half.message_nic) == (saturated.nvlink, saturated.message_nic)
    assert saturated == more
    assert saturated.dispatch_nic == PROFILE.communication.dispatch_nic_bytes_per_s


def test_on_other_links_achieved_rates_scale_with_the_datasheet():
    """Twice the NIC, twice each NIC rate; NVLink rates stay."""
    node = CLUSTER.node
    wide = node.model_copy(update={"nic": node.nic.model_copy(update={"link_bytes_per_s": 100e9})})
    base = link_rates(CLUSTER, PROFILE.communication, 20)
    rates = link_rates(CLUSTER.model_copy(update={"node": wide}), PROFILE.communication, 20)
    for name in ("dispatch_nic", "combine_nic", "message_nic"):
        assert getattr(rates, name) == pytest.approx(2 * getattr(base, name), rel=1e-12)
    assert rates.nvlink == base.nvlink
    assert rates.forwarding_nvlink == base.forwarding_nvlink


# Messages and rings


def test_a_message_takes_its_latency_and_its_bytes_over_one_nic():
    assert message_s(RATES, 0) == 1e-6
    assert message_s(RATES, 20e9) == 1 + 1e-6


def test_a_ring_moves_all_but_its_own_share_and_hops_past_every_member():
    """size (p - 1) / p over the rate, and p - 1 latencies. With one member a node, a NIC each."""
    assert ring_s(RATES, 40e9, 4, 1, 8) == pytest.approx(40 * 3 / 4 / 20 + 3e-6, rel=1e-12)
    assert ring_s(RATES, 40e9, 1, 1, 8) == 0


def test_a_ring_inside_a_node_runs_on_nvlink():
    assert ring_s(RATES, 40e9, 8, 8, 8) == pytest.approx(40 * 7 / 8 / 200 + 7 * 5e-7, rel=1e-12)


@pytest.mark.parametrize(("per_node", "rate"), [(2, 40), (8, 160), (16, 160)])
def test_rings_over_whole_nodes_use_every_nic_of_their_members(per_node, rate):
    """NICs of 20 GB/s each, up to the node's 8, and never more than NVLink's 200 GB/s."""
    assert ring_s(RATES, 40e9, 64, per_node, 8) == pytest.approx(
        40 * 63 / 64 / rate + 63e-6, rel=1e-12
    )
    wide = replace(RATES, message_nic=1e12)
    assert ring_s(wide, 40e9, 64, per_node, 8) == pytest.approx(
        40 * 63 / 64 / 200 + 63e-6, rel=1e-12
    )


# Segments


@pytest.fixture(scope="module")
def pricer(v3_step):
    return SegmentPricer(FITTED, ExchangePricer(RATES, v3_step.routing, gpus_per_node=8))


def ends(v3_step):
    """Layers of the first stage, the last and the first again: dense, MoE, MTP and heads."""
    return [*v3_step.stages[0], *v3_step.stages[15], *v3_step.stages[0]]


def test_a_segment_costs_the_sum_of_its_kernels_at_every_load(pricer, v3_step):
    """Column by column, up to the load asked for: 0.9 and 1.1 as priced by themselves. Gaps are
    paid; what stands for a load of none still launches.
    """
    layer = v3_step.stages[3][0]
    segments = collect_ops([layer])
    prices = pricer.prices(segments, 1.1)
    assert prices.seconds.shape == (len(segments.row), round(1.1 / LOAD_STEP) + 1)
    columns = np.array([round(load / LOAD_STEP) for load in (0.9, 1.0, 1.1)])
    for half in HALVES:
        for phase in "FBW":
            ops = getattr(layer, half).of(phase)
            found = prices.seconds[segments.row[0, half, phase]]
            expected = FITTED.price(ops, columns * LOAD_STEP)
            assert found[columns] == pytest.approx(expected.total_s, rel=1e-12)
            assert found[0] >= expected.gap_s.sum() > 0
            assert (np.diff(found) >= 0).all()
            routed = any(op.routed for op in ops)
            assert routed or set(found) == {found[0]}
            assert (found[-1] > 1.01 * found[0]) == routed
    for phase, glue in (
        ("F", layer.exchange.dispatch_glue),
        ("B", layer.exchange.combine_backward_glue),
    ):
        found = prices.seconds[segments.row[0, "layout", phase], columns]
        assert found == pytest.approx(FITTED.price(glue, columns * LOAD_STEP).total_s, rel=1e-12)


def test_a_table_ends_at_the_highest_load_and_holds_the_balanced_one(pricer, v3_step):
    """Loads below 1 shorten nothing; columns do not depend on how many there are."""
    segments = collect_ops(v3_step.stages[3])
    short, long = (pricer.prices(segments, load).seconds for load in (0.5, 2.0))
    assert BALANCED_COLUMN == load_index(np.ones(1))[0] == short.shape[1] - 1
    assert long.shape[1] == 2 * BALANCED_COLUMN + 1
    assert long[:, : BALANCED_COLUMN + 1] == pytest.approx(short, rel=1e-12)


def test_a_load_is_looked_up_in_the_nearest_column():
    loads = np.array([0.0, 0.2 * LOAD_STEP, 1.0, 1 + 0.6 * LOAD_STEP, 2 - 0.4 * LOAD_STEP])
    steps = BALANCED_COLUMN
    assert load_index(loads).tolist() == [0, 0, steps, steps + 1, 2 * steps]
    assert load_index(loads[:4].reshape(2, 2)).tolist() == [[0, 0], [steps, steps + 1]]


def test_segments_priced_together_cost_what_each_costs_alone(pricer, v3_step):
    layers = ends(v3_step)
    segments = collect_ops(layers)
    together = pricer.prices(segments, 1.2)
    seen = 0
    for kind, layer in enumerate(layers):
        own = collect_ops([layer])
        alone = pricer.prices(own, 1.2)
        for (_, part, phase), row in own.row.items():
            found = segments.row[kind, part, phase]
            assert together.seconds[found] == pytest.approx(alone.seconds[row], rel=1e-12)
            assert together.factor[found] == pytest.approx(alone.factor[row], rel=1e-12)
            seen += 1
    assert seen == len(segments.row)


def kernels_of(segments):
    """Kernels by row, in launch order."""
    return [
        [segments.ops[place] for place in own]
        for own in np.split(segments.launched, segments.first[1:])
    ]


def test_segments_hold_their_kernels_in_launch_order(v3_step):
    """And each distinct kernel once for all of them."""
    layers = ends(v3_step)
    segments = collect_ops(layers)
    assert len(set(segments.ops)) == len(segments.ops)
    held = kernels_of(segments)
    assert len(held) == len(segments.row)
    for (kind, part, phase), row in segments.row.items():
        assert held[row] == list(segment_ops(layers[kind], part, phase))
    for kind, layer in enumerate(layers):
        for half in HALVES:
            for phase in "FBW":
                assert ((kind, half, phase) in segments.row) == bool(getattr(layer, half).of(phase))


def test_sums_and_launches_of_segments_are_those_of_their_kernels(v3_step):
    segments = collect_ops(v3_step.stages[0])
    rng = np.random.default_rng(0)
    place = {op: index for index, op in enumerate(segments.ops)}
    values = rng.integers(0, 9, (len(segments.ops), 2)).astype(float)
    held = kernels_of(segments)
    by_hand = [np.sum([values[place[op]] for op in own], axis=0).tolist() for own in held]
    assert segments.sums(values).tolist() == by_hand
    times = rng.integers(0, 9, len(held)).astype(float)
    counted = segments.launches(times)
    for op, count in zip(segments.ops, counted, strict=True):
        assert count == sum(n * own.count(op) for n, own in zip(times, held, strict=True))


def test_a_dense_layer_has_no_exchange(v3_step):
    """Neither kernels for one nor a segment."""
    layer = v3_step.stages[0][1]
    segments = collect_ops([layer])
    assert {part for _, part, _ in segments.row} == set(HALVES)
    program = chunk_program("FB", [layer], [layer])
    assert (segments.rows_of(program, [0] * len(program)) >= 0).all()


def test_exchanges_slow_down_by_the_kernels_that_carry_them(pricer, v3_step):
    """A backward combine by 1.5, as a dispatch; a backward dispatch by 1.2."""
    layer = v3_step.stages[3][0]
    segments = collect_ops([layer])
    prices = pricer.prices(segments)
    program = chunk_program("FB", [layer], [layer])
    rows = segments.rows_of(program, [0] * len(program))
    factors = prices.factors_of(program, rows)
    found = {}
    for segment, row, factor in zip(program, rows, factors, strict=True):
        assert (row < 0) == segment.is_exchange
        if segment.is_exchange:
            found[segment.part, segment.phase] = factor
        else:
            assert row == segments.row[0, segment.part, segment.phase]
            assert factor == prices.factor[row]
    assert found == {
        ("dispatch", "F"): 1.5,
        ("combine", "F"): 1.2,
        ("combine", "B"): 1.5,
        ("dispatch", "B"): 1.2,
    }


def test_op_seconds_are_those_of_the_balanced_layer(pricer, v3_step):
    segments = collect_ops(v3_step.stages[3])
    prices = pricer.prices(segments)
    assert set(prices.basis) == {"profile h800-deepseek"}
    assert len(prices.basis) == len(prices.op_s) == len(segments.ops)
    balanced = prices.seconds[:, BALANCED_COLUMN]
    assert segments.sums(prices.op_s) == pytest.approx(balanced, rel=1e-12)
