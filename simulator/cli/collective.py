"""The command `collective`: one collective, or one expert exchange, on a cluster's network."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwmodels.errors import InputError, UnitError, suggestion
from simulator.cli.documents import changed_document, set_option
from simulator.cli.output import console, draw_to, echo_json, json_option, warn_of

if TYPE_CHECKING:
    from hwmodels.cluster import ClusterSpec
    from hwmodels.library import LibrarySpec
    from simulator.network.moe_exchange import ExpertTraffic

EXCHANGES = ("dispatch", "combine")
_FILES = Path(__file__).parents[1] / "network" / "collectives"
_NAMES = (re.search(r'^NAME = "(.+)"', file.read_text(encoding="utf-8"), re.MULTILINE)
          for file in sorted(_FILES.glob("*.py")))  # fmt: skip
ALGORITHMS = ", ".join(found[1] for found in _NAMES if found)
"""Read off the files, so that `--help` starts without numpy."""
SIZE_LEAST, SIZE_MOST = 1.0, 2.0**60


@click.command()
@click.argument("kind")
@click.option("--ranks", type=int, required=True, help="GPUs of a group.")
@click.option("--bytes", "size", metavar="SIZE", help="Size by nccl-tests' conventions: '1 GiB'.")
@click.option("--cluster", "name", required=True, help="Preset; `moesim list clusters`.")
@click.option("--placement", default="packed", metavar="packed|random|spread", show_default=True)
@click.option("--groups", type=int, default=1, help="Disjoint groups that do it at once; 1.")
@click.option("--routing", default="static", metavar="static|ecmp|adaptive", show_default=True)
@click.option("--algorithm", default="auto", metavar="NAME", help=f"{ALGORITHMS}; the fastest.")
@click.option("--library", help="Preset; datasheet rates without it.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Of random and ecmp.")
@click.option("--fault", "faults", multiple=True, metavar="FAULT", help="As nic:17.2, plane:3=0.5.")
@set_option
@click.option("--tokens", type=int, default=4096, help="Of dispatch and combine: a GPU's; 4096.")
@click.option("--mode", default="normal", metavar="normal|low-latency", help="Of the same; normal.")
@click.option("--sms", type=int, default=20, help="Of the same: SMs it is given; 20.")
@click.option("--model", default="deepseek-v3", help="Of the same: whose experts; deepseek-v3.")
@click.option(
    "--figure", type=click.Path(path_type=Path), help="Draw the network, coloured by its load."
)
@json_option
def collective(
    kind: str,
    ranks: int,
    size: str | None,
    name: str,
    placement: str,
    groups: int,
    routing: str,
    algorithm: str,
    library: str | None,
    seed: int,
    faults: tuple[str, ...],
    overrides: tuple[str, ...],
    tokens: int,
    mode: str,
    sms: int,
    model: str,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Time one collective on the network of a cluster: bandwidths, byte bound, busiest links.

    KIND is all_gather, reduce_scatter, all_reduce, all_to_all, broadcast or send_recv, with sizes
    and bus bandwidths as nccl-tests has them; or dispatch or combine, the exchange of a model's
    expert layer (packed, one group).

    \b
    moesim collective all_to_all --ranks 128 --bytes "16 GiB" --cluster h800-2048-mpft
    moesim collective all_gather --ranks 64 --bytes "1 GiB" --cluster h800-2048-roce --routing ecmp
    moesim collective all_to_all --ranks 64 --groups 32 --placement random --bytes "64 MiB"
                      --cluster h800-2048-mpft --fault plane:3
    moesim collective dispatch --ranks 64 --cluster h800-2048-mpft --library deepep-h800
    """
    kind = _spelled(kind)
    cluster, achieved = _cluster(name, overrides, faults), _library(library)
    if kind in EXCHANGES:
        _refuse_for_exchanges(size, placement, groups, algorithm, figure)
        traffic = _expert_traffic(model, ranks, tokens)
        _exchange(kind, mode, traffic, cluster, achieved, sms, routing, seed, as_json)
        return
    from simulator.network.links import Network
    from simulator.network.placement import place
    from simulator.network.run import run_groups
    from simulator.tell.collective import CollectiveRuns, link_load, show_collective

    size_bytes = _size(kind, size)
    _refuse_for_collectives(kind)
    network = Network.of(cluster, routing, seed)
    gpus = place(cluster, ranks, groups, placement, seed)
    runs = run_groups(kind, size_bytes, gpus, network, achieved, algorithm)
    summary = CollectiveRuns(network, tuple(runs), gpus, placement)
    if figure is not None:
        draw_to(figure, cluster, link_load(summary))
    if as_json:
        echo_json(summary.as_dict())
    else:
        show_collective(console(), summary)


