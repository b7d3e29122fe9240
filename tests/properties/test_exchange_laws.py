"""Laws of dispatch and combine, for every library that ships and both modes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.cluster import CLUSTERS, ClusterSpec
from hwmodels.costs.channels import ExchangeShape, ForwardingWork
from hwmodels.costs.exchange import exchange_s, transfer_s
from hwmodels.errors import InfeasibleError, InputError
from hwmodels.library import LIBRARIES, LibrarySpec
from simulator.network.moe_exchange import BENCHMARK_EXPERTS, ExpertTraffic, moe_exchange
from workloads.blocks.moe import MoESpec

CLUSTER = CLUSTERS.load("h800-2048-mpft")
NAMES = (None, *(name for name in LIBRARIES.names() if name.startswith("deepep-")))
LIBRARY = {name: LIBRARIES.load(name) if name else None for name in NAMES}

SLACK = 1 + 1e-9

modes = st.sampled_from(["normal", "low-latency"])
directions = st.sampled_from(["dispatch", "combine"])
names = st.sampled_from(NAMES)


def choice(experts: int, top_k: int) -> MoESpec:
    return BENCHMARK_EXPERTS.model_copy(update={"routed_experts": experts, "top_k": top_k})


def between_nodes(name: str | None) -> bool:
    library = LIBRARY[name]
    return library is None or library.link_nic_bytes_per_s is not None


def ranks_of(name: str | None) -> list[int]:
    return [1, 2, 4, 8, 16, 32, 64, 128, 256] if between_nodes(name) else [1, 2, 4, 8]


def with_links(cluster: ClusterSpec, nic: float, nvlink: float) -> ClusterSpec:
    node = cluster.node
    chip = node.chip.model_copy(
        update={"nvlink_bytes_per_s": node.chip.nvlink_bytes_per_s * nvlink}
    )
    card = node.nic.model_copy(update={"link_bytes_per_s": node.nic.link_bytes_per_s * nic})
    node = node.model_copy(update={"chip": chip, "nic": card})
    return cluster.model_copy(update={"node": node})


@settings(max_examples=150, deadline=None)
@given(st.data(), modes, directions, names)
def test_nothing_is_faster_than_the_bytes_of_its_busiest_port(data, mode, direction, name) -> None:
    ranks = data.draw(st.sampled_from(ranks_of(name)))
    tokens = data.draw(st.sampled_from([1, 16, 128, 4096, 65536]))
    load = None
    if data.draw(st.booleans()):
        load = tuple(np.random.default_rng(ranks).lognormal(0, 0.5, ranks).tolist())
    traffic = ExpertTraffic(ranks, tokens=tokens, load=load)
    run = moe_exchange(direction, mode, traffic, CLUSTER, LIBRARY[name], sms=24)
    assert run.time_s >= run.bound_s
    assert (run.time_s > 0) == (ranks > 1)
    assert (run.nic_bytes > 0) == (ranks > 8)


@settings(max_examples=60, deadline=None)
@given(st.data(), modes, directions, names)
def test_more_bytes_take_longer_and_faster_links_no_longer(data, mode, direction, name) -> None:
    ranks = data.draw(st.sampled_from(ranks_of(name)[1:]))

    def seconds(tokens=1024, hidden=7168, sms=8, nic=1.0, nvlink=1.0) -> float:
        traffic = ExpertTraffic(ranks, tokens=tokens, hidden=hidden)
        cluster = with_links(CLUSTER, nic, nvlink)
        return moe_exchange(direction, mode, traffic, cluster, LIBRARY[name], sms=sms).time_s

    base = seconds()
    assert seconds(tokens=2048) > base
    assert seconds(hidden=14336) > base
    assert seconds(nic=2.0) <= base
    assert seconds(nvlink=2.0) <= base
    assert seconds(nic=2.0, nvlink=2.0) <= min(seconds(nic=2.0), seconds(nvlink=2.0))
    times = [seconds(sms=sms) for sms in (2, 4, 8, 16, 20, 24, 64, 132)]
    assert all(later <= sooner for sooner, later in pairwise(times))


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        ForwardingWork,
        latency_s=st.floats(1e-7, 1e-4),
        node_latency_s=st.floats(1e-7, 1e-4),
        token_bytes_per_s=st.floats(1e8, 1e11),
        fill_tokens=st.floats(0, 1e4),
    ),
    st.floats(1e9, 1e11),
    st.integers(1, 10**5),
    st.integers(2, 132),
    directions,
)
def test_between_nodes_nothing_that_helps_an_exchange_slows_it(
    forwarding, nic, tokens, sms, direction
) -> None:
    """Whatever its constants, where the slow NIC is and where it is not."""
    exchange = LIBRARY["deepep-hopper-cluster"].exchange
    exchange = exchange.model_copy(
        update={f"{direction}_forwarding": forwarding, f"{direction}_nic_bytes_per_s": nic}
    )

    def shape(tokens: int) -> ExchangeShape:
        return ExchangeShape.of(
            tokens=tokens,
            token_bytes=7392,
            node_copies=[0, 1, 2.7, 3.5],
            gpu_copies=[5.3, 6.5, 7.3, 7.5],
            nodes=[1, 2, 4, 8],
            gpus_per_node=8,
        )

    def seconds(tokens=tokens, sms=sms, **scales: float) -> np.ndarray:
        return exchange_s(exchange, direction, shape(tokens), sms, **scales)

    base = seconds()
    assert np.all(seconds(tokens=tokens + 7) >= base / SLACK)
    assert np.all(seconds(sms=sms + 2) <= base * SLACK)
    assert np.all(seconds(nic_scale=1.3) <= base * SLACK)
    assert np.all(seconds(nvlink_scale=1.3) <= base * SLACK)
    assert np.all(transfer_s(exchange, direction, shape(tokens), sms) <= base * SLACK)


@pytest.mark.parametrize("mode", ["normal", "low-latency"])
def test_uneven_loads_are_no_faster_than_even_ones(mode) -> None:
    library: LibrarySpec | None = LIBRARY["deepep-h800"]
    for seed in range(10):
        load = np.random.default_rng(seed).lognormal(0, 0.3, 64)
        even, uneven = (
            moe_exchange("combine", mode, ExpertTraffic(64, load=each), CLUSTER, library).time_s
            for each in (None, tuple(load.tolist()))
        )
        assert uneven >= even * (1 - 1e-12)


def with_faults(*faults: str, cluster: ClusterSpec = CLUSTER) -> ClusterSpec:
    return cluster.model_validate({**cluster.model_dump(), "faults": list(faults)})


def test_a_failed_plane_slows_an_exchange_and_the_slowest_port_does_not_see_it() -> None:
    """One plane of eight: what its GPUs sent by it goes by the other seven."""
    traffic = ExpertTraffic(64, routed_nodes_max=4)
    library = LIBRARY["deepep-h800"]
    whole, felt = (
        moe_exchange("dispatch", "normal", traffic, each, library, routing="static")
        for each in (CLUSTER, with_faults("plane:3"))
    )
    assert felt.time_s / whole.time_s == pytest.approx(8 / 7, rel=0.02)
    assert felt.nic_bytes == pytest.approx(whole.nic_bytes * 8 / 7, rel=1e-9)
    assert felt.bound_s == pytest.approx(whole.bound_s * 8 / 7, rel=1e-9)
    assert felt.slowest == "nic:0.0 out"


def test_what_a_fault_leaves_is_what_is_told() -> None:
    """EP16: GPU 0 hands over by NVLink what its dead NIC would have sent, and is the slowest."""
    traffic = ExpertTraffic(16, routed_nodes_max=4)
    whole = moe_exchange("dispatch", "normal", traffic, CLUSTER, routing="static")
    told = moe_exchange("dispatch", "normal", traffic, with_faults("plane:0"), routing="static")
    assert whole.slowest == told.slowest == "nvlink out of gpu 0"
    assert told.nic_bytes == pytest.approx(whole.nic_bytes * 8 / 7, rel=1e-9)
    handed_over = whole.nvlink_bytes + whole.nic_bytes
    assert told.nvlink_bytes == pytest.approx(handed_over, rel=1e-9)
    assert told.bound_s == pytest.approx(handed_over / 200e9, rel=1e-9)
    slow = moe_exchange("dispatch", "normal", traffic, with_faults("nic:1.2=0.01"), routing="ecmp")
    assert slow.slowest == "nic:1.2 out"
    assert slow.bound_s == pytest.approx(whole.nic_bytes / 0.5e9, rel=1e-9)
    assert slow.nic_bytes == pytest.approx(whole.nic_bytes, rel=1e-9)


@pytest.mark.parametrize("mode", ["normal", "low-latency"])
@pytest.mark.parametrize("ranks", [1, 8, 16])
def test_a_dead_node_is_told_as_collectives_tell_it(mode, ranks) -> None:
    broken = with_faults("node:0")
    with pytest.raises(InfeasibleError) as caught:
        moe_exchange("dispatch", mode, ExpertTraffic(ranks), broken, routing="static")
    assert str(caught.value) == "group: node 0 is down, and with it GPUs 0 to 7"


@pytest.mark.parametrize("routing", ["static", "adaptive"])
def test_flows_are_named_only_where_they_meet(routing) -> None:
    """Balanced on planes nothing meets; behind one uplink of a leaf it does."""
    for ranks in (8, 16, 32, 64, 128):
        for direction in ("dispatch", "combine"):
            traffic = ExpertTraffic(ranks, routed_nodes_max=4)
            run = moe_exchange(direction, "normal", traffic, CLUSTER, routing=routing)
            assert run.slowest == ("nic" if ranks > 16 else "nvlink") + " out of gpu 0"
    leaf = [f"link:0.0.{uplink}=0.01" for uplink in range(32)]
    rails = with_faults(*leaf, cluster=CLUSTERS.load("h800-2048-ft2"))
    run = moe_exchange("dispatch", "normal", ExpertTraffic(64), rails, routing=routing)
    assert "flows that meet on " in run.slowest
    assert run.bound_s <= run.time_s


@given(st.data(), modes, directions, st.sampled_from(["static", "ecmp", "adaptive"]))
@settings(max_examples=40, deadline=None)
def test_played_exchanges_are_no_faster_than_their_bound(data, mode, direction, routing) -> None:
    some = ["plane:0", "nic:0.1", "nic:1.2=0.3", "node:1=0.5", "leaf:3.0=0.2", "link:0.0.0"]
    faults = data.draw(st.lists(st.sampled_from(some), unique=True, max_size=3))
    ranks = data.draw(st.sampled_from([4, 8, 16, 64]))
    load = tuple(np.random.default_rng(ranks).lognormal(0, 0.5, ranks).tolist())
    traffic = ExpertTraffic(ranks, tokens=64, load=load)
    run = moe_exchange(direction, mode, traffic, with_faults(*faults), routing=routing)
    assert run.time_s >= run.bound_s


@pytest.mark.parametrize("mode", ["normal", "low-latency"])
@pytest.mark.parametrize("routing", [None, "static"])
def test_the_overloaded_gpu_receives_in_dispatch_and_sends_in_combine(mode, routing) -> None:
    load = tuple(4.0 if rank == 3 else 1.0 for rank in range(16))
    traffic = ExpertTraffic(16, tokens=512, load=load, routed_nodes_max=4)
    port = "nvlink" if mode == "normal" else "nic"
    for direction, way in (("dispatch", "into"), ("combine", "out of")):
        run = moe_exchange(direction, mode, traffic, CLUSTER, routing=routing)
        assert run.slowest == f"{port} {way} gpu 3"


@pytest.mark.parametrize(
    ("cluster", "mode", "ranks", "switches", "nvlink"),
    [
        ("h800-2048-mpft", "normal", 8, 0, 1),
        ("h800-2048-mpft", "normal", 16, 1, 1),
        ("h800-2048-mpft", "normal", 256, 1, 1),
        ("h800-2048-mpft", "low-latency", 8, 0, 1),
        ("h800-2048-mpft", "low-latency", 16, 1, 1),
        ("h800-2048-mrft", "low-latency", 16, 3, 0),
        ("h800-2048-mrft", "normal", 16, 1, 1),
        ("h800-2048-ft2", "low-latency", 64, 3, 0),
        ("h800-2048-ft2", "normal", 64, 3, 1),
    ],
)
def test_without_a_library_latency_is_that_of_the_links_crossed(
    cluster, mode, ranks, switches, nvlink
) -> None:
    """A token of 128 elements takes no time itself; switches are those between these nodes."""
    spec = CLUSTERS.load(cluster)
    traffic = ExpertTraffic(ranks, tokens=1, hidden=128)
    run = moe_exchange("dispatch", mode, traffic, spec)
    latency_s = nvlink * spec.node.scale_up.latency_s
    if switches:
        latency_s += spec.fabric.latency_s(switches)
    assert run.time_s == pytest.approx(latency_s, rel=0.01)


REFUSED_STRAIGHT = "ranks: must divide the 256 experts, fill nodes of 8 GPUs or divide one, got {}"


def test_low_latency_mode_takes_groups_that_hold_the_experts() -> None:
    """288 experts on 256 GPUs are what DeepEP publishes; parts of a node may divide either."""
    for ranks, experts in ((256, 288), (6, 288), (4, 10), (64, 100), (256, 256), (12, 240)):
        traffic = ExpertTraffic(ranks, tokens=128, moe=choice(experts, 8))
        assert moe_exchange("combine", "low-latency", traffic, CLUSTER).time_s > 0
    refused = {
        (2048, 256): "ranks: must be at most the 256 experts, got 2048",
        (16, 10): "ranks: must be at most the 10 experts, got 16",
        (7, 256): REFUSED_STRAIGHT.format(7),
        (12, 256): REFUSED_STRAIGHT.format(12),
    }
    for (ranks, experts), message in refused.items():
        traffic = ExpertTraffic(ranks, tokens=128, moe=choice(experts, 8))
        with pytest.raises(InfeasibleError) as caught:
            moe_exchange("combine", "low-latency", traffic, CLUSTER)
        assert str(caught.value) == message


def test_copies_inside_a_node_are_not_played_over_nics() -> None:
    with pytest.raises(InputError, match="over_nvlink: must be true where flows are played"):
        moe_exchange(
            "dispatch",
            "low-latency",
            ExpertTraffic(16),
            CLUSTER,
            over_nvlink=False,
            routing="static",
        )


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"ranks": 0}, "ranks: must be from 1 to 8,192, got 0"),
        ({"ranks": 8193}, "ranks: must be from 1 to 8,192, got 8193"),
        ({"ranks": 8, "tokens": 10**400}, "tokens: must be from 1 to 1,000,000,000, got 1"),
        ({"ranks": 12}, "ranks: must divide the 256 experts, got 12"),
        ({"ranks": 24}, "ranks: must divide the 256 experts, got 24"),
        ({"ranks": 8, "tokens": 0}, "tokens: must be from 1 to 1,000,000,000, got 0"),
        ({"ranks": 8, "load": (1.0,)}, "load: must have one number for each of 8 GPUs"),
        ({"ranks": 2, "load": (0.0, 0.0)}, "load: some rank must have a load above 0"),
        ({"ranks": 2, "load": (-1.0, 2.0)}, "load: must be 0 or more and finite"),
        (
            {"ranks": 64, "routed_nodes_max": 1, "moe": choice(256, 64)},
            "hold fewer than top_k = 64",
        ),
    ],
)
def test_bad_traffic_is_refused_in_one_line(ask, message) -> None:
    with pytest.raises(InputError) as caught:
        moe_exchange("dispatch", "normal", ExpertTraffic(**ask), CLUSTER)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_library_or_a_cluster_lacks_is_named() -> None:
    traffic = ExpertTraffic(16)
    for mode in ("normal", "low-latency"):
        with pytest.raises(InfeasibleError, match="library deepep-h100: "):
            moe_exchange("dispatch", mode, traffic, CLUSTER, LIBRARY["deepep-h100"])
    with pytest.raises(InputError, match="sms: must be 1 to 132, got 0"):
        moe_exchange("dispatch", "normal", traffic, CLUSTER, sms=0)
    with pytest.raises(InputError, match="must be one of normal, low-latency, got 'fast'"):
        moe_exchange("dispatch", "fast", traffic, CLUSTER)
    small = CLUSTER.model_copy(update={"nodes": 1})
    with pytest.raises(InfeasibleError, match="group: must fill nodes of 8 GPUs, 1 at most"):
        moe_exchange("dispatch", "normal", traffic, small)
