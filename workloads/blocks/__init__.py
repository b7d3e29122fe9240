"""Blocks of a layer, one kind a file: shape, weights, what a token leaves, kernels of each pass.

A block sees its `Site`, never the model or the plan. Attention (`AttentionSpec`) and what follows
it (`FFNSpec`) are families: a subclass whose `kind` has a default registers itself when this
package is imported, and a preset's `kind` names it. Embedding, head and MTP module are functions of
a site.

The lists of DeepSeek-V3's blocks follow the kernels that its published training trace runs
(deepseek-ai/profile-data @4496024, H800, EP64), norms, copies and recomputation included; the
recipe adds casts and transposes.
"""

import importlib
import pkgutil
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, TypeVar

from hwmodels.errors import InfeasibleError
from hwmodels.formats import FORMATS, NumberFormat
from hwmodels.spec import Kinded
from hwmodels.units import Width
from workloads.recipes import Passes, Recipe


@dataclass(frozen=True, slots=True)
class Site:
    """Where a block stands: what one micro-batch brings to a rank, and how work is split.

    Attributes:
        hidden: width of the residual stream.
        sequences, length: of the micro-batch; of a sequence what the rank has.
        recipe: writes what surrounds linears.
        local_experts: routed experts a rank holds.
        gpus_per_token: distinct GPUs one token is sent to, expected.
        dispatch, combine: number formats on the wire.
        nic_codec: whether NICs code what comes home, so that no kernel does.
        tp, cp, etp, sequence_parallel, cp_comm: as of `workloads.parallel.ParallelPlan`.
    """

    hidden: int
    sequences: int
    length: int
    recipe: Recipe
    local_experts: int = 0
    gpus_per_token: float = 0.0
    dispatch: NumberFormat = FORMATS["fp8_1x128"]
    combine: NumberFormat = FORMATS["bf16"]
    nic_codec: bool = False
    tp: int = 1
    cp: int = 1
    etp: int = 1
    sequence_parallel: bool = True
    cp_comm: Literal["p2p", "all_gather", "a2a"] = "p2p"

    @property
    def gathered(self) -> int:
        """Tokens that products split over tensor-parallel ranks read."""
        return self.sequences * self.length

    @property
    def tokens(self) -> int:
        """Tokens whose residual stream the rank keeps."""
        return self.gathered // (self.tp if self.sequence_parallel else 1)


class AttentionCore(NamedTuple):
    """Shape of the softmax part: heads of the queries and of the keys, depths of q.k and of v."""

    heads: int
    kv_heads: int
    d_qk: int
    d_v: int


class AttentionSpec(Kinded):
    """One attention block, from the norm before it; `heads` are query heads."""

    heads: Width

    @property
    @abstractmethod
    def core(self) -> AttentionCore:
        """Shape of the softmax part in training."""

    @property
    @abstractmethod
    def kv_elements(self) -> int:
        """Elements that one token leaves in the KV cache of one layer."""

    @abstractmethod
    def projection_parameters(self, hidden: int) -> int:
        """Weights of the projections of one layer, output projection included."""

    @abstractmethod
    def vector_parameters(self) -> int:
        """Norm weights inside the block, and biases."""

    @abstractmethod
    def passes(self, site: Site) -> Passes:
        """Return its work, from the norm of the residual stream to the output projection."""

    def shard(self, tp: int, cp: int = 1) -> Self:
        """Return the block as one of `tp` ranks holds it, whose heads `cp` ranks may share.

        Raises:
            InfeasibleError: it cannot be split so.
        """
        return _whole(self, tp)

    def core_flops_per_token(self, sequence_length: int, *, causal: bool) -> float:
        """Forward FLOPs per token of q.k and of p.v: `2 S heads (d_qk + d_v)`, causal half of it.

        The causal count is FlashAttention's convention, the full one Megatron's (ISCA'25 §5.1.2).
        """
        core = self.core
        full = 2.0 * sequence_length * core.heads * (core.d_qk + core.d_v)
        return full / 2 if causal else full


def check_heads(heads: int, tp: int, cp: int) -> None:
    """Refuse heads that cannot be dealt out over `tp` ranks, and each share over `cp`.

    Raises:
        InfeasibleError: they do not divide.
    """
    if heads % (tp * cp):
        shared = f"{tp} x cp {cp}" if cp > 1 else str(tp)
        raise InfeasibleError(f"plan.tp: must divide the {heads} attention heads, got {shared}")


def share_of(width: int, what: str, axis: str, ranks: int) -> int:
    """Return what one of `ranks` ranks along an axis has of a width.

    Raises:
        InfeasibleError: it does not divide.
    """
    if width % ranks:
        raise InfeasibleError(f"plan.{axis}: must divide the {what} {width}, got {ranks}")
    return width // ranks


class FFNSpec(Kinded):
    """What follows attention in a layer, from the norm before it: an FFN, or experts."""

    @abstractmethod
    def parameters(self, hidden: int, *, activated: bool = False) -> int:
        """All weights of one layer, its norm apart, or those that one token meets."""

    def product_parameters(self, hidden: int) -> int:
        """Weights that multiply a token, as published FLOP counts have them."""
        return self.parameters(hidden, activated=True)

    def routed_parameters(self, hidden: int) -> int:
        """Weights of all experts that ranks of an expert group share."""
        return 0

    def shard(self, tp: int, etp: int = 1) -> Self:
        """Return the block as one of `tp` ranks holds it, its experts as one of `etp`.

        Raises:
            InfeasibleError: it cannot be split so.
        """
        return _whole(self, tp * etp)

    def entry(self, site: Site) -> Passes:
        """Return work that belongs to the block before it, such as what sends tokens away."""
        return Passes()

    def held_parameters(self, hidden: int, tp: int) -> int:
        """Weights of one layer that one of `tp` ranks holds, routed experts left out."""
        held = self.shard(tp)
        return held.parameters(hidden) - held.routed_parameters(hidden)

    @abstractmethod
    def passes(self, site: Site) -> Passes:
        """Return the work behind `entry`."""


B = TypeVar("B", bound=Kinded)


def _whole(block: B, ranks: int) -> B:
    """Return a block that is not split.

    Raises:
        InfeasibleError: more than one rank should hold it.
    """
    if ranks > 1:
        raise InfeasibleError(
            f"plan.tp: a block of kind {type(block).__name__} does not say how it is split, "
            f"must be 1, got {ranks}"
        )
    return block


for _entry in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_entry.name}")
