"""Times of dispatch and combine by hand, both modes."""

import pytest

from hwmodels.costs.exchange import (
    ChannelWork,
    ExchangeParameters,
    ExchangeShape,
    Notify,
    exchange_s,
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


def test_channels_work_through_their_share_of_tokens() -> None:
    """Two channels of 500 tokens: 1 us a token, 2 us a node copy, a team a GPU at 1 GB/s."""
    work = ChannelWork(
        latency_s=1e-5,
        forwarding_latency_s=2e-5,
        node_latency_s=3e-5,
        fill_bytes_per_s=1e9,
        token_s=1e-6,
        node_copy_s=2e-6,
        copy_bytes_per_s=1e9,
    )
    channels = RATES.model_copy(
        update={"saturating_sms": None, "dispatch_work": work, "combine_work": work}
    )
    fill = 1e-6
    assert exchange_s(channels, "dispatch", shape(), 4) == pytest.approx(
        2e-5 + fill + 500 * (1e-6 + 2e-6 + 1e-6), rel=1e-12
    )
    assert exchange_s(channels, "dispatch", shape(1), 4) == pytest.approx(
        1e-5 + fill + 500 * (1e-6 + 1e-6), rel=1e-12
    )
    # Eight nodes are two doublings more than two; a thousand SMs leave the NIC.
    assert exchange_s(channels, "combine", shape(8), 1000) == pytest.approx(
        2e-5 + 2 * 3e-5 + fill + 2e-4, rel=1e-12
    )


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
