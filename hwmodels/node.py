"""One node: GPUs joined by a scale-up fabric, the NICs that leave it, and the host beside them.

Bandwidths are one direction. Not modelled: PCIe switch trees and NUMA distance; a GPU is assumed
to reach its own NIC without crossing another GPU's path.
"""

import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from hwmodels.chip import ChipSpec
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics.clos import Clos
from hwmodels.fabrics.topology import Topology
from hwmodels.spec import Catalogue, Spec
from hwmodels.units import Bytes, BytesPerSecond, LinkRate, Parts, Seconds


class ScaleUpSpec(Spec):
    """The network inside a node; each GPU's bandwidth into it is `ChipSpec.nvlink_bytes_per_s`.

    Attributes:
        kind: how the GPUs are joined.
        switched: True where any pair of GPUs reaches the full bandwidth of a GPU.
        switches: switch chips; each GPU spreads its links over all of them.
        link_bytes_per_s: one direction of one link; a GPU has as many as its bandwidth takes.
        latency_s: a small message from GPU to GPU, software included; not a load/store latency.
    """

    kind: Literal["nvlink"]
    switched: bool
    switches: Parts | None = None
    link_bytes_per_s: BytesPerSecond | None = None
    latency_s: Seconds


class NicSpec(Spec):
    """One network card.

    Attributes:
        ports: links that may go to different switches, each to a plane of its own.
        link_bytes_per_s: one direction of one port.
        codec: whether it codes and decodes what experts send home in fewer bits, so that GPUs need
            not (ISCA'25 §3.2.2, §6.5: a wish). NVLink then carries BF16.
    """

    ports: Annotated[int, Field(ge=1, le=64)] = 1
    link_bytes_per_s: LinkRate
    codec: bool = False


class HostSpec(Spec):
    """The CPU side of a node, all sockets together."""

    cores: Annotated[int, Field(ge=1, le=10**6)] | None = None
    dram_capacity_bytes: Bytes | None = None
    dram_bytes_per_s: BytesPerSecond


class NodeSpec(Spec):
    """GPUs that share a scale-up fabric, whether in one chassis or in a rack.

    Attributes:
        gpus: GPUs of the scale-up domain.
        nics: compute-network NICs; storage and management NICs are not counted.
        pcie_bytes_per_s: one GPU to its NICs or the host, one direction.
    """

    name: str
    gpus: Parts
    chip: ChipSpec
    scale_up: ScaleUpSpec
    nics: Parts
    nic: NicSpec
    pcie_bytes_per_s: BytesPerSecond
    host: HostSpec

    @model_validator(mode="after")
    def _nics_are_shared_evenly(self) -> "NodeSpec":
        if self.gpus % self.nics and self.nics % self.gpus:
            raise InfeasibleError(
                f"nics: must divide or be a multiple of gpus ({self.gpus}), got {self.nics}"
            )
        return self

    @property
    def scale_up_links(self) -> int:
        """Scale-up links of one GPU, 18 of 25 GB/s on H100.

        Raises:
            InfeasibleError: the node does not say how fast a link is.
        """
        rate = self.scale_up.link_bytes_per_s
        if rate is None:
            raise InfeasibleError(
                f"node {self.name}: scale_up.link_bytes_per_s must be given, got none"
            )
        return math.ceil(self.chip.nvlink_bytes_per_s / rate * (1 - 1e-9))

    def scale_up_topology(self) -> Topology:
        """Return the scale-up domain in the words of a fabric.

        A node of the topology is a GPU, a port one of its links, a plane one switch chip; link `l`
        of every GPU goes to chip `l mod switches`. Where links do not divide by the chips, boards
        may hand out the odd ones otherwise (HGX H100: 4, 5, 5, 4).

        Raises:
            InfeasibleError: the node does not say by what its GPUs are joined.
        """
        links, switches = self.scale_up_links, self.scale_up.switches
        if switches is None:
            raise InfeasibleError(f"node {self.name}: scale_up.switches must be given, got none")
        chip = np.arange(self.gpus * links) % links % switches
        chip.flags.writeable = False
        rate = self.chip.nvlink_bytes_per_s / links
        return Topology(self.gpus, links, Clos(switches, 1, 1), chip, rate, rate)

    @property
    def ports(self) -> int:
        """Links that leave the node for the scale-out fabric."""
        return self.nics * self.nic.ports

    @property
    def port_bytes_per_s(self) -> float:
        """One NIC port, one direction: its link, or its share of the PCIe of the GPUs behind it."""
        return min(self.nic.link_bytes_per_s, self.pcie_bytes_per_s * self.gpus / self.ports)

    @property
    def pcie_binds(self) -> bool:
        """Whether NICs could do more than PCIe feeds them."""
        return self.port_bytes_per_s < self.nic.link_bytes_per_s

    @property
    def scale_out_bytes_per_s(self) -> float:
        """All NICs together, one direction, as far as PCIe feeds them."""
        return self.ports * self.port_bytes_per_s

    @property
    def scale_out_bytes_per_s_per_gpu(self) -> float:
        """One GPU's even share of the NICs, one direction."""
        return self.scale_out_bytes_per_s / self.gpus


NODES = Catalogue("node", Path(__file__).parent / "presets" / "nodes", NodeSpec)
