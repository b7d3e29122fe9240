"""From units of a layout (`dense`, `moe`, `mtp`, `head`) to layers with kernels and sizes."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from workloads.blocks import Site
from workloads.blocks.embedding import embedding
from workloads.blocks.head import lm_head, logits_bytes
from workloads.blocks.mtp import mtp_projection
from workloads.blocks.mtp import parameters as projection_parameters
from workloads.layers import ATTN, MLP, Block, Layer, Parameters
from workloads.model import ModelSpec
from workloads.recipes import Passes
from workloads.units import LayerKind, Layout, Unit

LAYERS_KEPT = 128
"""Plans that differ in their stages have the same layers, object by object: what is worked out of
one holds for all."""


def stage_layers(model: ModelSpec, site: Site, layout: Layout) -> tuple[tuple[Layer, ...], ...]:
    """Return the layers of every stage; the first layer of stage 0 carries the embedding.

    Heads share one matrix, and MTP modules the embedding, where they sit on one rank (arXiv
    2412.19437 §3.2.3).
    """
    units = {unit for stage in layout for unit in stage}
    layers = {unit: _layer(model, site, unit) for unit in sorted(units)}
    (begin, *rest), *others = layout
    return (
        (_with_embedding(model, site, begin), *(layers[unit] for unit in rest)),
        *(tuple(layers[unit] for unit in stage) for stage in others),
    )


@lru_cache(maxsize=LAYERS_KEPT)
def _with_embedding(model: ModelSpec, site: Site, unit: Unit) -> Layer:
    first = _layer(model, site, unit)
    return replace(
        first,
        blocks=_before(embedding(site), first.blocks),
        tables=_embedding_table(model) + first.tables,
    )


def _before(ops: Passes, blocks: Sequence[Block]) -> tuple[Block, ...]:
    first, *others = blocks
    return first._replace(ops=ops + first.ops), *others


@lru_cache(maxsize=LAYERS_KEPT)
def _layer(model: ModelSpec, site: Site, unit: Unit) -> Layer:
    if unit == "head":
        return _head(model, site)
    if unit == "mtp":
        return _mtp_layer(model, site)
    return _transformer_layer(model, site, unit)


def _transformer_layer(model: ModelSpec, site: Site, kind: LayerKind) -> Layer:
    ffn, h = model.ffn(kind), model.hidden
    shared = ffn.routed_parameters(h)
    local = site.local_experts * model.expert_parameters if shared else 0
    return Layer(
        kind,
        (
            Block(ATTN, model.attention.passes(site) + ffn.entry(site)),
            Block(MLP, ffn.passes(site)),
        ),
        parameters=Parameters(dense=model.layer_parameters(kind) - shared, routed=local),
    )


def _mtp_layer(model: ModelSpec, site: Site) -> Layer:
    layer = _transformer_layer(model, site, model.last_layer_kind)
    return replace(
        layer,
        kind="mtp",
        blocks=_before(mtp_projection(site), layer.blocks),
        parameters=layer.parameters + Parameters(dense=projection_parameters(model.hidden)),
        tables=_embedding_table(model),
    )


def _embedding_table(model: ModelSpec) -> tuple[tuple[str, float], ...]:
    return (("embedding", float(model.embedding_parameters)),)


def _head(model: ModelSpec, site: Site) -> Layer:
    """The norm in front of an MTP module's head is counted with the module, so heads share one."""
    table = "embedding" if model.tied_embedding else "head"
    return Layer(
        "head",
        (Block(ATTN), Block(MLP, lm_head(site, model.vocabulary))),
        tables=((table, float(model.head_parameters)), ("final norm", float(model.hidden))),
        logits_bytes=logits_bytes(site, model.vocabulary),
    )
