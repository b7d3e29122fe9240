"""The library `deepep-h800`: DeepSeek's exchange on H800, from published rates and the trace.

DeepEP's test times whole calls (@058d696, tests/test_internode.py), so that its bandwidths hold the
time of `notify`, which the rates here are free of: notify and transfer together take the published
time. How long notify takes is from another cluster (`deepep-hopper-cluster`).

`library_text` writes the preset that ships; running it again on the same file gives the same text.
"""

from pathlib import Path

import numpy as np

from calibration.fit.kernels import fit_rows
from calibration.fit.profile_document import ProfileDocument, Sourced
from calibration.read.trace_rows import read_trace_data
from hwmodels.chip import ChipSpec
from hwmodels.costs.exchange import Direction, ExchangeParameters
from hwmodels.library import LIBRARIES

NAME = "deepep-h800"
FIG7 = "ISCA'25 (arXiv 2505.09343) Fig. 7"
PUBLISHED_DISPATCH_S, PUBLISHED_COMBINE_S = 2.38e-3, 4.82e-3
"""Standalone EP64 exchange of 4,096 tokens at the rates of ISCA'25 Fig. 7: logical bytes
4096 x 3.98 nodes x 7,392 (FP8 and scales) or 14,336 (BF16) over 50.58 and 48.54 GB/s."""
BESIDE = "mean kernel time in the trace (deepseek-ai/profile-data @4496024) / "
WHOLE_CALL = "; DeepEP's test (@058d696) times whole calls, so less notify"
NOTIFY_CLUSTER = "deepep-hopper-cluster"
FORWARDING: dict[Direction, tuple[float, float]] = {
    "dispatch": (141e9, 1.40e-3),
    "combine": (139e9, 2.76e-3),
}
"""On 16 GPUs, where NVLink binds: its logical bandwidth, and the time, of ISCA'25 Fig. 7."""
NVLINK = Sourced(160e9, "ISCA'25 (arXiv 2505.09343) §4.3: about 160 of 200 GB/s achieved")
README_LOW_LATENCY = "DeepEP README @de8cfca (2025-06), low-latency mode"
PURE_RDMA_RANKS = (8, 16, 32, 64)
PURE_RDMA: dict[Direction, tuple[float, ...]] = {
    "dispatch": (163e-6, 173e-6, 182e-6, 186e-6),
    "combine": (318e-6, 329e-6, 350e-6, 353e-6),
}
"""Low-latency mode of DeepEP README @ebfe47e (2025-02), where all copies take NICs: the same bytes
to more and more peers. No figure is compared with these rows."""
HEADER_BYTES = 16.0
LOW_LATENCY = {
    "dispatch": (7168 + 56 * 4 + HEADER_BYTES, 77e-6, 173e-6),
    "combine": (7168 * 2.0, 114e-6, 314e-6),
}
"""By direction: bytes of one copy on the wire, and the README's times on 8 and 64 GPUs; 128 tokens
of a GPU, eight experts each."""

_COMMENT = """DeepEP on H800 as DeepSeek-V3's training used it. Written by
calibration.presets.deepep_h800 from published rates and the training trace; do not edit, refit."""


def library_text(trace: Path, chip: ChipSpec) -> str:
    """Return the preset as TOML.

    Args:
        trace: DeepSeek's DualPipe training trace.
        chip: the H800.

    Raises:
        CalibrationError: the file cannot be read or fitted.
    """
    transfer_s = fit_rows(read_trace_data(trace), chip).transfer_s
    document = ProfileDocument(
        _COMMENT,
        {
            "version": "2025-02",
            "description": "DeepEP beside DeepSeek-V3's training on H800: expert exchange on 20 "
            "SMs; plain messages and rings by NCCL.",
            "link_nic_bytes_per_s": Sourced(
                50e9, "ISCA'25 (arXiv 2505.09343) §4.3: 400 Gb/s InfiniBand NIC per GPU"
            ),
            "link_nvlink_bytes_per_s": Sourced(
                200e9, "ISCA'25 (arXiv 2505.09343) §4.1: H800 NVLink 400 GB/s, both directions"
            ),
            "message_nic_bytes_per_s": Sourced(
                44e9,
                "ISCA'25 (arXiv 2505.09343) Fig. 5, NCCL all-to-all: plateaus 59, 51, 47 GB/s on "
                "32, 64, 128 GPUs are 44 GB/s a NIC x N / (N - 8); read off the chart",
            ),
            "nvlink_bytes_per_s": NVLINK,
        },
    )
    document.tables["exchange"] = _exchange(*transfer_s.values())
    document.tables["exchange.crowding"] = _crowding()
    for name in ("dispatch_notify", "combine_notify"):
        document.tables[f"exchange.{name}"] = getattr(_notifying(), name).model_dump()
        document.sources[f"exchange.{name}"] = (
            f"preset {NOTIFY_CLUSTER}: the same kernels on another Hopper cluster"
        )
    document.sources["low_latency.header_bytes"] = "DeepEP @de8cfca: an int4 goes with each copy"
    document.tables["low_latency"] = {"header_bytes": HEADER_BYTES}
    for direction, low_latency in _low_latency().items():
        document.tables[f"low_latency.{direction}"] = low_latency
    return document.text()


