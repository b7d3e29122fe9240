"""Mixture of experts: router and dispatch, shared and routed experts, combine.

The router belongs to the attention side of the dispatch, as in the trace: the gate, top-k and the
cast for the wire run before tokens leave, and their gradients after the gradients come home.
Routed work is written for a balanced load of `tokens * top_k` rows a rank.

What comes home, results of experts forward and gradients backward, is of one format. Sent in FP8
it is cast by memory-bound kernels, as what is dispatched: each row of a GPU once before it leaves,
each token once at home. LogFMT is coded by the kernels of the exchange themselves
(`simulator.network.exchange_pricer`). A codec of NICs does either for nothing.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwmodels.formats import FORMATS, NumberFormat
from hwmodels.units import Experts, Width
from workloads.blocks import FFNSpec, Site, share_of
from workloads.blocks.ffn import SCALES, gated
from workloads.ops import COMM, COMPUTE, Comm, CommKind, Gemm, MemoryOp, Op, Stream, Work
from workloads.recipes import BF16_BYTES, Operand, Passes

BF16 = FORMATS["bf16"]
METADATA_BYTES_PER_TOKEN = 4096
"""Routing tables, counts and weights kept with a token: an estimate, 16 MB for 4,096 tokens."""

GroupScore = Literal["max", "top2"]


class MoESpec(FFNSpec):
    """The expert layer.

    Attributes:
        routed_experts, shared_experts: experts a router chooses from; experts every token visits.
        top_k: routed experts a token visits.
        expert_width: intermediate width of one expert, routed or shared.
        groups, groups_per_token: experts form `groups` equal groups in order, and a token's
            experts come from its best `groups_per_token` groups (node-limited routing).
        group_score: what makes a group good: its best score (`max`, DeepSeek-V2) or the sum of
            its two best (`top2`, DeepSeek-V3).
    """

    kind: Literal["moe"] = "moe"
    routed_experts: Experts
    shared_experts: Annotated[int, Field(ge=0, le=2**16)] = 0
    top_k: Experts
    expert_width: Width
    groups: Experts = 1
    groups_per_token: Experts = 1
    group_score: GroupScore = "top2"

    @model_validator(mode="after")
    def _routing_is_possible(self) -> "MoESpec":
        if self.routed_experts % self.groups:
            raise ValueError(
                f"groups: must divide routed_experts ({self.routed_experts}), got {self.groups}"
            )
        if self.groups_per_token > self.groups:
            raise ValueError(
                f"groups_per_token: at most groups ({self.groups}), got {self.groups_per_token}"
            )
        reachable = self.groups_per_token * (self.routed_experts // self.groups)
        if self.top_k > reachable:
            raise ValueError(
                f"top_k: at most the experts of the chosen groups ({reachable}), got {self.top_k}"
            )
        return self

    @property
    def rule(self) -> str:
        """Which experts a token may go to, in words."""
        if self.groups_per_token == self.groups:
            return f"{self.top_k} of {self.routed_experts} experts"
        return (
            f"{self.top_k} of {self.routed_experts} experts in its best {self.groups_per_token} of "
            f"{self.groups} groups"
        )

    def experts(self, *, activated: bool = False) -> int:
        """Experts of the layer, shared ones included: all, or those one token visits."""
        return (self.top_k if activated else self.routed_experts) + self.shared_experts

    def expert_parameters(self, hidden: int) -> int:
        """Gate, up and down of one expert."""
        return 3 * hidden * self.expert_width

    def router_parameters(self, hidden: int) -> int:
        """Weights of the router."""
        return hidden * self.routed_experts

    def parameters(self, hidden: int, *, activated: bool = False) -> int:
        """Router and experts."""
        experts = self.experts(activated=activated) * self.expert_parameters(hidden)
        return self.router_parameters(hidden) + experts

    def product_parameters(self, hidden: int) -> int:
        """Experts that a token visits; published counts leave out the router."""
        return self.experts(activated=True) * self.expert_parameters(hidden)

    def routed_parameters(self, hidden: int) -> int:
        """Routed experts."""
        return self.routed_experts * self.expert_parameters(hidden)

    def shard(self, tp: int, etp: int = 1) -> "MoESpec":
        """Check that experts can be dealt out, shared ones over `tp` ranks and each of the others
        over `etp`; router and choice are every rank's own.
        """
        share_of(self.shared_experts * self.expert_width, "shared experts' width", "tp", tp)
        share_of(self.expert_width, "experts' width", "etp", etp)
        return self

    def held_parameters(self, hidden: int, tp: int) -> int:
        """Router, and a share of the shared experts."""
        shared = self.shared_experts * self.expert_parameters(hidden)
        return self.router_parameters(hidden) + shared // tp

    def entry(self, site: Site) -> Passes:
        """Return norm, gate, selection and the cast for the wire, and the dispatch."""
        t, h, recipe = site.tokens, site.hidden, site.recipe
        count = MemoryOp("layout count", "expert_map", 0, stream=COMM)
        dispatch = Passes(
            (count, _exchange(site, "dispatch", "dispatch")),
            _brought_home(site, "dispatch"),
        )
        return (
            recipe.norm("experts", t, h)
            + self._router(site)
            + Passes(forward=_wire_cast(site, "cast hidden for dispatch"))
            + recipe.scale_transposes(forward=SCALES)
            + dispatch
        )

    def _router(self, site: Site) -> Passes:
        """The gate in BF16, and 37 and 26 small kernels: scores, top-k, auxiliary loss."""
        t, h, experts = site.tokens, site.hidden, self.routed_experts
        return Passes(
            (
                Gemm("router gate", t, experts, h, BF16),
                MemoryOp("router: scores, top-k, auxiliary loss", "small", 0, launches=37),
                MemoryOp("router: ranges", "small", 0, launches=2),
            ),
            (
                MemoryOp("router: scores, auxiliary loss backward", "small", 0, launches=26),
                Gemm("router gate dgrad", t, h, experts, BF16, "dgrad"),
                Gemm("router gate wgrad", experts, h, t, BF16, "wgrad"),
            ),
        )

    def passes(self, site: Site) -> Passes:
        """Return routed and shared experts, and the combine.

        What the norm in front of the router gives, its gradient and the shared expert's read once
        more, the shared expert's in the format of products.
        """
        t, h, recipe = site.tokens, site.hidden, site.recipe
        mapped = MemoryOp("expert count + map", "expert_map", 0, launches=2)
        cast = recipe.cast("hidden (experts)", t, h) if self.shared_experts else ()
        read = (*recipe.norm("experts", t, h).forward, *cast)
        done = Passes((mapped,)) + recipe.scale_transposes(SCALES, SCALES) + self._routed(site)
        if self.shared_experts:
            done += gated(site, "shared", self.shared_experts * self.expert_width // site.tp)
        kept = Passes(saved_bytes=t * METADATA_BYTES_PER_TOKEN)
        return done + recipe.again(read, t * h * BF16_BYTES) + kept + _combine(site)

    def _routed(self, site: Site) -> Passes:
        """The experts of this rank, between the kernels that order rows by expert and back."""
        h, recipe, local = site.hidden, site.recipe, site.local_experts
        rows, name = site.etp * site.tokens * self.top_k, "routed"
        width = self.expert_width // site.etp
        came, made = Operand.QUANTISED, Operand.READY
        arrived = site.etp * site.tokens * site.gpus_per_token  # tokens, each once a GPU
        placed = rows * h * (site.dispatch.element_bytes + recipe.format.element_bytes)
        summed = (rows + arrived) * h * BF16_BYTES

        def permute(name: str, size: float) -> tuple[Op, ...]:
            return (MemoryOp(name, "permute", size, routed=True),)

        kept = (
            site.dispatch.bytes_of(arrived * h)
            if recipe.recomputes
            else recipe.format.bytes_of(rows * h)
        )
        entered, left = _shared_by_etp(site, arrived)
        return (
            entered
            + Passes(permute("permute", placed), permute("unpermute dX", summed), saved_bytes=kept)
            + recipe.routed_linear(f"{name} up+gate", rows, 2 * width, h, local, x=came)
            + recipe.swiglu(name, rows, width, routed=True)
            + recipe.routed_linear(f"{name} down", rows, h, width, local, x=made, dy=came)
            + Passes(permute("unpermute", summed), permute("permute dY", placed))
            + left
        )


def _shared_by_etp(site: Site, arrived: float) -> tuple[Passes, Passes]:
    """Return what ranks that share each expert pass each other before and behind it: all tokens
    that came to any of them, and the sum of what each made of them.
    """
    if site.etp == 1:
        return Passes(), Passes()

    def comm(name: str, kind: CommKind, wire: NumberFormat) -> Comm:
        size_bytes = float(wire.bytes_of(arrived * site.hidden))
        return Comm(name, kind, ("etp",), size_bytes, follows_load=True)

    entered = Passes(
        (comm("gather routed tokens", "all_gather", site.dispatch),),
        (comm("scatter dX of experts", "reduce_scatter", BF16),),
    )
    left = Passes(
        (comm("scatter results of experts", "reduce_scatter", BF16),),
        (comm("gather dY of experts", "all_gather", site.dispatch),),
    )
    return entered, left


def _combine(site: Site) -> Passes:
    """Return the all-to-all that brings tokens home, and the one that sends their gradients out.

    The gradient is cast for the wire on the stream that sends it.
    """
    return Passes(
        _brought_home(site, "combine"),
        (*_wire_cast(site, "cast dY for dispatch", COMM), _exchange(site, "combine", "dispatch")),
    )


def _wire_cast(site: Site, name: str, stream: Stream = COMPUTE) -> tuple[Op, ...]:
    """Return the cast of all tokens to what is dispatched; none where that is BF16."""
    element = site.dispatch.element_bytes
    size = site.tokens * site.hidden * (BF16_BYTES + element)
    return (MemoryOp(name, "cast", size, stream=stream),) if element < BF16_BYTES else ()


def _brought_home(site: Site, name: str) -> tuple[Work, ...]:
    """Return the exchange that ends a way, and the casts around it where kernels cast."""
    comm, wire = _exchange(site, name, "combine"), site.combine
    if wire.bits >= 16 or wire.is_logarithmic or site.nic_codec:
        return (comm,)
    row = site.hidden * (BF16_BYTES + wire.element_bytes)
    arrived = site.tokens * site.gpus_per_token
    return (
        MemoryOp(f"cast for {name} home", "cast", arrived * row, routed=True, stream=COMM),
        comm,
        MemoryOp(f"cast back from {name} home", "cast", site.tokens * row),
    )


def _exchange(site: Site, name: str, kind: Literal["dispatch", "combine"]) -> Comm:
    wire = site.dispatch if kind == "dispatch" else site.combine
    coded = kind == "combine" and site.nic_codec
    nvlink = BF16.bytes_of(site.hidden) if coded else None
    return Comm(name, kind, ("ep",), wire.bytes_of(site.hidden), site.tokens, nvlink_bytes=nvlink)
