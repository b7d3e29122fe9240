"""Laws of dispatch and combine, for every library that ships and both modes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.cluster import CLUSTERS, ClusterSpec
from hwmodels.errors import InfeasibleError, InputError
from hwmodels.library import LIBRARIES, LibrarySpec
from simulator.network.moe_exchange import ExpertTraffic, moe_exchange

CLUSTER = CLUSTERS.load("h800-2048-mpft")
NAMES = (None, *(name for name in LIBRARIES.names() if name.startswith("deepep-")))
LIBRARY = {name: LIBRARIES.load(name) if name else None for name in NAMES}

modes = st.sampled_from(["normal", "low-latency"])
directions = st.sampled_from(["dispatch", "combine"])
names = st.sampled_from(NAMES)


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


def test_a_failed_plane_slows_an_exchange_and_the_slowest_port_does_not_see_it() -> None:
    """One plane of eight: what its GPUs sent by it goes by the other seven."""
    traffic = ExpertTraffic(64, routed_nodes_max=4)
    broken = CLUSTER.model_validate({**CLUSTER.model_dump(), "faults": ["plane:3"]})
    library = LIBRARY["deepep-h800"]
    whole, felt = (
        moe_exchange("dispatch", "normal", traffic, each, library, routing="static").time_s
        for each in (CLUSTER, broken)
    )
    assert felt / whole == pytest.approx(8 / 7, rel=0.02)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"ranks": 0}, "ranks: must be 1 or more, got 0"),
        ({"ranks": 12}, "ranks: beyond one node must fill whole nodes of 8 GPUs, got 12"),
        ({"ranks": 24}, "ranks: must divide the 256 experts, got 24"),
        ({"ranks": 8, "top_k": 300}, "top_k: at most the 256 experts, got 300"),
        ({"ranks": 8, "load": (1.0,)}, "load: must have one number for each of 8 GPUs"),
        ({"ranks": 2, "load": (0.0, 0.0)}, "load: some rank must have a load above 0"),
        ({"ranks": 2, "load": (-1.0, 2.0)}, "load: must be 0 or more and finite"),
        ({"ranks": 64, "routed_nodes_max": 1, "top_k": 64}, "hold fewer than top_k = 64"),
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
