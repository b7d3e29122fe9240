"""Grouped-query attention (arXiv 2305.13245), as Llama, Qwen and Mixtral have it.

One product gives queries, keys and values of all heads. A bias is added in its epilogue (cuBLASLt),
and its gradient is a sum over rows; queries, keys and values are views of the product, whose
gradients are copied together behind the core (Megatron-LM: `torch.split` of the projection). They
are kept for the backward pass by every recipe: nothing smaller gives them again.
"""

from typing import Literal

from pydantic import model_validator

from hwmodels.errors import InfeasibleError
from hwmodels.units import Width
from workloads.blocks import AttentionCore, AttentionSpec, Site, check_heads
from workloads.blocks.softmax import softmax
from workloads.blocks.tensor_parallel import entering, leaving
from workloads.ops import MemoryOp
from workloads.recipes import BF16_BYTES, Operand, Passes


class GQASpec(AttentionSpec):
    """Grouped-query attention; `kv_heads = heads` is multi-head attention.

    Attributes:
        qkv_bias: True where the three input projections carry a bias (Qwen2.5).
        qk_norm: True where every query and key head is normed before its position (Qwen3).
    """

    kind: Literal["gqa"] = "gqa"
    kv_heads: Width
    d_head: Width
    qkv_bias: bool = False
    qk_norm: bool = False

    @model_validator(mode="after")
    def _heads_share_keys_evenly(self) -> "GQASpec":
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads: must divide heads ({self.heads}), got {self.kv_heads}")
        return self

    @property
    def core(self) -> AttentionCore:
        """Queries and values have the same depth."""
        return AttentionCore(self.heads, self.kv_heads, self.d_head, self.d_head)

    @property
    def kv_elements(self) -> int:
        """A key and a value per KV head."""
        return 2 * self.kv_heads * self.d_head

    @property
    def qkv(self) -> int:
        """Columns of the product that gives queries, keys and values."""
        return (self.heads + 2 * self.kv_heads) * self.d_head

    @property
    def positioned(self) -> int:
        """Columns of queries and keys."""
        return (self.heads + self.kv_heads) * self.d_head

    def projection_parameters(self, hidden: int) -> int:
        """q, k, v and o."""
        return hidden * self.d_head * 2 * (self.heads + self.kv_heads)

    def vector_parameters(self) -> int:
        """Biases of q, k and v, and one norm each for the heads of q and of k, if any."""
        return self.qkv * self.qkv_bias + 2 * self.d_head * self.qk_norm

    def passes(self, site: Site) -> Passes:
        """Return norm, projection, norms of heads, positions, core, output projection."""
        t, h, recipe = site.gathered, site.hidden, site.recipe
        value = self.heads * self.d_head
        norm = recipe.norm("attention", site.tokens, h)
        before, behind = entering(site, "hidden (attention)", h)
        linears = 2
        return (
            norm
            + before
            + recipe.linear("qkv", t, self.qkv, h)
            + behind
            + recipe.again(norm.forward, site.tokens * h * BF16_BYTES)
            + self._assembly(t)
            + self._head_norms(t)
            + self._positions(t)
            + softmax(self.core, site)
            + recipe.scale_transposes(backward=linears, operand=Operand.WIDE)
            + recipe.attention_output(t, value)
            + recipe.linear("o", t, h, value)
            + leaving(site, "attention", h)
        )

    def shard(self, tp: int, cp: int = 1) -> "GQASpec":
        """Deal out query heads and their keys; a key that too few ranks have heads of is copied."""
        check_heads(self.heads, tp, cp)
        if tp > self.kv_heads:
            if tp % self.kv_heads or cp > 1:
                raise InfeasibleError(
                    f"plan.tp: must divide or be a multiple of the {self.kv_heads} kv heads, and "
                    f"divide them where plan.cp_comm is a2a, got {tp}"
                )
        elif self.kv_heads % (tp * cp):
            shared = f"{tp} x cp {cp}" if cp > 1 else str(tp)
            raise InfeasibleError(
                f"plan.tp: must divide the {self.kv_heads} kv heads, got {shared}"
            )
        kv_heads = max(1, self.kv_heads // tp)
        return self.model_copy(update={"heads": self.heads // tp, "kv_heads": kv_heads})

    def _assembly(self, tokens: int) -> Passes:
        """Gradients of queries, keys and values side by side, and that of the bias."""
        size = tokens * self.qkv
        copied = MemoryOp("copy dQ, dK, dV", "copy", size * 4)
        bias = (MemoryOp("bias gradient (qkv)", "elementwise", size * 2),)
        return Passes(
            backward=(copied, *(bias if self.qkv_bias else ())),
            saved_bytes=size * BF16_BYTES,
        )

    def _head_norms(self, tokens: int) -> Passes:
        """RMSNorm of each query and key head; what goes in is kept beside what comes out."""
        size = tokens * self.positioned
        if not self.qk_norm:
            return Passes()
        return Passes(
            (MemoryOp("rmsnorm q, k heads", "add_norm", size * 4, launches=2),),
            (MemoryOp("rmsnorm backward q, k heads", "norm_backward", size * 6, launches=6),),
            saved_bytes=size * BF16_BYTES,
        )

    def _positions(self, tokens: int) -> Passes:
        """Rotary positions of queries and keys, read and written."""
        size = tokens * self.positioned * 4
        return Passes(
            (MemoryOp("rotary q, k", "rotary", size, launches=2),),
            (MemoryOp("rotary backward q, k", "rotary", size, launches=2),),
        )
