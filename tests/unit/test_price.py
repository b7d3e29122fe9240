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
from simulator.price.layers import LayerPricer
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
    once = np.zeros((1, 1), np.intp)
    assert costs.run([0, 1], once)[1] == pytest.approx([expected], rel=1e-12)
    assert ROOFLINE.price([DENSE, CAST]).run([0, 1], once)[1] == [1]


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


# Layers


def test_a_layer_costs_the_sum_of_its_kernels_by_half_and_phase(v3_step):
    """And its exchanges are priced once for all ranks of the group."""
    layer = v3_step.stages[3][0]
    pricer = LayerPricer(FITTED, ExchangePricer(RATES, v3_step.routing, gpus_per_node=8))
    load = np.linspace(0.9, 1.1, 64)
    priced = pricer.price(layer, load)
    for half in HALVES:
        for phase in "FBW":
            ops = getattr(layer, half).of(phase)
            segment = getattr(priced, half)[phase]
            assert segment.duration_s.tolist() == FITTED.price(ops, load).total_s.tolist()
    dispatch_s = pricer.exchanges.exchange_s(layer.exchange, "dispatch", load)
    combine_s = pricer.exchanges.exchange_s(layer.exchange, "combine", load)
    for exchange in (priced.forward_exchange, priced.backward_exchange):
        assert set(exchange.first.duration_s) == {dispatch_s}
        assert set(exchange.second.duration_s) == {combine_s}
        assert (exchange.first.beside_factor, exchange.second.beside_factor) == (1.5, 1.2)
    count = FITTED.price(layer.exchange.dispatch_glue).total_s[0]
    assert set(priced.forward_exchange.first_glue.duration_s) == {count}


def test_layers_priced_together_cost_what_each_costs_alone(v3_step):
    """Those of the first stage and the last: dense, MoE, MTP and heads, at loads of their own."""
    layers = [*v3_step.stages[0], *v3_step.stages[15], *v3_step.stages[0]]
    pricer = LayerPricer(FITTED, ExchangePricer(RATES, v3_step.routing, gpus_per_node=8))
    loads = np.random.default_rng(0).uniform(0.8, 1.2, (len(layers), 64))
    together = pricer.price_all(layers, loads)
    assert [each.kind for each in together] == [layer.kind for layer in layers]
    for each, layer, load in zip(together, layers, loads, strict=True):
        alone = pricer.price(layer, load)
        pairs = [
            (getattr(each, half)[p], getattr(alone, half)[p]) for p in "FBW" for half in HALVES
        ]
        if layer.exchange is not None:
            pairs += [
                (getattr(getattr(each, way), part), getattr(getattr(alone, way), part))
                for way in ("forward_exchange", "backward_exchange")
                for part in ("first", "first_glue", "second")
            ]
        for segment, expected in pairs:
            assert segment.duration_s == pytest.approx(expected.duration_s, rel=1e-12)
            assert segment.beside_factor == pytest.approx(expected.beside_factor, rel=1e-12)


def test_a_dense_layer_has_no_exchange(v3_step):
    pricer = LayerPricer(FITTED, ExchangePricer(RATES, v3_step.routing, gpus_per_node=8))
    priced = pricer.price(v3_step.stages[0][1], np.ones(64))
    assert priced.forward_exchange is priced.backward_exchange is None


def test_op_seconds_are_those_of_the_balanced_layer(v3_step):
    layer = v3_step.stages[3][0]
    pricer = LayerPricer(FITTED, ExchangePricer(RATES, v3_step.routing, gpus_per_node=8))
    priced = pricer.price(layer, np.ones(64))
    forward_s, weight_s = (
        priced.attn[phase].duration_s[0] + priced.mlp[phase].duration_s[0] for phase in "FW"
    )
    found = pricer.op_seconds([(layer, "F", 1), (layer, "W", 3), (layer, "F", 4)])
    assert {each.basis for each in found} == {"profile h800-deepseek"}
    total_s = sum(each.seconds for each in found)
    assert total_s == pytest.approx(5 * forward_s + 3 * weight_s, rel=1e-12)
