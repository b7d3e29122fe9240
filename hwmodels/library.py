"""What a communication library achieves on one kind of machine: what no datasheet says.

Rates are bytes of one direction that cross the link: of the copies of a token on n nodes, the one
on its own node never meets a NIC. On links other than those measured on they scale with the link.
"""

from pathlib import Path

from pydantic import Field, model_validator

from hwmodels.costs.exchange import ExchangeParameters
from hwmodels.costs.low_latency import LowLatencyParameters
from hwmodels.costs.scale_up_exchange import ScaleUpExchangeParameters
from hwmodels.protocols import Protocol
from hwmodels.spec import Catalogue, Spec
from hwmodels.units import BytesPerSecond


class LibrarySpec(Spec):
    """One library on one kind of machine.

    Attributes:
        name, version: the library's; another version is another document.
        description: one sentence.
        link_nic_bytes_per_s, link_nvlink_bytes_per_s: datasheet rates of the links measured on, one
            NIC and one GPU's NVLink.
        message_nic_bytes_per_s: of one NIC for plain messages and rings.
        nvlink_bytes_per_s: of one GPU's NVLink for plain messages and rings.
        exchange: the expert exchange in normal mode.
        low_latency: the same in low-latency mode.
        scale_up_exchange: the same inside one NVLink domain, by kernel (`dispatch` ...).
        protocols: by kind of collective (`all_reduce` ...), the ways it has; the fastest is taken.
    """

    name: str
    version: str
    description: str = ""
    link_nic_bytes_per_s: BytesPerSecond | None = None
    link_nvlink_bytes_per_s: BytesPerSecond | None = None
    message_nic_bytes_per_s: BytesPerSecond | None = None
    nvlink_bytes_per_s: BytesPerSecond | None = None
    exchange: ExchangeParameters | None = None
    low_latency: LowLatencyParameters | None = None
    scale_up_exchange: dict[str, ScaleUpExchangeParameters] = Field(default_factory=dict)
    protocols: dict[str, tuple[Protocol, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _rates_know_their_links(self) -> "LibrarySpec":
        for rate, link in (
            ("message_nic_bytes_per_s", "link_nic_bytes_per_s"),
            ("nvlink_bytes_per_s", "link_nvlink_bytes_per_s"),
            ("exchange", "link_nvlink_bytes_per_s"),
            ("low_latency", "link_nvlink_bytes_per_s"),
        ):
            if getattr(self, rate) is not None and getattr(self, link) is None:
                raise ValueError(f"{link}: must be given with {rate}, got none")
        return self


LIBRARIES = Catalogue("library", Path(__file__).parent / "presets" / "libraries", LibrarySpec)
