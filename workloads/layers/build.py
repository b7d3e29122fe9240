"""From units of a layout (`dense`, `moe`, `mtp`, `head`) to layers with kernels and sizes."""

from dataclasses import replace

from hwmodels.errors import InfeasibleError
from workloads.attention import MLASpec
from workloads.layers import (
    Block,
    Layer,
    LayerInputs,
    Parameters,
    PhaseOps,
    dense_ffn,
    embedding,
    mla,
    moe,
    mtp,
)
from workloads.layout import Layout, Unit

ATTN, MLP = "attn", "mlp"


def stage_layers(inputs: LayerInputs, layout: Layout) -> tuple[tuple[Layer, ...], ...]:
    """Return the layers of every stage; the first layer of stage 0 carries the embedding.

    Heads share one matrix, and MTP modules the embedding, where they sit on one rank (arXiv
    2412.19437 §3.2.3).

    Raises:
        InfeasibleError: the model's attention has no training kernels here yet.
    """
    attention = inputs.model.attention
    if not isinstance(attention, MLASpec):
        raise InfeasibleError(
            f"model {inputs.model.name}: training steps are modelled for attention.kind = 'mla', "
            f"got {attention.kind!r}"
        )
    if attention.q_lora_rank is None:
        raise InfeasibleError(
            f"model {inputs.model.name}: training steps are modelled for MLA with a query latent, "
            f"got no attention.q_lora_rank"
        )
    layers = {unit: _layer(inputs, unit) for unit in {unit for stage in layout for unit in stage}}
    stages = [[layers[unit] for unit in stage] for stage in layout]
    first = stages[0][0]
    stages[0][0] = replace(
        first,
        blocks=(_before(embedding.embedding(inputs), first.blocks[0]), *first.blocks[1:]),
        tables=_embedding_table(inputs) + first.tables,
    )
    return tuple(tuple(stage) for stage in stages)


def _before(ops: PhaseOps, block: Block) -> Block:
    return block._replace(ops=ops + block.ops)


def _layer(inputs: LayerInputs, unit: Unit) -> Layer:
    if unit == "head":
        return _head(inputs)
    if unit == "dense":
        return _dense_layer(inputs)
    if unit == "moe":
        return _moe_layer(inputs)
    layer = _moe_layer(inputs) if inputs.model.moe else _dense_layer(inputs)
    return replace(
        layer,
        kind="mtp",
        blocks=(_before(mtp.mtp_projection(inputs), layer.blocks[0]), *layer.blocks[1:]),
        parameters=layer.parameters + Parameters(dense=mtp.parameters(inputs.model.hidden)),
        tables=_embedding_table(inputs),
        saved_bytes=layer.saved_bytes + mtp.saved_bytes(inputs),
    )


def _dense_layer(inputs: LayerInputs) -> Layer:
    model = inputs.model
    residual = inputs.tokens * model.hidden * 2
    return Layer(
        "dense",
        (Block(ATTN, mla.mla(inputs)), Block(MLP, dense_ffn.dense_ffn(inputs))),
        parameters=Parameters(dense=model.layer_parameters("dense")),
        saved_bytes=mla.saved_bytes(inputs)
        + residual
        + dense_ffn.saved_bytes(inputs.tokens, model.dense_ffn_width),
    )


def _moe_layer(inputs: LayerInputs) -> Layer:
    model = inputs.model
    assert model.moe is not None, "a layout with MoE layers passed the check against this model"
    shared = model.layer_parameters("moe") - model.moe.routed_experts * model.expert_parameters
    return Layer(
        "moe",
        (
            Block(ATTN, mla.mla(inputs) + moe.router(inputs) + moe.dispatch(inputs)),
            Block(MLP, moe.experts(inputs) + moe.combine(inputs)),
        ),
        parameters=Parameters(dense=shared, routed=inputs.local_experts * model.expert_parameters),
        saved_bytes=mla.saved_bytes(inputs) + moe.saved_bytes(inputs),
    )


def _embedding_table(inputs: LayerInputs) -> tuple[tuple[str, float], ...]:
    return (("embedding", float(inputs.model.embedding_parameters)),)


def _head(inputs: LayerInputs) -> Layer:
    """The norm in front of an MTP module's head is counted with the module, so heads share one."""
    model = inputs.model
    table = "embedding" if model.tied_embedding else "head"
    return Layer(
        "head",
        (Block(ATTN), Block(MLP, embedding.lm_head(inputs))),
        tables=((table, float(model.head_parameters)), ("final norm", float(model.hidden))),
        saved_bytes=embedding.saved_bytes(inputs),
        logits_bytes=embedding.logits_bytes(inputs),
    )
