"""Times of dispatch and combine by hand, both modes."""

import pytest

from hwmodels.costs.channels import ChannelWork, ExchangeShape, ForwardingWork
from hwmodels.costs.exchange import (
    Crowding,
    ExchangeParameters,
    Notify,
    SlowNic,
    exchange_s,
    transfer_s,
)
from hwmodels.costs.low_latency import (
    LowLatencyParameters,
    LowLatencyShape,
    LowLatencyWork,
    low_latency_s,
)
from hwmodels.errors import InfeasibleError

RATES = ExchangeParameters(
    dispatch_nic_bytes_per_s=10e9,
    combine_nic_bytes_per_s=5e9,
    nvlink_bytes_per_s=200e9,
    forwarding_nvlink_bytes_per_s=100e9,
    saturating_sms=20,
)


def shape(nodes: int = 2, tokens: float = 1000.0) -> ExchangeShape:
    """Tokens of 1,000 bytes to one other node, and to four GPUs of nodes of four."""
    copies = 1.0 if nodes > 1 else 0.0
    return ExchangeShape.of(
        tokens=tokens,
        token_bytes=1000.0,
        node_copies=copies,
        gpu_copies=4.0,
        nodes=nodes,
        gpus_per_node=4,
    )


def test_between_nodes_the_nic_decides_and_each_direction_has_its_rate() -> None:
    """1 MB out of every NIC."""
    assert exchange_s(RATES, "dispatch", shape(), 20) == pytest.approx(1e-4, rel=1e-12)
    assert exchange_s(RATES, "combine", shape(), 20) == pytest.approx(2e-4, rel=1e-12)


def test_inside_a_node_three_quarters_of_the_copies_cross_nvlink_and_none_a_nic() -> None:
    assert exchange_s(RATES, "dispatch", shape(1), 20) == pytest.approx(3e6 / 200e9, rel=1e-12)


def test_half_the_saturating_sms_are_half_the_rate_and_more_are_no_more() -> None:
    assert exchange_s(RATES, "dispatch", shape(), 10) == pytest.approx(2e-4, rel=1e-12)
    assert exchange_s(RATES, "dispatch", shape(), 40) == pytest.approx(1e-4, rel=1e-12)


def test_a_link_twice_as_fast_halves_what_it_decides() -> None:
    fast = exchange_s(RATES, "dispatch", shape(), 20, nic_scale=2, nvlink_scale=1)
    assert fast == pytest.approx(0.5e-4, rel=1e-12)
    faster = exchange_s(RATES, "dispatch", shape(), 20, nic_scale=100, nvlink_scale=2)
    assert faster == pytest.approx(3e6 / 200e9, rel=1e-12)


def test_notify_takes_more_with_every_doubling_of_nodes_and_nothing_inside_one() -> None:
    notify = Notify(latency_s=3e-5, node_latency_s=2e-5)
    parameters = RATES.model_copy(update={"dispatch_notify": notify})
    found = parameters.notify_s("dispatch", [1, 2, 4, 8])
    assert found == pytest.approx([0, 3e-5, 5e-5, 7e-5], rel=1e-12)
    assert parameters.notify_s("combine", [1, 2, 8]).tolist() == [0, 0, 0]


def test_a_nic_with_more_peers_is_slower_by_a_power_and_as_measured_with_as_many() -> None:
    """Rates of two nodes, one peer: on five nodes there are four, half as fast by the root."""
    crowded = RATES.model_copy(update={"crowding": Crowding(peers=1, rate_exponent=0.5)})
    rates = crowded.nic_bytes_per_s("dispatch", [1, 2, 5])
    assert rates == pytest.approx([10e9, 10e9, 5e9], rel=1e-12)
    assert exchange_s(crowded, "dispatch", shape(5), 20) == pytest.approx(2e-4, rel=1e-12)


