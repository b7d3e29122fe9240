"""From units of a layout (`dense`, `moe`, `mtp`, `head`) to layers with kernels and sizes."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from workloads.blocks import Site
from workloads.blocks.embedding import embedding
from workloads.blocks.head import lm_head, logits_bytes, vocabulary_of_rank
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
        tables=_embedding_table(model, site) + first.tables,
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
    h, whole = model.hidden, model.ffn(kind)
    ffn = whole.shard(site.tp, site.etp)
    attention = model.attention.shard(site.tp, site.cp if site.cp_comm == "a2a" else 1)
    held = attention.projection_parameters(h) + attention.vector_parameters() + 2 * h
    is_routed = whole.routed_parameters(h) > 0
    local = site.local_experts * model.expert_parameters / site.etp if is_routed else 0
    arrived = site.etp * site.tokens * site.gpus_per_token if is_routed else 0.0
    return Layer(
        kind,
        (
            Block(ATTN, attention.passes(site) + ffn.entry(site)),
            Block(MLP, ffn.passes(site)),
        ),
        parameters=Parameters(dense=held + whole.held_parameters(h, site.tp), routed=local),
        exchanged_bytes=arrived * (site.dispatch.bytes_of(h) + site.combine.bytes_of(h)),
    )


def _mtp_layer(model: ModelSpec, site: Site) -> Layer:
    layer = _transformer_layer(model, site, model.last_layer_kind)
    return replace(
        layer,
        kind="mtp",
        blocks=_before(mtp_projection(site), layer.blocks),
        parameters=layer.parameters
        + Parameters(dense=projection_parameters(model.hidden) // site.tp),
        tables=_embedding_table(model, site),
    )


def _embedding_table(model: ModelSpec, site: Site) -> tuple[tuple[str, float], ...]:
    return (("embedding", _table_parameters(model, site)),)


def _table_parameters(model: ModelSpec, site: Site) -> float:
    """Weights of a rank's share of the vocabulary."""
    return float(vocabulary_of_rank(model.vocabulary, site.tp) * model.hidden)


def _head(model: ModelSpec, site: Site) -> Layer:
    """The norm in front of an MTP module's head is counted with the module, so heads share one."""
    table = "embedding" if model.tied_embedding else "head"
    return Layer(
        "head",
        (Block(ATTN), Block(MLP, lm_head(site, model.vocabulary))),
        tables=((table, _table_parameters(model, site)), ("final norm", float(model.hidden))),
        logits_bytes=logits_bytes(site, model.vocabulary),
    )
