"""A transformer as shapes, and what follows from them in closed form.

Symbols: L layers, h hidden, V vocabulary, S sequence length, P weights that multiply a token.

    parameters (no MTP)  = embedding h V + head h V (0 if tied) + sum over layers + final norm
    training FLOPs/token = 3 (2 P + sum over layers of the attention core)

The second is the definition that reproduces ISCA'25 ("Insights into DeepSeek-V3", arXiv
2505.09343) Tables 2 and 4 to the printed digit: backward counts twice forward, recomputation
is not counted, and P leaves out embedding, router, norms and the MTP module.

Not modelled: routers with biases (DeepSeek-V3's balancing bias is 256 numbers a layer, no
gradient), gated shared experts.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from hwmodels.errors import SpecError
from hwmodels.formats import FORMATS, NumberFormat
from hwmodels.spec import Catalogue, Spec
from hwmodels.units import Count, Layers, Width
from workloads.blocks import AttentionSpec, FFNSpec
from workloads.blocks.ffn import GatedFFN
from workloads.blocks.moe import MoESpec
from workloads.blocks.mtp import parameters as mtp_module_parameters
from workloads.blocks.mtp import projection_parameters
from workloads.units import LayerKind, parse_layers


def _experts(values: Any) -> Any:
    """Validate an expert layer; without a `kind` it is the common one."""
    if not isinstance(values, dict):
        return values
    found = FFNSpec.of_kind({"kind": "moe"} | values)
    if not isinstance(found, MoESpec):
        raise SpecError(f"kind: must be one with experts, got {found.kind!r}")
    return found


def _without_experts(values: Any) -> Any:
    """Validate a dense FFN: experts are a model's `moe`."""
    found = FFNSpec.of_kind(values)
    if isinstance(found, MoESpec):
        raise SpecError(f"kind: must be one without experts, which are 'moe', got {found.kind!r}")
    return found