def _spelled(kind: str) -> str:
    """Return our name of a collective, as nccl-tests or anybody spells it."""
    from simulator.network.collectives import KINDS

    def bare(word: str) -> str:
        return "".join(letter for letter in word.lower() if letter not in "-_ ")

    return next((known for known in (*KINDS, *EXCHANGES) if bare(known) == bare(kind)), kind)


def _cluster(name: str, overrides: Iterable[str], faults: tuple[str, ...]) -> "ClusterSpec":
    """Return the preset with its changes.

    Raises:
        InputError: no such preset or key, or a value that does not fit.
    """
    from hwmodels.cluster import CLUSTERS, ClusterSpec
    from hwmodels.far_values import far_values
    from hwmodels.spec import build, override

    document = changed_document(CLUSTERS, name, overrides)
    if faults:
        value = document.values.get("faults")
        known = [] if value is None else value if isinstance(value, list) else [value]
        override(document, ClusterSpec, "faults", [*known, *faults], "--fault")
    cluster = build(ClusterSpec, document, name)
    warn_of(far_values(cluster, document))
    return cluster


def _library(name: str | None) -> "LibrarySpec | None":
    if name is None:
        return None
    from hwmodels.library import LIBRARIES

    return LIBRARIES.load(name)


def _size(kind: str, text: str | None) -> float:
    """Return the bytes of a collective.

    Raises:
        InputError: there is no such collective, or no size of it.
    """
    from hwmodels.units import BYTES, parse_quantity
    from simulator.network.collectives import KINDS

    if kind not in KINDS:
        near = suggestion(kind, (*KINDS, *EXCHANGES))
        raise InputError(f"collective: unknown kind {kind!r}{near}")
    if text is None:
        raise InputError("--bytes: is needed for a collective, such as --bytes '1 GiB', got none")
    try:
        size_bytes = parse_quantity(text, BYTES)
    except UnitError as error:
        raise UnitError(f"--bytes: {error}") from None
    if not SIZE_LEAST <= size_bytes <= SIZE_MOST:
        raise InputError(f"--bytes: must be from 1 B to 1 EiB, got {text!r}")
    return size_bytes


def _refuse_for_collectives(kind: str) -> None:
    """Refuse options of expert exchanges, whatever their value."""
    context = click.get_current_context()
    for name in ("tokens", "mode", "sms", "model"):
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            value = str(context.params[name])
            raise InputError(
                f"--{name}: goes with {' and '.join(EXCHANGES)} only, got {value!r} with {kind}"
            )


def _refuse_for_exchanges(
    size: str | None, placement: str, groups: int, algorithm: str, figure: Path | None
) -> None:
    """Refuse options that an expert exchange does not have."""
    options: dict[str, Any] = {
        "--bytes": size,
        "--placement": placement if placement != "packed" else None,
        "--groups": groups if groups != 1 else None,
        "--algorithm": algorithm if algorithm != "auto" else None,
        "--figure": figure,
    }
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option}: does not go with dispatch and combine, got {str(value)!r}")


def _expert_traffic(name: str, ranks: int, tokens: int) -> "ExpertTraffic":
    """Return what a model's expert layer asks of the network."""
    from simulator.network.moe_exchange import ExpertTraffic
    from workloads.model import MODELS

    model = MODELS.load(name)
    if model.moe is None:
        raise InputError(f"--model: must have experts, got {name!r}")
    return ExpertTraffic(ranks=ranks, tokens=tokens, hidden=model.hidden, moe=model.moe)


def _exchange(
    kind: str,
    mode: str,
    traffic: "ExpertTraffic",
    cluster: "ClusterSpec",
    library: "LibrarySpec | None",
    sms: int,
    routing: str,
    seed: int,
    as_json: bool,
) -> None:
    """Time an expert exchange, played as flows where that is longer than its slowest port."""
    from dataclasses import asdict

    from simulator.network.moe_exchange import moe_exchange
    from simulator.tell.collective import show_exchange

    run = moe_exchange(
        kind,  # type: ignore[arg-type]
        mode,  # type: ignore[arg-type]
        traffic,
        cluster,
        library,
        sms=sms,
        routing=routing,
        seed=seed,
    )
    if as_json:
        asked = {"kind": kind, "mode": mode, "sms": sms, "routing": routing}
        asked |= {"ranks": traffic.ranks, "tokens": traffic.tokens, "hidden": traffic.hidden}
        moe = traffic.moe.model_dump(mode="json")
        echo_json(asked | {"moe": moe, "cluster": cluster.name} | asdict(run))
        return
    title = f"{kind}, {mode} mode, {traffic.ranks} ranks on {cluster.name}"
    show_exchange(console(), f"{title}, {traffic.moe.rule}", run)
