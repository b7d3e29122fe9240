"""Commands about presets: list, show."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwmodels.errors import InputError, SpecError, suggestion
from simulator.cli.output import console, draw_to, echo_json, json_option

if TYPE_CHECKING:
    from hwmodels.spec import Catalogue


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
    """List presets, fabrics and schedules, all or of one KIND."""
    from hwmodels.fabrics import FabricSpec
    from workloads.schedules import SCHEDULES

    names = {name: list(catalogue.names()) for name, catalogue in _catalogues().items()}
    names |= {"fabric": sorted(FabricSpec.kinds), "schedule": sorted(SCHEDULES)}
    if kind is not None:
        singular = kind.removesuffix("s")
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
def show(kind: str, name: str, as_json: bool, figure: Path | None) -> None:
    """Print every value of preset NAME with its source.

    KIND is chip, node, cluster, price, library, profile, model or experiment.
    """
    from simulator.tell.summary import show_preset

    catalogues, singular = _catalogues(), kind.removesuffix("s")
    if singular not in catalogues:
        raise SpecError(f"show: unknown kind {kind!r}{suggestion(kind, catalogues)}")
    catalogue = catalogues[singular]
    if figure is not None:
        if singular != "cluster":
            raise InputError(f"--figure: draws the network of a cluster, got a {singular}")
        draw_to(figure, catalogue.load(name))
        return
    spec, document = catalogue.load(name), catalogue.document(name)
    if as_json:
        sources = {path: source.model_dump() for path, source in document.sources.items()}
        echo_json({"values": spec.model_dump(mode="json"), "sources": sources})
    else:
        show_preset(console(), spec.model_dump(mode="json"), document)
