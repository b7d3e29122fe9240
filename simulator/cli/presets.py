"""Commands about presets: list, show."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwmodels.errors import InputError, SpecError, suggestion
from simulator.cli.documents import changed_document, set_option
from simulator.cli.output import console, draw_to, echo_json, json_option, warn_of

if TYPE_CHECKING:
    from hwmodels.cluster import ClusterSpec
    from hwmodels.prices import PriceSpec
    from hwmodels.spec import Catalogue

DEFAULT_PRICES = "isca25-table3"


def _catalogues() -> "dict[str, Catalogue[Any]]":
    from hwmodels.chip import CHIPS
    from hwmodels.cluster import CLUSTERS
    from hwmodels.library import LIBRARIES
    from hwmodels.node import NODES
    from hwmodels.prices import PRICES
    from hwmodels.profile import PROFILES
    from simulator.experiment import EXPERIMENTS
    from workloads.model import MODELS

    catalogues = (CHIPS, NODES, CLUSTERS, PRICES, LIBRARIES, PROFILES, MODELS, EXPERIMENTS)
    return {catalogue.kind: catalogue for catalogue in catalogues}


@click.command(name="list")
@click.argument("kind", required=False)
@json_option
def list_presets(kind: str | None, as_json: bool) -> None:
    """List presets, fabrics, blocks, recipes, schedules and studies, all or of one KIND."""
    from hwmodels.fabrics import FabricSpec
    from simulator.study.document import study_names
    from workloads.blocks import AttentionSpec, FFNSpec
    from workloads.recipes import RECIPES
    from workloads.schedules import SCHEDULES

    names = {name: list(catalogue.names()) for name, catalogue in _catalogues().items()}
    names |= {
        "fabric": sorted(FabricSpec.kinds),
        "attention": sorted(AttentionSpec.kinds),
        "ffn": sorted(FFNSpec.kinds),
        "recipe": sorted(RECIPES),
        "schedule": sorted(SCHEDULES),
        "study": list(study_names()),
    }
    if kind is not None:
        singular = "study" if kind == "studies" else kind.removesuffix("s")
        if singular not in names:
            raise SpecError(f"list: unknown kind {kind!r}{suggestion(kind, names)}")
        names = {singular: names[singular]}
    if as_json:
        echo_json(names)
        return
    for name, entries in names.items():
        click.echo(f"{name:11} {'  '.join(entries)}")


@click.command()
@click.argument("kind")
@click.argument("name")
@json_option
@click.option(
    "--figure",
    type=click.Path(path_type=Path),
    help="Draw the network of a cluster to this file (.png, .svg, .pdf) instead.",
)
@click.option("--prices", metavar="NAME", help="Of a cluster's network; isca25-table3.")
@set_option
def show(
    kind: str,
    name: str,
    as_json: bool,
    figure: Path | None,
    prices: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Print every value of preset NAME with its source; of a cluster also its network.

    KIND is chip, node, cluster, price, library, profile, model, experiment or study; a study may be
    a file too.

    \b
    moesim show chip h800
    moesim show cluster h800-2048-mpft --figure mpft.png
    moesim show cluster h800-2048-mpft --set cluster.nodes=2048     (price and power of 16,384 GPUs)
    """
    from hwmodels.far_values import far_values
    from hwmodels.spec import build
    from simulator.tell.summary import show_preset

    catalogues = _catalogues()
    singular = "study" if kind == "studies" else kind.removesuffix("s")
    if singular == "study":
        _check_options(singular, figure, prices)
        _show_study(name, overrides, as_json=as_json)
        return
    if singular not in catalogues:
        known = [*catalogues, "study"]
        raise SpecError(f"show: unknown kind {kind!r}{suggestion(kind, known)}")
    catalogue = catalogues[singular]
    _check_options(singular, figure, prices)
    document = changed_document(catalogue, name, overrides)
    spec = build(catalogue.spec, document, name)
    warn_of(far_values(spec, document))
    if figure is not None:
        draw_to(figure, spec)
        return
    if as_json:
        sources = {path: source.model_dump() for path, source in document.sources.items()}
        preset: dict[str, Any] = {"values": spec.model_dump(mode="json"), "sources": sources}
        echo_json(preset | (_network(spec, prices) if singular == "cluster" else {}))
        return
    show_preset(console(), spec.model_dump(mode="json"), document)
    if singular == "cluster":
        from simulator.tell.network import show_network

        show_network(console(), spec, _prices(prices))


def _check_options(kind: str, figure: Path | None, prices: str | None) -> None:
    for option, value in (("--figure", figure), ("--prices", prices)):
        if value is not None and kind != "cluster":
            raise InputError(f"{option}: is about the network of a cluster, got a {kind}")


def _show_study(name: str, overrides: tuple[str, ...], *, as_json: bool) -> None:
    """Print what a study asks and the experiment that its axes start from, with sources."""
    from hwmodels.document import Document
    from simulator.cli.overrides import parse_override
    from simulator.study.axes import told
    from simulator.study.document import load_study
    from simulator.study.run import Study
    from simulator.tell.summary import show_preset

    ready = Study.of(load_study(name), dict(parse_override(text) for text in overrides))
    document = ready.document
    if as_json:
        sources = {path: source.model_dump() for path, source in document.sources.items()}
        echo_json({"study": document.asked, "values": document.base, "sources": sources})
        return
    console().print(document.title, markup=False)
    asked = {
        "axes": {
            axis.name: {path: told(given) for path, given in axis.set.items()}
            for axis in ready.spec.axes
        },
        "objectives": ", ".join(document.objectives),
        "where": ", ".join(ready.spec.where) or None,
        "search": document.asked["search"],
        "usd_per_gpu_hour": ready.spec.usd_per_gpu_hour,
    }
    show_preset(console(), asked | document.base, Document(sources=document.sources))


def _prices(name: str | None) -> "PriceSpec":
    from hwmodels.prices import PRICES

    return PRICES.load(name or DEFAULT_PRICES)


def _network(cluster: "ClusterSpec", prices: str | None) -> dict[str, Any]:
    from simulator.tell.network import network_facts

    return {"network": network_facts(cluster, _prices(prices))}