WORK = ChannelWork(latency_s=1e-5, fill_bytes_per_s=1e9, token_s=1e-6, copy_bytes_per_s=1e9)
FORWARDING = ForwardingWork(
    latency_s=2e-5, node_latency_s=3e-5, token_bytes_per_s=1e9, fill_tokens=250
)
CHANNELS = ExchangeParameters.model_validate(
    RATES.model_dump()
    | {"saturating_sms": None, "dispatch_work": WORK, "combine_work": WORK}
    | {"dispatch_forwarding": FORWARDING, "combine_forwarding": FORWARDING}
)


def test_channels_work_through_their_share_of_tokens() -> None:
    """Two channels of 500 tokens: 1 us a token, a team a GPU at 1 GB/s, 1 us for the first one."""
    assert exchange_s(CHANNELS, "dispatch", shape(1), 4) == pytest.approx(
        1e-5 + 1e-6 + 500 * (1e-6 + 1e-6), rel=1e-12
    )


def test_the_channel_with_most_tokens_decides() -> None:
    """Three tokens on two channels are two, one after the other."""
    three, four = (exchange_s(CHANNELS, "dispatch", shape(1, tokens), 4) for tokens in (3, 4))
    assert three == four == pytest.approx(1e-5 + 1e-6 + 2 * 2e-6, rel=1e-12)


def test_between_nodes_the_first_tokens_take_channels_and_nics_in_turn() -> None:
    """500 us of channels, 100 of NICs: a fifth of these, 250 tokens of 1,250, overlaps nothing."""
    assert exchange_s(CHANNELS, "dispatch", shape(), 4) == pytest.approx(
        2e-5 + 500e-6 + 100e-6 / 5, rel=1e-12
    )
    # Eight nodes are two doublings more than two; of 1,000 channels each has a token.
    assert exchange_s(CHANNELS, "combine", shape(8), 2000) == pytest.approx(
        2e-5 + 2 * 3e-5 + 200e-6 + 1e-6 / 5, rel=1e-12
    )


def test_an_exchange_lasts_until_the_slowest_nic_is_done() -> None:
    """At 1 GB/s 1 MB takes 1 ms, on eight nodes, where that NIC is, and more."""
    slow = SlowNic(nodes=8, bytes_per_s=1e9, buffer_tokens=20)
    felt = RATES.model_copy(update={"slow_nic": slow})
    for way in ("dispatch", "combine"):
        assert exchange_s(felt, way, shape(8), 20) == pytest.approx(1e-3, rel=1e-12)
        assert exchange_s(felt, way, shape(4), 20) == exchange_s(RATES, way, shape(4), 20)
        assert transfer_s(felt, way, shape(4), 20) == exchange_s(RATES, way, shape(4), 20)
    assert transfer_s(felt, "dispatch", shape(8), 20) == exchange_s(felt, "dispatch", shape(8), 20)


def test_a_combine_leaves_behind_what_buffers_hold_and_waits_in_the_next_notify() -> None:
    """Of 1,000 copies for a GPU ten channels hold 200 on the way to the slow NIC, or all."""
    for buffer_tokens, transfer in ((20, 0.8e-3), (100, 0.2e-3)):
        slow = SlowNic(nodes=8, bytes_per_s=1e9, buffer_tokens=buffer_tokens)
        felt = RATES.model_copy(update={"slow_nic": slow})
        assert transfer_s(felt, "combine", shape(8), 20) == pytest.approx(transfer, rel=1e-12)


def test_channels_between_nodes_come_with_nics_and_with_channels() -> None:
    without = CHANNELS.model_dump() | {"combine_forwarding": None}
    with pytest.raises(ValueError, match="must have dispatch_forwarding and combine_forwarding"):
        ExchangeParameters.model_validate(without)
    with pytest.raises(ValueError, match="and only then, got"):
        ExchangeParameters.model_validate(RATES.model_dump() | {"dispatch_forwarding": FORWARDING})


