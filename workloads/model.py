"""A transformer as shapes, and what follows from them in closed form.

Symbols: L layers, h hidden, V vocabulary, S sequence length, P weights that multiply a token.

    parameters (no MTP)  = embedding h V + head h V (0 if tied) + sum over layers + final norm
    training FLOPs/token = 3 (2 P + sum over layers of the attention core)

The second is the definition that reproduces ISCA'25 ("Insights into DeepSeek-V3", arXiv
2505.09343) Tables 2 and 4 to the printed digit: backward counts twice forward, recomputation
is not counted, and P leaves out embedding, router, norms and the MTP module.

Not modelled: routers with biases (DeepSeek-V3's balancing bias is 256 numbers a layer, no
gradient), gated shared experts, MoE layers alternating with dense ones.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from hwmodels.formats import FORMATS, NumberFormat
from hwmodels.spec import Catalogue, Spec
from hwmodels.units import Count, Experts, Layers, Width
from workloads.attention import AttentionSpec

LayerKind = Literal["dense", "moe"]
GroupScore = Literal["max", "top2"]


class MoESpec(Spec):
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


class ModelSpec(Spec):
    """A decoder-only language model.

    Attributes:
        layers: transformer layers, MTP modules not counted.
        hidden: width of the residual stream.
        vocabulary: rows of the embedding.
        attention: the attention block, the same in every layer.
        dense_layers: the first `dense_layers` layers have a dense FFN, the others a MoE.
        dense_ffn_width: intermediate width of the dense FFN (0 where there is none).
        moe: the expert layer, None for a dense model.
        mtp_layers: multi-token-prediction modules (one layer of the last kind each, plus a
            projection of 2h to h; embedding and head shared with the main model).
        tied_embedding: True where the head is the transposed embedding.
    """

    name: str
    layers: Layers
    hidden: Width
    vocabulary: Count
    attention: Annotated[SerializeAsAny[AttentionSpec], BeforeValidator(AttentionSpec.of_kind)]
    dense_ffn_width: Annotated[int, Field(ge=0, le=2**20)] = 0
    dense_layers: Annotated[int, Field(ge=0, le=1024)]
    moe: MoESpec | None = None
    mtp_layers: Annotated[int, Field(ge=0, le=64)] = 0
    tied_embedding: bool = False

    @model_validator(mode="after")
    def _layers_add_up(self) -> "ModelSpec":
        if self.dense_layers > self.layers:
            raise ValueError(
                f"dense_layers: at most layers ({self.layers}), got {self.dense_layers}"
            )
        if (self.moe is None) != (self.dense_layers == self.layers):
            raise ValueError(
                f"dense_layers: {self.dense_layers} of {self.layers} layers are dense, so 'moe' "
                f"must be {'given' if self.moe is None else 'left out'}"
            )
        if (self.dense_ffn_width > 0) != (self.dense_layers > 0):
            raise ValueError(
                f"dense_ffn_width: must be positive with dense layers and 0 without, "
                f"got {self.dense_ffn_width} for {self.dense_layers}"
            )
        return self

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self.dense_layers

    @property
    def last_layer_kind(self) -> LayerKind:
        """Kind of the last layer, which is also the kind of an MTP module's layer."""
        return "dense" if self.moe is None else "moe"

    @property
    def lm_heads(self) -> int:
        """LM heads evaluated in a training step: the main one and one per MTP module."""
        return 1 + self.mtp_layers

    # Weights of one layer

    @property
    def attention_parameters(self) -> int:
        """Weights of the attention projections of one layer."""
        return self.attention.projection_parameters(self.hidden)

    @property
    def dense_ffn_parameters(self) -> int:
        """Gate, up and down of one dense FFN: `3 h width`."""
        return 3 * self.hidden * self.dense_ffn_width

    @property
    def expert_parameters(self) -> int:
        """Gate, up and down of one expert; 0 for a dense model."""
        return 3 * self.hidden * self.moe.expert_width if self.moe else 0

    @property
    def router_parameters(self) -> int:
        """Weights of one router; 0 for a dense model."""
        return self.hidden * self.moe.routed_experts if self.moe else 0

    @property
    def norm_parameters(self) -> int:
        """Vectors of one layer: two RMSNorms, and those inside attention."""
        return 2 * self.hidden + self.attention.vector_parameters()

    def layer_experts(self, *, activated: bool = False) -> int:
        """Experts of one MoE layer, shared ones included: all, or those one token visits."""
        if self.moe is None:
            return 0
        routed = self.moe.top_k if activated else self.moe.routed_experts
        return routed + self.moe.shared_experts

    def layer_parameters(self, kind: LayerKind, *, activated: bool = False) -> int:
        """All weights of one layer of `kind`, or those that one token meets."""
        shared = self.attention_parameters + self.norm_parameters
        if kind == "dense":
            return shared + self.dense_ffn_parameters
        experts = self.layer_experts(activated=activated) * self.expert_parameters
        return shared + self.router_parameters + experts

    # Weights of the whole

    @property
    def embedding_parameters(self) -> int:
        """Input embedding: `V h`."""
        return self.vocabulary * self.hidden

    @property
    def head_parameters(self) -> int:
        """Matrix of the LM head: `V h`, whether or not it is the embedding's."""
        return self.vocabulary * self.hidden

    @property
    def total_parameters(self) -> int:
        """Stored weights of the main model, MTP modules left out: 671.03 B for DeepSeek-V3."""
        head = 0 if self.tied_embedding else self.head_parameters
        layers = self.dense_layers * self.layer_parameters("dense")
        layers += self.moe_layers * self.layer_parameters("moe")
        return self.embedding_parameters + head + layers + self.hidden

    @property
    def activated_parameters(self) -> int:
        """Weights one token meets, head included and embedding (a lookup) not.

        36.6 B for DeepSeek-V3; its papers say 37 B, its weights file 36.7 B.
        """
        layers = self.dense_layers * self.layer_parameters("dense")
        layers += self.moe_layers * self.layer_parameters("moe", activated=True)
        return self.head_parameters + layers + self.hidden

    @property
    def gemm_parameters(self) -> int:
        """P of the FLOP count: projections, FFNs, activated experts, head; no router or norms."""
        ffn = self.dense_layers * self.dense_ffn_parameters
        ffn += self.moe_layers * self.layer_experts(activated=True) * self.expert_parameters
        return self.layers * self.attention_parameters + ffn + self.head_parameters

    @property
    def mtp_projection_parameters(self) -> int:
        """The projection of one MTP module, `2h x h` (arXiv 2412.19437 §2.2)."""
        return 2 * self.hidden * self.hidden

    @property
    def mtp_parameters(self) -> int:
        """Weights that all MTP modules add: layer, projection, three norms; nothing shared."""
        module = self.layer_parameters(self.last_layer_kind)
        module += self.mtp_projection_parameters + 3 * self.hidden
        return self.mtp_layers * module

    @property
    def mtp_activated_parameters(self) -> int:
        """Weights one token meets in all MTP modules, the shared embedding and head included."""
        module = self.layer_parameters(self.last_layer_kind, activated=True)
        module += self.mtp_projection_parameters + 3 * self.hidden
        return self.mtp_layers * (module + self.embedding_parameters + self.head_parameters)

    # Work and memory per token

    def flops_per_token(self, sequence_length: int, *, causal: bool) -> float:
        """Training FLOPs per token, `3 (2 P + L core)`; see the module docstring for what P counts.

        DeepSeek-V3 at S = 4096: 249.811 GFLOP causal, 280.514 not.
        """
        core = self.attention.core_flops_per_token(sequence_length, causal=causal)
        return 3.0 * (2.0 * self.gemm_parameters + self.layers * core)

    def mtp_flops_per_token(self, sequence_length: int, *, causal: bool) -> float:
        """Training FLOPs per token of the MTP modules, really executed but not in published counts.

        One layer, the projection and one more pass of the head per module.
        """
        weights = self.attention_parameters + self.mtp_projection_parameters + self.head_parameters
        if self.last_layer_kind == "moe":
            weights += self.layer_experts(activated=True) * self.expert_parameters
        else:
            weights += self.dense_ffn_parameters
        core = self.attention.core_flops_per_token(sequence_length, causal=causal)
        return self.mtp_layers * 3.0 * (2.0 * weights + core)

    def kv_bytes_per_token(
        self, kv_format: NumberFormat = FORMATS["bf16"], *, mtp: bool = False
    ) -> float:
        """Bytes one token leaves in the KV cache of all layers (MTP layers too if `mtp`)."""
        layers = self.layers + (self.mtp_layers if mtp else 0)
        return layers * kv_format.bytes_of(self.attention.kv_elements)


MODELS = Catalogue("model", Path(__file__).parent / "presets" / "models", ModelSpec)