class ModelSpec(Spec):
    """A decoder-only language model.

    Attributes:
        layers: transformer layers, MTP modules not counted.
        hidden: width of the residual stream.
        vocabulary: rows of the embedding.
        attention: the attention block, the same in every layer.
        dense_layers: layers with a dense FFN; the others have a MoE.
        dense_ffn_width: intermediate width of a gated dense FFN (0 where there is none).
        dense_ffn: the dense FFN where it is of another kind, instead of `dense_ffn_width`.
        moe: the expert layer, None for a dense model.
        layer_order: which layers are dense, `24*d+m` say (`workloads.units`); where it is left out
            the first `dense_layers` are.
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
    dense_ffn: Annotated[SerializeAsAny[FFNSpec], BeforeValidator(_without_experts)] | None = None
    dense_layers: Annotated[int, Field(ge=0, le=1024)]
    moe: Annotated[SerializeAsAny[MoESpec], BeforeValidator(_experts)] | None = None
    layer_order: Annotated[str, Field(max_length=10_000)] | None = None
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
        if self.dense_ffn is not None and (self.dense_ffn_width or not self.dense_layers):
            raise ValueError(
                f"dense_ffn: stands instead of dense_ffn_width where there are dense layers, got "
                f"dense_ffn_width = {self.dense_ffn_width} and dense_layers = {self.dense_layers}"
            )
        if self.dense_ffn is None and (self.dense_ffn_width > 0) != (self.dense_layers > 0):
            raise ValueError(
                f"dense_ffn_width: must be positive with dense layers and 0 without, "
                f"got {self.dense_ffn_width} for {self.dense_layers}"
            )
        return self

    @model_validator(mode="after")
    def _order_has_the_layers(self) -> "ModelSpec":
        kinds = self.layer_kinds
        if sorted(kinds) != ["dense"] * self.dense_layers + ["moe"] * self.moe_layers:
            raise ValueError(
                f"layer_order: must have dense_layers = {self.dense_layers} dense and "
                f"{self.moe_layers} MoE layers, got {kinds.count('dense')} and {kinds.count('moe')}"
            )
        return self

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """Kind of each layer, in order."""
        if self.layer_order is not None:
            return parse_layers(self.layer_order)
        dense: tuple[LayerKind, ...] = ("dense",)
        moe: tuple[LayerKind, ...] = ("moe",)
        return dense * self.dense_layers + moe * self.moe_layers

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self.dense_layers

    @property
    def last_layer_kind(self) -> LayerKind:
        """Kind of the last layer, which is also the kind of an MTP module's layer."""
        return self.layer_kinds[-1]

    @property
    def routed_layers(self) -> int:
        """Layers with experts, those of MTP modules included."""
        return self.moe_layers + self.mtp_layers * (self.last_layer_kind == "moe")

    @property
    def lm_heads(self) -> int:
        """LM heads evaluated in a training step: the main one and one per MTP module."""
        return 1 + self.mtp_layers

    # Weights of one layer

    def ffn(self, kind: LayerKind) -> FFNSpec:
        """What follows attention in a layer of `kind`, which the model must have."""
        found = self.moe if kind == "moe" else self.dense_ffn
        return found or GatedFFN(width=self.dense_ffn_width)

    def _layers_of(self, kind: LayerKind) -> int:
        return self.moe_layers if kind == "moe" else self.dense_layers

    @property
    def _kinds(self) -> tuple[LayerKind, ...]:
        """Kinds of layer that the model has."""
        return tuple(dict.fromkeys(self.layer_kinds))

    @property
    def attention_parameters(self) -> int:
        """Weights of the attention projections of one layer."""
        return self.attention.projection_parameters(self.hidden)

    @property
    def expert_parameters(self) -> int:
        """Gate, up and down of one expert; 0 for a dense model."""
        return self.moe.expert_parameters(self.hidden) if self.moe else 0

    @property
    def router_parameters(self) -> int:
        """Weights of one router; 0 for a dense model."""
        return self.moe.router_parameters(self.hidden) if self.moe else 0

    @property
    def norm_parameters(self) -> int:
        """Vectors of one layer: two RMSNorms, and those inside attention."""
        return 2 * self.hidden + self.attention.vector_parameters()

    def layer_parameters(self, kind: LayerKind, *, activated: bool = False) -> int:
        """All weights of one layer of `kind`, or those that one token meets."""
        shared = self.attention_parameters + self.norm_parameters
        return shared + self.ffn(kind).parameters(self.hidden, activated=activated)

    def layer_product_parameters(self, kind: LayerKind) -> int:
        """Weights of one layer that multiply a token: no router, no norms."""
        return self.attention_parameters + self.ffn(kind).product_parameters(self.hidden)

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
        layers = sum(self._layers_of(kind) * self.layer_parameters(kind) for kind in self._kinds)
        return self.embedding_parameters + head + layers + self.hidden

    @property
    def activated_parameters(self) -> int:
        """Weights one token meets, head included and embedding (a lookup) not.

        36.6 B for DeepSeek-V3; its papers say 37 B, its weights file 36.7 B.
        """
        layers = sum(
            self._layers_of(kind) * self.layer_parameters(kind, activated=True)
            for kind in self._kinds
        )
        return self.head_parameters + layers + self.hidden

    @property
    def gemm_parameters(self) -> int:
        """P of the FLOP count: projections, FFNs, activated experts, head; no router or norms."""
        layers = sum(
            self._layers_of(kind) * self.layer_product_parameters(kind) for kind in self._kinds
        )
        return layers + self.head_parameters

    @property
    def mtp_projection_parameters(self) -> int:
        """The projection of one MTP module, `2h x h` (arXiv 2412.19437 §2.2)."""
        return projection_parameters(self.hidden)

    @property
    def mtp_parameters(self) -> int:
        """Weights that all MTP modules add: layer, projection, three norms; nothing shared."""
        module = self.layer_parameters(self.last_layer_kind)
        module += mtp_module_parameters(self.hidden)
        return self.mtp_layers * module

    @property
    def mtp_activated_parameters(self) -> int:
        """Weights one token meets in all MTP modules, the shared embedding and head included."""
        module = self.layer_parameters(self.last_layer_kind, activated=True)
        module += mtp_module_parameters(self.hidden)
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
        weights = self.layer_product_parameters(self.last_layer_kind)
        weights += self.mtp_projection_parameters + self.head_parameters
        core = self.attention.core_flops_per_token(sequence_length, causal=causal)
        return self.mtp_layers * 3.0 * (2.0 * weights + core)

    def kv_bytes_per_token(
        self, kv_format: NumberFormat = FORMATS["bf16"], *, mtp: bool = False
    ) -> float:
        """Bytes one token leaves in the KV cache of all layers (MTP layers too if `mtp`)."""
        layers = self.layers + (self.mtp_layers if mtp else 0)
        return layers * kv_format.bytes_of(self.attention.kv_elements)


MODELS = Catalogue("model", Path(__file__).parent / "presets" / "models", ModelSpec)
