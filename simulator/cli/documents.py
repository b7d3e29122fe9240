"""Presets as a command changes them: `--set KEY=VALUE` on one preset of a catalogue."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from hwmodels.errors import InputError

if TYPE_CHECKING:
    from hwmodels.document import Document
    from hwmodels.spec import Catalogue

set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one value, as in cluster.fabric.planes=4; repeatable.",
)


def changed_document(
    catalogue: "Catalogue[Any]", name: str, overrides: Iterable[str]
) -> "Document":
    """Return the document of a preset with its changes; keys begin with the kind of preset.

    Raises:
        InputError: no such preset or key.
    """
    from hwmodels.spec import override
    from simulator.cli.overrides import parse_override

    document, kind = catalogue.document(name), catalogue.kind
    for text in overrides:
        path, value = parse_override(text)
        prefix, _, below = path.partition(".")
        if prefix != kind or not below:
            raise InputError(f"--set {text!r}: KEY must begin with '{kind}.', got {path!r}")
        override(document, catalogue.spec, below, value, f"--set {text}")
    return document
