"""Attention blocks as shapes: latent (MLA) and grouped-query (GQA), with their closed forms.

Training runs the multi-head form of MLA (keys and values expanded per head); the absorbed form,
which works on the latent itself, belongs to decoding. Widthing conventions: `projections` are
the weights of the GEMMs, `vectors` are norm weights and biases.
"""

from abc import abstractmethod
from typing import Literal, NamedTuple

from hwmodels.spec import Kinded
from hwmodels.units import Width


class AttentionCore(NamedTuple):
    """Shape of the softmax part: heads of the queries and of the keys, depths of q.k and of v."""

    heads: int
    kv_heads: int
    d_qk: int
    d_v: int


class AttentionSpec(Kinded):
    """One attention block, `kind` = `mla` or `gqa`; `heads` are query heads."""

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

    def core_flops_per_token(self, sequence_length: int, *, causal: bool) -> float:
        """Forward FLOPs per token of q.k and of p.v: `2 S heads (d_qk + d_v)`, causal half of it.

        The causal count is FlashAttention's convention, the full one Megatron's (ISCA'25 §5.1.2).
        """
        core = self.core
        full = 2.0 * sequence_length * core.heads * (core.d_qk + core.d_v)
        return full / 2 if causal else full


class MLASpec(AttentionSpec):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 §2.1).

    Attributes:
        q_lora_rank: width of the query latent; None projects queries in one step.
        kv_lora_rank: width of the latent shared by keys and values, which is what is cached.
        d_nope, d_rope: depth of a query/key head without and with rotary position; the rotary
            key is one for all heads.
        d_v: depth of a value head.
    """

    kind: Literal["mla"] = "mla"
    q_lora_rank: Width | None = None
    kv_lora_rank: Width
    d_nope: Width
    d_rope: Width
    d_v: Width

    @property
    def core(self) -> AttentionCore:
        """Every head has its own key and value after the up-projection."""
        return AttentionCore(self.heads, self.heads, self.d_nope + self.d_rope, self.d_v)

    @property
    def kv_elements(self) -> int:
        """The latent and the rotary key: `kv_lora_rank + d_rope`."""
        return self.kv_lora_rank + self.d_rope

    def projection_parameters(self, hidden: int) -> int:
        """q_a, q_b (or q), kv_a, kv_b and o."""
        d_q = self.heads * (self.d_nope + self.d_rope)
        if self.q_lora_rank is None:
            query = hidden * d_q
        else:
            query = hidden * self.q_lora_rank + self.q_lora_rank * d_q
        key_value = hidden * self.kv_elements
        key_value += self.kv_lora_rank * self.heads * (self.d_nope + self.d_v)
        return query + key_value + self.heads * self.d_v * hidden

    def vector_parameters(self) -> int:
        """RMSNorm weights of the two latents."""
        return (self.q_lora_rank or 0) + self.kv_lora_rank


class GQASpec(AttentionSpec):
    """Grouped-query attention (arXiv 2305.13245); `kv_heads = heads` is multi-head attention.

    Attributes:
        qkv_bias: True where the three input projections carry a bias (Qwen2.5).
    """

    kind: Literal["gqa"] = "gqa"
    kv_heads: Width
    d_head: Width
    qkv_bias: bool = False

    @property
    def core(self) -> AttentionCore:
        """Queries and values have the same depth."""
        return AttentionCore(self.heads, self.kv_heads, self.d_head, self.d_head)

    @property
    def kv_elements(self) -> int:
        """A key and a value per KV head."""
        return 2 * self.kv_heads * self.d_head

    def projection_parameters(self, hidden: int) -> int:
        """q, k, v and o."""
        return hidden * self.d_head * 2 * (self.heads + self.kv_heads)

    def vector_parameters(self) -> int:
        """Biases of q, k and v, if any."""
        return (self.heads + 2 * self.kv_heads) * self.d_head if self.qkv_bias else 0
