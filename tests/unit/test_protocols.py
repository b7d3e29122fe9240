"""Collectives inside one switched node as a library's protocols move them: by hand, and laws."""

import numpy as np
import pytest

from hwmodels.chip import CHIPS
from hwmodels.cluster import CLUSTERS
from hwmodels.costs.protocol import (
    library_collective_s,
    own_bytes,
    protocol_fixed_s,
    protocol_s,
    protocols_s,
    steps,
    wire_bytes,
)
from hwmodels.costs.scale_up_exchange import ScaleUpExchangeParameters, scale_up_exchange_s
from hwmodels.errors import OutOfRangeError, SpecError
from hwmodels.library import LIBRARIES, LibrarySpec
from hwmodels.protocols import Protocol

LL = Protocol(name="LL", algorithm="ring", launch_s=4e-6, step_s=1e-6, nvlink_efficiency=0.25)
SIMPLE = Protocol(
    name="Simple",
    algorithm="ring",
    launch_s=10e-6,
    step_s=2e-6,
    nvlink_efficiency=0.8,
    own_bytes_per_s=1e12,
)
NVLS = Protocol(
    name="NVLS", algorithm="in-network", launch_s=20e-6, step_s=0.0, nvlink_efficiency=0.6
)
LIBRARY = LibrarySpec(name="x", version="1", protocols={"all_reduce": (LL, SIMPLE, NVLS)})
RATE = 400e9
FITTED = [
    name for name in LIBRARIES.names() if name.startswith(("nccl", "trtllm", "sglang", "vllm"))
]
COLLECTIVES = [
    pytest.param(name, kind, id=f"{name}-{kind}")
    for name in FITTED
    for kind in LIBRARIES.load(name).protocols
]


@pytest.mark.parametrize(
    ("algorithm", "kind", "step", "moved"),
    [
        ("ring", "all_gather", 7, 7 / 8),
        ("ring", "reduce_scatter", 7, 7 / 8),
        ("ring", "all_reduce", 14, 14 / 8),
        ("ring", "broadcast", 7, 1),
        ("tree", "all_reduce", 6, 2),
        ("pairwise", "all_to_all", 7, 7 / 8),
        ("pairwise", "send_recv", 1, 1),
        ("one-shot", "all_reduce", 7, 7),
        ("two-shot", "all_reduce", 14, 14 / 8),
        ("in-network", "all_reduce", 2, 9 / 8),
        ("in-network", "all_gather", 1, 1),
    ],
)
def test_steps_and_bytes_of_eight_ranks(
    algorithm: str, kind: str, step: float, moved: float
) -> None:
    assert steps(algorithm, kind, 8) == step
    assert wire_bytes(algorithm, kind, 8, 1e6) == pytest.approx(moved * 1e6)


def test_a_protocol_by_hand() -> None:
    """All-reduce of 8 MB on 8 ranks: 14 steps, 14 MB on a wire at 320 GB/s, 1 MB kept."""
    assert own_bytes("all_reduce", 8, 8e6) == 1e6
    assert protocol_fixed_s(SIMPLE, 14, 1e6) == pytest.approx(10e-6 + 14 * 2e-6 + 1e-6)
    expected = 10e-6 + 28e-6 + 14e6 / 320e9 + 1e-6
    assert protocol_s(SIMPLE, 14, 14e6, RATE, 1e6) == pytest.approx(expected)
    assert protocols_s([SIMPLE], "all_reduce", 8, 8e6, RATE) == pytest.approx(expected)


def test_a_library_is_as_fast_as_its_fastest_protocol() -> None:
    size = np.array([1e3, 3e6, 1e9])
    times = protocols_s(LIBRARY.protocols["all_reduce"], "all_reduce", 8, size, RATE)
    assert times.argmin(axis=0).tolist() == [0, 2, 2]
    np.testing.assert_array_equal(
        library_collective_s(LIBRARY, "all_reduce", 8, size, RATE), times.min(axis=0)
    )


def test_a_switch_that_cannot_add_is_not_asked_to() -> None:
    together = library_collective_s(LIBRARY, "all_reduce", 8, 1e9, RATE, in_network=[True, False])
    assert together[0] == pytest.approx(20e-6 + 1.125e9 / 240e9)
    assert together[1] == pytest.approx(10e-6 + 28e-6 + 1.75e9 / 320e9 + 0.125e9 / 1e12)


def test_one_rank_costs_nothing_and_an_empty_message_something() -> None:
    np.testing.assert_array_equal(library_collective_s(LIBRARY, "all_reduce", 1, 1e9, RATE), 0.0)
    assert library_collective_s(LIBRARY, "all_reduce", 2, 0.0, RATE) == pytest.approx(6e-6)


