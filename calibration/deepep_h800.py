"""The library `deepep-h800`: DeepSeek's exchange on H800, from published rates and the trace.

`library_text` writes the preset that ships; running it again on the same file gives the same text.
"""

from pathlib import Path

from calibration.fit import fit_rows
from calibration.profile_document import ProfileDocument, Sourced
from calibration.trace_rows import read_trace_data
from hwmodels.chip import ChipSpec

NAME = "deepep-h800"
FIG7 = "ISCA'25 (arXiv 2505.09343) Fig. 7"
PUBLISHED_DISPATCH_S, PUBLISHED_COMBINE_S = 2.38e-3, 4.82e-3
"""Standalone EP64 exchange of 4,096 tokens at the rates of ISCA'25 Fig. 7: logical bytes
4096 x 3.98 nodes x 7,392 (FP8 and scales) or 14,336 (BF16) over 50.58 and 48.54 GB/s."""
BESIDE = "mean kernel time in the trace (deepseek-ai/profile-data @4496024) / "
NVLINK = Sourced(160e9, "ISCA'25 (arXiv 2505.09343) §4.3: about 160 of 200 GB/s achieved")
README_LOW_LATENCY = "DeepEP README @de8cfca (2025-06), low-latency mode"
HEADER_BYTES = 16.0
LOW_LATENCY = {
    "dispatch": (7168 + 56 * 4 + HEADER_BYTES, 77e-6, 173e-6),
    "combine": (7168 * 2.0, 114e-6, 314e-6),
}
"""By direction: bytes of one copy on the wire, and the README's times on 8 and 64 GPUs; 128 tokens
of a GPU, eight experts each."""

_COMMENT = """DeepEP on H800 as DeepSeek-V3's training used it. Written by calibration.deepep_h800
from published rates and the training trace; do not edit, refit."""


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
    dispatch_s, combine_s = (uncached + cached) / 2, (forward + backward) / 2
    return {
        "dispatch_nic_bytes_per_s": Sourced(
            44.3e9, f"{FIG7}: EP64 dispatch 50.58 GB/s logical x 7/8 that leave the node"
        ),
        "combine_nic_bytes_per_s": Sourced(
            42.5e9, f"{FIG7}: EP64 combine 48.54 GB/s logical x 7/8 that leave the node"
        ),
        "nvlink_bytes_per_s": Sourced(
            136e9,
            "DeepEP README @3b1045d, EP8: dispatch 153 and combine 158 GB/s logical x 7/8 that "
            "leave the GPU, their mean",
        ),
        "forwarding_nvlink_bytes_per_s": Sourced(
            122.5e9,
            f"{FIG7}: EP16, bound by NVLink: 1.40 ms dispatch and 2.76 ms combine carry 141 and "
            "139 GB/s on it, of which 7/8 leave the GPU",
        ),
        "saturating_sms": Sourced(
            20, "DeepSeek-V3 report (arXiv 2412.19437) §3.2.2: 20 SMs use all of IB and NVLink"
        ),
        "dispatch_beside_compute": Sourced(
            dispatch_s / PUBLISHED_DISPATCH_S, f"{BESIDE}2.38 ms standalone, {FIG7}"
        ),
        "combine_beside_compute": Sourced(
            combine_s / PUBLISHED_COMBINE_S, f"{BESIDE}4.82 ms standalone, {FIG7}"
        ),
    }
