"""What a study's folder says of it: its columns, its sources, and what tells it from others."""

import hashlib
import json
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hwmodels.document import Source, covers
from hwmodels.errors import SpecError, shown, suggestion
from hwmodels.spec import leaves
from simulator.study.document import StudySpec
from simulator.study.economics import COLUMNS
from simulator.study.points import Grid
from simulator.tell.headlines import Headline
from simulator.tell.metrics import Metrics
from simulator.tell.outcome import headlines
from simulator.tell.study_table import KEPT, StudyDocument
from workloads.phases import PHASES


def describe(grid: Grid) -> StudyDocument:
    """Return what the folder of a study says of it.

    Raises:
        InputError: an objective is no number of a row, two columns have one name, a source is of
            nothing, or a figure asks for what there is not.
    """
    spec, base = grid.spec, grid.base
    columns = _columns(spec, drawn=base.uncertainty.draws > 0)
    known = [column.name for column in columns]
    beside = [path for axis in grid.axes for path in axis.paths[1:]]
    every = Counter([*KEPT, *(axis.name for axis in grid.axes), *beside, *known])
    if twice := [name for name, count in every.items() if count > 1]:
        raise SpecError(f"axes: {shown(twice[0])} is another column's name; call it otherwise")
    for name in spec.objectives:
        if name not in known:
            why = suggestion(name, known)
            if name == "tokens_per_usd":
                why = "; it needs usd_per_gpu_hour"
            raise SpecError(f"objectives: no number {name!r} in a row{why}")
    asked, resolved = spec.model_dump(mode="json", by_alias=True), base.model_dump(mode="json")
    document = StudyDocument(
        name=spec.name,
        title=spec.title,
        about=spec.about,
        axes=tuple(axis.column for axis in grid.axes),
        columns=columns,
        objectives=spec.objectives,
        figures=spec.figures,
        points=len(grid),
        digest=_digest(grid, [asked, resolved]),
        asked=asked,
        base=resolved,
        sources=base.sources | _own_sources(spec),
        version=_version(),
    )
    if document.figures:
        from simulator.tell.study_figures import check_figures  # noqa: PLC0415 - loads matplotlib

        check_figures(document)
    return document


def _own_sources(spec: StudySpec) -> dict[str, Source]:
    """Return what the study itself cites.

    Raises:
        SpecError: of what it does not have, or once as a source and once as an assumption.
    """
    kept = spec.model_dump(exclude={"axes", "experiment", "sources", "assumed"}, exclude_none=True)
    fields = [path for path, value in leaves(kept) if value not in ("", ())]
    known = [*fields, *(f"axes.{axis.name}.{path}" for axis in spec.axes for path in axis.set)]
    price = {"usd_per_gpu_hour": spec.usd_source} if spec.usd_source else {}
    found: dict[str, Source] = {}
    for kind, cited in (("sources", price), ("sources", spec.sources), ("assumed", spec.assumed)):
        for path, text in cited.items():
            if not any(covers(path, leaf) for leaf in known):
                near = suggestion(path, [f"axes.{axis.name}" for axis in spec.axes] + fields)
                raise SpecError(
                    f"{kind}.{path}: must be of axes.NAME, axes.NAME.PATH or a field of the study "
                    f"that has a value{near}"
                )
            if path in found:
                raise SpecError(f"{kind}.{path}: has a source already; allowed is one")
            found[path] = Source(text=text, assumed=kind == "assumed")
    return found


def _digest(grid: Grid, documents: list[Any]) -> str:
    """Return a digest of all that rows depend on: what was asked, what is drawn, what files of
    presets say, and the version.
    """
    sources = {path: source.model_dump() for path, source in grid.base.sources.items()}
    drawn = sources if grid.base.uncertainty.draws else None
    presets = [axis.digest for axis in grid.axes]
    key = json.dumps([documents, drawn, presets, _version()], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()


def _columns(spec: StudySpec, *, drawn: bool) -> tuple[Headline, ...]:
    """Return the numbers of a row; of an uncertain experiment the ends of each interval too."""
    kind = Metrics.kinds["training"]
    assert issubclass(kind, Metrics), "the registry of a family holds its own subclasses"
    of_play = headlines(kind, PHASES)
    ends = [
        each._replace(name=f"{each.name}.{end}", title=f"{each.title}, {end.upper()}")
        for each in of_play if drawn
        for end in ("p10", "p90")
    ]  # fmt: skip
    costs = (each for each in COLUMNS if each.name != "tokens_per_usd" or spec.usd_per_gpu_hour)
    return (*of_play, *ends, *costs)


def _version() -> str:
    try:
        return version("moesim")
    except PackageNotFoundError:
        return "uninstalled"