def test_unknown_collectives_are_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"library x: no collective 'all_gather'.*all_reduce"):
        library_collective_s(LIBRARY, "all_gather", 8, 1e6, RATE)
    with pytest.raises(SpecError, match=r"all_to_all: algorithm must be one of .*, got 'ring'"):
        steps("ring", "all_to_all", 8)


@pytest.mark.parametrize(("name", "kind"), COLLECTIVES)
def test_fitted_collectives_grow_with_bytes(name: str, kind: str) -> None:
    """And never beat the datasheet rate of the link."""
    library = LIBRARIES.load(name)
    rate = library.link_nvlink_bytes_per_s
    assert rate is not None
    size, ranks = np.geomspace(1, 2**34, 200), np.array([2, 3, 4, 8])[:, None]
    times = library_collective_s(library, kind, ranks, size, rate)
    assert (np.diff(times, axis=1) > 0).all()
    least = size * (1 if kind in ("broadcast", "send_recv") else (ranks - 1) / ranks)
    assert (times > least / rate).all()
    assert (times > 1e-6).all()


@pytest.mark.parametrize(("name", "kind"), COLLECTIVES)
def test_fitted_collectives_grow_with_ranks(name: str, kind: str) -> None:
    """But in the switch, where a rank moves S(p+1)/p: on H100 eight are faster than four.

    An all-to-all with the same bytes for each peer: peers are served side by side.
    """
    library = LIBRARIES.load(name)
    rate = library.link_nvlink_bytes_per_s
    assert rate is not None
    size, ranks = np.geomspace(1, 2**34, 200), np.arange(2, 9)[:, None]
    share = ranks if kind == "all_to_all" else 1
    times = library_collective_s(library, kind, ranks, size * share, rate, in_network=False)
    assert (np.diff(times, axis=0) >= 0).all()


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_library_knows_the_link_of_its_chip(name: str) -> None:
    chip = CHIPS.load(name.rpartition("-")[2])
    assert LIBRARIES.load(name).link_nvlink_bytes_per_s == chip.nvlink_bytes_per_s


@pytest.mark.parametrize("kind", ["all_gather", "all_reduce", "all_to_all", "broadcast"])
@pytest.mark.parametrize("size_bytes", [1e3, 1e6, 1e9])
def test_the_network_of_one_node_says_the_same(kind: str, size_bytes: float) -> None:
    """Flows over the switch of a node and the formula are two ways to one number."""
    from simulator.network.links import Network
    from simulator.network.run import run_collective

    cluster, library = CLUSTERS.load("h100-2048"), LIBRARIES.load("nccl-h100")
    expected = library_collective_s(library, kind, 8, size_bytes, 450e9)
    run = run_collective(kind, size_bytes, range(8), Network.of(cluster), library)
    assert run.time_s == pytest.approx(float(expected), rel=1e-6)


EXCHANGE = ScaleUpExchangeParameters(
    launch_s=10e-6, rank_s=1e-7, token_s=5e-8, nvlink_efficiency=0.8
)


def test_an_exchange_in_a_scale_up_domain_by_hand() -> None:
    """1,000 tokens of 7,168 bytes on 16 ranks: 8 copies, 15/16 of them leave the GPU."""
    time_s = scale_up_exchange_s(EXCHANGE, 1000, 16, 8, 7168, 900e9)
    assert time_s == pytest.approx(10e-6 + 15e-7 + 50e-6 + 1000 * 7.5 * 7168 / 720e9)
    np.testing.assert_array_equal(scale_up_exchange_s(EXCHANGE, 1000, 1, 1, 7168, 900e9), 0.0)


def test_a_kernel_that_sends_next_to_nothing_costs_no_wire() -> None:
    counting = EXCHANGE.model_copy(update={"nvlink_efficiency": None})
    time_s = scale_up_exchange_s(counting, 1000, 16, 8, 7168, 900e9)
    assert time_s == pytest.approx(10e-6 + 15e-7 + 50e-6)


def test_the_fitted_exchange_grows_with_tokens_and_ranks() -> None:
    kernels = LIBRARIES.load("trtllm-alltoall-gb200").scale_up_exchange
    assert set(kernels) >= {"prepare", "dispatch", "combine"}
    tokens, ranks = np.arange(1, 4096)[:, None], np.array([2, 4, 8, 16, 32, 64])
    for parameters in kernels.values():
        times = scale_up_exchange_s(parameters, tokens, ranks, np.minimum(8, ranks), 7168.0, 900e9)
        assert (np.diff(times, axis=0) > 0).all()
        assert (np.diff(times, axis=1) > 0).all()