def _low_latency() -> dict[str, dict[str, object]]:
    """Return the tables `low_latency.*`: two constants a direction from its rows EP8 and EP64.

    On EP8 seven of eight copies cross NVLink, and what its time at 160 GB/s leaves is latency; on
    EP64 seven of eight cross a NIC.
    """
    tables: dict[str, dict[str, object]] = {}
    for direction, (message_bytes, ep8_s, ep64_s) in LOW_LATENCY.items():
        moved_bytes = 128 * 8 * message_bytes * 7 / 8
        latency_s = ep8_s - moved_bytes / NVLINK.value
        tables[direction] = {
            "latency_s": Sourced(
                latency_s, f"{README_LOW_LATENCY}, EP8: {ep8_s * 1e6:.0f} us, less NVLink's time"
            ),
            "nic_bytes_per_s": Sourced(
                moved_bytes / (ep64_s - latency_s),
                f"{README_LOW_LATENCY}, EP64: {ep64_s * 1e6:.0f} us less the latency",
            ),
            "nvlink_bytes_per_s": NVLINK,
        }
    return tables


def _exchange(uncached: float, cached: float, forward: float, backward: float) -> dict[str, object]:
    """Return the table `exchange`, from mean kernel times of two dispatches and two combines."""
    moving_s = {
        "dispatch": PUBLISHED_DISPATCH_S - _notify_s("dispatch", 8),
        "combine": PUBLISHED_COMBINE_S - _notify_s("combine", 8),
    }
    beside = {"dispatch": (uncached + cached) / 2, "combine": (forward + backward) / 2}
    forwarding = np.mean(
        [
            logical * 7 / 8 * whole_s / (whole_s - _notify_s(name, 2))
            for name, (logical, whole_s) in FORWARDING.items()
        ]
    )
    return {
        "dispatch_nic_bytes_per_s": Sourced(
            50.58e9 * 7 / 8 * PUBLISHED_DISPATCH_S / moving_s["dispatch"],
            f"{FIG7}: EP64 dispatch 50.58 GB/s logical x 7/8 that leave the node{WHOLE_CALL}",
        ),
        "combine_nic_bytes_per_s": Sourced(
            48.54e9 * 7 / 8 * PUBLISHED_COMBINE_S / moving_s["combine"],
            f"{FIG7}: EP64 combine 48.54 GB/s logical x 7/8 that leave the node{WHOLE_CALL}",
        ),
        "nvlink_bytes_per_s": Sourced(
            136e9,
            "DeepEP README @3b1045d, EP8: dispatch 153 and combine 158 GB/s logical x 7/8 that "
            "leave the GPU, their mean",
        ),
        "forwarding_nvlink_bytes_per_s": Sourced(
            float(forwarding),
            f"{FIG7}: EP16, bound by NVLink: 1.40 ms dispatch and 2.76 ms combine carry 141 and "
            f"139 GB/s on it, of which 7/8 leave the GPU{WHOLE_CALL}",
        ),
        "saturating_sms": Sourced(
            20, "DeepSeek-V3 report (arXiv 2412.19437) §3.2.2: 20 SMs use all of IB and NVLink"
        ),
        **{
            f"{name}_beside_compute": Sourced(
                beside[name] / moving_s[name],
                f"{BESIDE}{whole_s * 1e3:.2f} ms standalone, {FIG7}, less notify",
            )
            for name, whole_s in (
                ("dispatch", PUBLISHED_DISPATCH_S),
                ("combine", PUBLISHED_COMBINE_S),
            )
        },
    }


def _crowding() -> dict[str, object]:
    """Return the table `exchange.crowding`: of rates on 64 GPUs, whose NICs have 7 peers in normal
    mode, and the exponent of times of the same bytes, less what latency grows by."""
    low_latency = LIBRARIES.load(NOTIFY_CLUSTER).low_latency
    assert low_latency is not None, "the preset is one of low-latency mode"
    peers, slopes = np.array(PURE_RDMA_RANKS) - 1, []
    for direction, times_s in PURE_RDMA.items():
        doubling_s = low_latency.work(direction).node_latency_s or 0.0
        moving_s = np.array(times_s) - doubling_s * np.arange(len(peers))
        slopes.append(np.polyfit(np.log(peers), np.log(moving_s), 1)[0])
    return {
        "peers": Sourced(7, f"{FIG7}: rates of EP64, on 8 nodes"),
        "rate_exponent": Sourced(
            float(np.mean(slopes)),
            "DeepEP README @ebfe47e (2025-02), pure RDMA: the same bytes take longer from EP8 to "
            f"EP64, more than latency grows in {NOTIFY_CLUSTER}; why: DeepEP issue 71",
        ),
    }


def _notify_s(direction: Direction, nodes: int) -> float:
    return float(_notifying().notify_s(direction, nodes))


def _notifying() -> ExchangeParameters:
    """Return the constants of the cluster on which notify was timed apart."""
    exchange = LIBRARIES.load(NOTIFY_CLUSTER).exchange
    assert exchange is not None, "the preset is one of normal mode"
    return exchange
