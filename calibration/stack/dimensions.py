"""How large a layer is, and how much work one GPU has with it."""

from dataclasses import dataclass

D_NOPE, D_ROPE, D_V = 128, 64, 128
"""Channels of a head: content, position, value. The attention kernels know no others."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A mixture-of-experts layer with multi-head latent attention, as one GPU of many runs it.

    Attributes:
        hidden, heads, q_rank, kv_rank: of the model; decoding needs a kv_rank of 512.
        experts, groups, groups_kept, top_k: of its router.
        expert_width: of a routed expert and of the shared one.
        tokens: of the sequence it trains on, a multiple of 8.
        arrived: tokens that reach this GPU for its experts, each once.
        counts: rows that each expert of this GPU gets in training.
        batch, context: sequences that it decodes, and the tokens of each with the new one.
        decode_counts: rows that each expert of this GPU gets in one pass of decoding.
    """

    hidden: int
    heads: int
    q_rank: int
    kv_rank: int
    experts: int
    groups: int
    groups_kept: int
    top_k: int
    expert_width: int
    tokens: int
    arrived: int
    counts: tuple[int, ...]
    batch: int
    context: int
    decode_counts: tuple[int, ...]

    @property
    def queries(self) -> int:
        """Width of the queries of all heads."""
        return self.heads * (D_NOPE + D_ROPE)

    @property
    def keys_values(self) -> int:
        """Width of the keys without position, and the values, of all heads."""
        return self.heads * (D_NOPE + D_V)

    @property
    def values(self) -> int:
        """Width of the values of all heads."""
        return self.heads * D_V

    @property
    def kv_latent(self) -> int:
        """Width of the latent of keys and values, with the position that all heads share."""
        return self.kv_rank + D_ROPE


DEEPSEEK_V3 = Dimensions(
    hidden=7168,
    heads=128,
    q_rank=1536,
    kv_rank=512,
    experts=256,
    groups=8,
    groups_kept=4,
    top_k=8,
    expert_width=2048,
    tokens=4096,
    arrived=30731,
    counts=(8192,) * 4,
    batch=128,
    context=4096,
    decode_counts=(256,) * 4,
)
"""One of 64 GPUs that share the experts of DeepSeek-V3, balanced, at the sizes that
`calibration.model_ops` has: 4,096 tokens a GPU reach 7.50 GPUs each (routing of arXiv 2412.19437v2
§2.1.2), and 128 sequences decode over 4,096 tokens."""
