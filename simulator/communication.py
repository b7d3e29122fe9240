"""The expert exchange and the network, as an experiment asks for them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwmodels.cluster import ClusterSpec
from hwmodels.errors import SpecError
from hwmodels.formats import FORMATS, NumberFormat
from hwmodels.spec import Spec
from hwmodels.units import Experts, Share
from simulator.network.exchange_pricer import once_on_nics
from simulator.network.links import Routing
from simulator.ranks import ExpertLoadSpec, ExpertPlacementSpec

WIRE_FORMATS = {
    "fp8": FORMATS["fp8_1x128"],
    "bf16": FORMATS["bf16"],
    "logfmt8": FORMATS["logfmt8"],
    "logfmt10": FORMATS["logfmt10"],
}


class CommunicationSpec(Spec):
    """The expert exchange, and the network that all traffic crosses.

    Attributes:
        sms: SMs that the kernels of the exchange hold; compute has the others. Where nothing is
            exchanged (a dense model, or `plan.ep` of 1), or the chip has an engine for it
            (`ChipSpec.exchange_engine`), none are held; 0 is taken there only.
        lent_sms: share of these that compute has too in parts that nothing overlaps: 0 where their
            kernels are built for as few SMs as those of overlapped parts, 1 where for all.
        dispatch: number format of tokens that go out, and of their gradients; the recipe's own
            where it is left out.
        combine: number format of what comes home, results of experts and, backward, gradients of
            their inputs alike: DeepSeek-V3 keeps both in BF16, for training's precision, which is
            not simulated. FP8 is cast by kernels, LogFMT coded by the SMs of the exchange, either
            by NICs that have a codec (`NicSpec.codec`).
        codec_overhead: by which coding LogFMT lengthens the time in which a combine moves: 50 % to
            100 % where it is fused into the exchange (ISCA'25 §3.2.1).
        routed_nodes_max: nodes one token's experts may sit on, instead of the model's own rule
            (`MoESpec.groups_per_token`), which holds where this is left out.
        capacity_factor: most that an expert takes, of the balanced load; what is more is dropped.
            Left out, experts take all. Which tokens are dropped changes no load, so that there is
            no policy to choose.
        pad_to_capacity: experts take as many rows as they can, of zeros where tokens lack.
        exposed_rate: rate of exchanges that no compute overlaps, relative to the profile's, which
            was measured with nothing else running.
        nics: `separate`: exchanges, pipeline messages and gradient rings have a NIC each to
            themselves; `shared`: those of one GPU meet on its NIC.
        routing: how switches choose among equal paths; see `simulator.network.routing`. What `ecmp`
            hashes begins with `ranks.seed`.
    """

    sms: Annotated[int, Field(ge=0, le=4096)] = 20
    lent_sms: Annotated[float, Field(ge=0, le=1)] = 0.0
    dispatch: Literal["fp8", "bf16"] | None = None
    combine: Literal["bf16", "fp8", "logfmt8", "logfmt10"] = "bf16"
    codec_overhead: Annotated[float, Field(ge=0, le=10)] = 0.75
    routed_nodes_max: Experts | None = None
    capacity_factor: Annotated[float, Field(ge=0.01, le=1000)] | None = None
    pad_to_capacity: bool = False
    exposed_rate: Share = 1.0
    nics: Literal["separate", "shared"] = "separate"
    routing: Routing = "adaptive"

    @model_validator(mode="after")
    def _padding_has_an_end(self) -> "CommunicationSpec":
        if self.pad_to_capacity and self.capacity_factor is None:
            raise ValueError("pad_to_capacity: must come with capacity_factor, got none")
        return self

    @property
    def combine_format(self) -> NumberFormat:
        """Format of combined tokens."""
        return WIRE_FORMATS[self.combine]

    def check_codec(self, cluster: ClusterSpec) -> None:
        """Refuse codes that nobody could write or sum up.

        Raises:
            SpecError: this cluster could not.
        """
        chip, nic = cluster.node.chip, cluster.node.nic
        if not self.combine_format.is_logarithmic:
            return
        if chip.exchange_engine and not nic.codec:
            raise SpecError(
                f"communication.combine: {self.combine} is coded by SMs of the exchange, in whose "
                f"place cluster.node.chip.exchange_engine moves tokens; use bf16 or fp8, or "
                f"cluster.node.nic.codec"
            )
        if "combine" in once_on_nics(cluster.fabric):
            raise SpecError(
                f"communication.combine: switches with cluster.fabric.reduction sum bf16 or fp8, "
                f"not logarithms, got {self.combine}"
            )

    def check_experts(self, load: ExpertLoadSpec, placement: ExpertPlacementSpec) -> None:
        """Refuse limits of nodes or a capacity that do not go with how experts lie or are loaded.

        Raises:
            SpecError: they do not.
        """
        if placement.policy != "contiguous" and self.routed_nodes_max is not None:
            raise SpecError(
                "communication.routed_nodes_max: limits nodes with experts in order, must be left "
                f"out with ranks.expert_placement.policy = {placement.policy!r}"
            )
        if self.capacity_factor is not None and not load.tells_experts:
            raise SpecError(
                "communication.capacity_factor: needs loads of experts, ranks.expert_load.kind = "
                f"'balanced', 'zipf' or 'measured', got {load.kind!r}"
            )
