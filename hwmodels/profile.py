"""What kernels and links achieve on one chip with one library: what no datasheet says."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, model_validator

from hwmodels.costs.attention import AttentionParameters
from hwmodels.costs.gemm import GemmParameters
from hwmodels.costs.kernel import Parameters
from hwmodels.costs.memory_op import MemoryParameters
from hwmodels.errors import OutOfRangeError, suggestion
from hwmodels.spec import Catalogue, Spec
from hwmodels.units import BytesPerSecond, Seconds

P = TypeVar("P")

Slowdown = Annotated[float, Field(ge=1, le=10)]
"""Time beside the other kind of work / time alone."""


class CommunicationParameters(Spec):
    """What the MoE all-to-all and pipeline messages achieve. One direction, physical bytes.

    Physical bytes are those that cross the link: of the copies of a token on n nodes, the one on
    its own node never meets a NIC.

    Attributes:
        dispatch_nic_bytes_per_s, combine_nic_bytes_per_s: of one NIC during dispatch and combine.
        nvlink_bytes_per_s: of one GPU's NVLink, inside a node only.
        forwarding_nvlink_bytes_per_s: the same while it forwards what NICs receive.
        message_nic_bytes_per_s: of one NIC for pipeline messages and ring collectives.
        saturating_sms: SMs given to communication above which its rate grows no more.
        dispatch_beside_compute, combine_beside_compute: slowdown of the transfer while compute
            kernels run on the other SMs.
        link_nic_bytes_per_s, link_nvlink_bytes_per_s: datasheet rates of the links measured on,
            one NIC and one GPU's NVLink; on other links the rates above scale with these.
    """

    dispatch_nic_bytes_per_s: BytesPerSecond
    combine_nic_bytes_per_s: BytesPerSecond
    nvlink_bytes_per_s: BytesPerSecond
    forwarding_nvlink_bytes_per_s: BytesPerSecond
    message_nic_bytes_per_s: BytesPerSecond
    saturating_sms: Annotated[int, Field(ge=1)]
    dispatch_beside_compute: Slowdown
    combine_beside_compute: Slowdown
    link_nic_bytes_per_s: BytesPerSecond
    link_nvlink_bytes_per_s: BytesPerSecond


class KernelProfile(Spec):
    """Fitted parameters of the cost functions, keyed by kernel family.

    Attributes:
        name: name of the profile.
        chip: preset name of the chip it was measured on.
        library, version: kernels it describes; another version is another profile.
        description: one sentence.
        launch_gap_s: idle time between two kernels of one stream.
        gemm: by family: `fp8`, `fp8_grouped`, `fp8_wgrad`, `bf16`.
        attention: `attention_forward`, `attention_backward`.
        memory: by family of memory-bound kernels (cast, transpose, permute ...).
        interference: by family, slowdown beside a communication kernel.
        communication: links and collectives.
        errors: errors of the fit by name, as fractions: relative, time-weighted, held out.
    """

    name: str
    chip: str
    library: str
    version: str
    description: str = ""
    launch_gap_s: Seconds
    gemm: dict[str, GemmParameters]
    attention: dict[str, AttentionParameters]
    memory: dict[str, MemoryParameters]
    interference: dict[str, Slowdown]
    communication: CommunicationParameters
    errors: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _families_are_the_same_everywhere(self) -> "KernelProfile":
        priced = {*self.gemm, *self.attention, *self.memory}
        for family in sorted(priced ^ set(self.interference)):
            known = priced & set(self.interference)
            table = "kernels" if family in self.interference else "interference"
            raise ValueError(f"{table}: no family {family!r}{suggestion(family, known)}")
        return self

    def parameters(self, family: str) -> Parameters:
        """Return the parameters of a kernel family, whatever its kind.

        Raises:
            OutOfRangeError: the profile does not know it.
        """
        known: dict[str, Parameters] = {**self.gemm, **self.attention, **self.memory}
        return self._known("kernels", known, family)

    def interference_factor(self, family: str) -> float:
        """Return the slowdown of a family beside communication.

        Raises:
            OutOfRangeError: the profile does not know it.
        """
        return self._known("interference", self.interference, family)

    def _known(self, table: str, families: dict[str, P], family: str) -> P:
        if family not in families:
            near = suggestion(family, families)
            raise OutOfRangeError(f"profile {self.name}: {table}: no family {family!r}{near}")
        return families[family]


PROFILES = Catalogue("profile", Path(__file__).parent / "presets" / "profiles", KernelProfile)