def test_one_gpu_alone_takes_no_time() -> None:
    alone = ExchangeShape.of(
        tokens=10, token_bytes=10, node_copies=0, gpu_copies=1, nodes=1, gpus_per_node=1
    )
    assert exchange_s(RATES, "dispatch", alone, 20, link_latency_s=1.0) == 0


def test_a_library_of_one_node_refuses_two() -> None:
    inside = ExchangeParameters(nvlink_bytes_per_s=1e11, saturating_sms=20)
    with pytest.raises(InfeasibleError, match="allowed is 1 node, got 2"):
        exchange_s(inside, "dispatch", shape(), 20)


# Low-latency mode

DIRECT = LowLatencyParameters(
    header_bytes=16,
    dispatch=LowLatencyWork(latency_s=1e-5, nic_bytes_per_s=50e9, nvlink_bytes_per_s=200e9),
    combine=LowLatencyWork(latency_s=2e-5, nic_bytes_per_s=40e9, nvlink_bytes_per_s=200e9),
)


def direct(nodes: int, over_nvlink: bool = True, experts: int = 256) -> LowLatencyShape:
    """128 tokens of 984 bytes, eight experts each, on nodes of eight GPUs of 100 SMs."""
    return LowLatencyShape.of(
        tokens=128,
        token_bytes=984,
        top_k=8,
        experts=experts,
        nodes=nodes,
        gpus_per_node=8,
        sms=100,
        over_nvlink=over_nvlink,
    )


def test_copies_to_other_nodes_take_the_nic_and_the_rest_nvlink() -> None:
    """1,024 copies of 1,000 bytes with their header: half of them leave two nodes of eight."""
    assert low_latency_s(DIRECT, "dispatch", direct(2)) == pytest.approx(
        1e-5 + 512e3 / 50e9, rel=1e-12
    )
    assert low_latency_s(DIRECT, "combine", direct(2)) == pytest.approx(
        2e-5 + 512 * 984 / 40e9, rel=1e-12
    )
    assert low_latency_s(DIRECT, "dispatch", direct(1)) == pytest.approx(
        1e-5 + 896e3 / 200e9, rel=1e-12
    )


def test_without_nvlink_all_but_its_own_copies_take_the_nic() -> None:
    assert low_latency_s(DIRECT, "dispatch", direct(2, over_nvlink=False)) == pytest.approx(
        1e-5 + 1024e3 * 15 / 16 / 50e9, rel=1e-12
    )


def test_few_experts_keep_few_sms_at_work() -> None:
    """Eight experts use 8 SMs, 256 use 256 / 3 of 100."""
    work = DIRECT.dispatch.model_copy(update={"token_s": 1e-5, "expert_s": 1e-8})
    slow = DIRECT.model_copy(update={"dispatch": work})
    assert low_latency_s(slow, "dispatch", direct(1, experts=8)) == pytest.approx(
        1e-5 + 8e-8 + 16 * 1e-5, rel=1e-12
    )
    assert low_latency_s(slow, "dispatch", direct(1)) == pytest.approx(
        1e-5 + 256e-8 + 128 / (256 / 3) * 1e-5, rel=1e-12
    )


def test_more_nodes_and_longer_sums_add_to_the_latency() -> None:
    work = DIRECT.combine.model_copy(update={"node_latency_s": 1e-6, "sum_bytes_per_s": 1e9})
    slow = DIRECT.model_copy(update={"combine": work})
    assert low_latency_s(slow, "combine", direct(4)) == pytest.approx(
        2e-5 + 2e-6 + 8 * 984 / 1e9 + 768 * 984 / 40e9, rel=1e-12
    )


def test_low_latency_measured_over_nvlink_refuses_nics() -> None:
    work = DIRECT.dispatch.model_copy(update={"nic_bytes_per_s": None})
    inside = DIRECT.model_copy(update={"dispatch": work})
    assert low_latency_s(inside, "dispatch", direct(1)) > 0
    with pytest.raises(InfeasibleError, match="allowed is 1 node, got 2"):
        low_latency_s(inside, "dispatch", direct(2))
