"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 §2.1).

Training runs its multi-head form (MHA with d_qk = nope + rope, d_v; keys and values expanded per
head); the absorbed form, which works on the latent itself, belongs to decoding. Up-projections are
computed again on the way back where the recipe says so (arXiv 2412.19437 §3.2.3).
"""

from dataclasses import dataclass
from typing import Literal

from hwmodels.units import Width
from workloads.blocks import AttentionCore, AttentionSpec, Site, check_heads
from workloads.blocks.softmax import softmax
from workloads.blocks.tensor_parallel import entering, leaving
from workloads.ops import MemoryOp, Op
from workloads.recipes import BF16_BYTES, Operand, Passes


class MLASpec(AttentionSpec):
    """Latent attention.

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

    def passes(self, site: Site) -> Passes:
        """Return norm, projections down and up, positions, core, output projection."""
        block = _Block(self, site)
        up, positions = block.up(), block.positions()
        linears = 4 if self.q_lora_rank is None else 5
        made_again = linears - 3  # up-projections
        before, behind = entering(site, "latents", (self.q_lora_rank or 0) + self.kv_elements)
        return (
            block.down()
            + block.latents()
            + before
            + up
            + behind
            + positions
            + softmax(self.core, site)
            + block.made_again(up, positions)
            + site.recipe.scale_transposes(backward=linears + made_again, operand=Operand.WIDE)
            + block.output()
        )

    def shard(self, tp: int, cp: int = 1) -> "MLASpec":
        """Deal out heads; every rank projects to latents, its own tokens under sequence
        parallelism (NVIDIA/Megatron-LM, multi_latent_attention.py).
        """
        check_heads(self.heads, tp, cp)
        return self.model_copy(update={"heads": self.heads // tp})


@dataclass(frozen=True, slots=True)
class _Block:
    """An MLA block at its site, piece by piece; widths are those of a row, in elements."""

    mla: MLASpec
    site: Site

    @property
    def split(self) -> int:
        """Tokens behind the projections to heads, which are split over tensor-parallel ranks."""
        return self.site.gathered

    @property
    def query(self) -> int:
        return self.mla.heads * (self.mla.d_nope + self.mla.d_rope)

    @property
    def key_value(self) -> int:
        return self.mla.heads * (self.mla.d_nope + self.mla.d_v)

    @property
    def value(self) -> int:
        return self.mla.heads * self.mla.d_v

    @property
    def rotary(self) -> int:
        return self.mla.heads * self.mla.d_rope

    def down(self) -> Passes:
        """Norm, and the projections of the hidden state, to latents or to whole queries."""
        mla, t, h, recipe = self.mla, self.site.tokens, self.site.hidden, self.site.recipe
        narrow, rank = Operand.NARROW, mla.q_lora_rank
        norm = recipe.norm("attention", t, h)
        if rank is None:
            before, behind = entering(self.site, "hidden (attention)", h)
            queries = before + recipe.linear("q", self.split, self.query, h) + behind
            queries += Passes(saved_bytes=self.split * self.query * BF16_BYTES)
        else:
            queries = recipe.linear("q_a", t, rank, h, dy=narrow)
        key_values = recipe.linear("kv_a", t, mla.kv_elements, h, dy=narrow)
        again = recipe.again(norm.forward, t * h * BF16_BYTES)
        return norm + queries + key_values + again

    def latents(self) -> Passes:
        """Norms of the latents and the slices of what kv_a gives; the latents are kept."""
        mla, t = self.mla, self.site.tokens
        width = (mla.q_lora_rank or 0) + mla.kv_elements
        small = 3 * (2 if mla.q_lora_rank else 1) + 5  # three kernels a norm; fill, copy, add
        return Passes(
            (
                *self._query_norm(),
                self._key_value_norm(),
                MemoryOp("slices of kv_a", "low_rank", t * mla.kv_elements * 4, launches=2),
            ),
            (MemoryOp("norms and slices of latents backward", "small", 0, launches=small),),
            saved_bytes=t * width * BF16_BYTES,
        )

    def _query_norm(self) -> tuple[Op, ...]:
        rank = self.mla.q_lora_rank
        size = self.site.tokens * (rank or 0)
        return (MemoryOp("rmsnorm q latent", "low_rank", size * 4),) if rank else ()

    def _key_value_norm(self) -> Op:
        size = self.site.tokens * self.mla.kv_lora_rank
        return MemoryOp("rmsnorm kv latent", "low_rank", size * 4)

    def up(self) -> Passes:
        """Projections of the latents to heads."""
        mla, t, recipe, narrow = self.mla, self.split, self.site.recipe, Operand.NARROW
        rank = mla.q_lora_rank
        key_values = recipe.linear("kv_b", t, self.key_value, mla.kv_lora_rank, x=narrow)
        return (
            recipe.linear("q_b", t, self.query, rank, x=narrow) + key_values if rank else key_values
        )

    def positions(self) -> Passes:
        """Rotary positions, and keys put together from both parts."""
        t, rope = self.split, self.mla.d_rope
        both = (self.rotary + rope) * 4
        return Passes(
            (
                MemoryOp("rotary k", "rotary", t * rope * 4),
                MemoryOp("keys: copy k_nope", "copy", t * self.mla.heads * self.mla.d_nope * 4),
                MemoryOp("keys: expand k_rope", "rotary", t * self.rotary * 2),
                MemoryOp("rotary q", "rotary", t * self.rotary * 4),
            ),
            (
                MemoryOp("rotary backward q, k", "rotary", t * both, launches=2),
                MemoryOp("sum dk_rope over heads", "rotary", t * self.rotary * 2),
                MemoryOp("copy dK, dV", "copy", t * self.key_value * 4, launches=2),
            ),
        )

    def made_again(self, up: Passes, positions: Passes) -> Passes:
        """What the backward pass of the core needs: queries, keys and values, from the latents."""
        mla, t = self.mla, self.site.tokens
        slices = MemoryOp("slices of kv_a", "low_rank", t * mla.kv_elements * 4)
        made = (*self._query_norm(), slices, self._key_value_norm(), *up.forward)
        kept, of_heads = mla.kv_lora_rank, self.query + self.value
        if mla.q_lora_rank:
            kept += mla.q_lora_rank
            of_heads += self.query
        kept_bytes = (t * kept + self.split * of_heads) * BF16_BYTES
        return self.site.recipe.again((*made, *positions.forward), kept_bytes)

    def output(self) -> Passes:
        """What is kept of the core's output, its projection and a scale behind it."""
        t, h, recipe = self.site.tokens, self.site.hidden, self.site.recipe
        scaled = (MemoryOp("scale hidden", "elementwise", t * h * 4),)
        kept = recipe.attention_output(self.split, self.value)
        projected = recipe.linear("o", self.split, h, self.value)
        return kept + projected + leaving(self.site, "attention", h) + Passes(scaled, scaled)
