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
from typing import NamedTuple

from hwmodels.formats import FORMATS, NumberFormat
from hwmodels.spec import Kinded
from hwmodels.units import Width
from workloads.ops import Attention, MemoryOp
from workloads.recipes import Passes, Recipe


@dataclass(frozen=True, slots=True)
class Site:
    """Where a block stands: what one micro-batch brings to a rank, and how experts are spread.

    Attributes:
        hidden: width of the residual stream.
        sequences, length: of the micro-batch.
        recipe: writes what surrounds linears.
        local_experts: routed experts a rank holds.
        gpus_per_token: distinct GPUs one token is sent to, expected.
        dispatch, combine: number formats on the wire.
        nic_codec: whether NICs code what comes home, so that no kernel does.
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

    @property
    def tokens(self) -> int:
        """Tokens of the micro-batch."""
        return self.sequences * self.length


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

    def core_flops_per_token(self, sequence_length: int, *, causal: bool) -> float:
        """Forward FLOPs per token of q.k and of p.v: `2 S heads (d_qk + d_v)`, causal half of it.

        The causal count is FlashAttention's convention, the full one Megatron's (ISCA'25 §5.1.2).
        """
        core = self.core
        full = 2.0 * sequence_length * core.heads * (core.d_qk + core.d_v)
        return full / 2 if causal else full

    def softmax(self, site: Site) -> Passes:
        """Return the core and what FlashAttention does around its backward pass.

        Before it, output and its gradient are read for their product and the FP32 sum of dQ is
        cleared; behind it, that sum is read and written in BF16. Where heads share keys, dK and dV
        are summed in FP32 too (Dao-AILab/flash-attention, hopper/flash_api.cpp: `dk_accum`). One
        FP32 sum a head and token is kept.
        """
        core, t = self.core, site.tokens
        query, value = core.heads * core.d_qk, core.heads * core.d_v
        forward, backward = (
            Attention(name, site.sequences, site.length, *core, backward=backward)
            for name, backward in (("flash attention", False), ("flash attention backward", True))
        )
        shared = core.kv_heads * (core.d_qk + core.d_v) if core.kv_heads < core.heads else 0
        sums = (MemoryOp("flash attention: dK, dV sums", "copy", t * shared * (4 + 6), launches=4),)
        return Passes(
            (forward,),
            (
                MemoryOp("flash attention: prepare", "copy", t * (value + query) * 4),
                backward,
                MemoryOp("flash attention: convert dQ", "copy", t * query * 6),
                *(sums if shared else ()),
            ),
            saved_bytes=t * core.heads * 4,
        )


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

    def entry(self, site: Site) -> Passes:
        """Return work that belongs to the block before it, such as what sends tokens away."""
        return Passes()

    @abstractmethod
    def passes(self, site: Site) -> Passes:
        """Return the work behind `entry`."""


for _entry in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_entry.name}")
