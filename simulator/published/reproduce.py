"""Published figures beside ours: the rows of `moesim reproduce`.

A row names a quantity and its arguments in a TOML file under `presets/published`; `quantities`
computes it. Kinds:

    closed-form  must round to the printed figure; `resolution` is the unit of its last digit
    predicted    simulated, and nothing was fitted to it
    fitted       a constant came from this figure or its like; the note gives the held-out error

The headline counts only what was predicted.

A row that names `uncertain` experiments has an interval: the same quantity, computed on each of
their draws. With `median` ours is the median of these: rows called `X.unlike` say X of the run
whose GPUs differ, beside X of the run with all alike.
"""

import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hwmodels.errors import SpecError, suggestion
from hwmodels.spec import Spec, validate
from simulator.driver.draws import Track
from simulator.published.quantities import QUANTITIES, Laboratory, UncertainBench
from simulator.tell.intervals import quantiles

FOLDER = Path(__file__).parents[1] / "presets" / "published"
Kind = Literal["closed-form", "predicted", "fitted"]


class PublishedFigure(Spec):
    """One figure as printed, and how to compute ours.

    Attributes:
        id: where it stands, such as `isca25.table4.mpft.step_time_s`.
        published: in `unit`, as printed.
        resolution: unit of the last printed digit, of a closed form.
        truncated: the source cut digits off instead of rounding.
        restates: another row that says the same thing of the same simulation (another unit, one
            rank instead of the mean, a network this model does not tell apart): kept out of the
            headline.
        quantity, arguments: entry of `quantities.QUANTITIES` and its keywords.
        uncertain: the experiment whose draws stand in for `arguments.experiment`; where the
            quantity compares several, the one for each: `{ "a" = "a-draws", "b" = "b-draws" }`,
            drawn equally often, draw by draw.
        median: ours is the median over the draws of `uncertain`, not the value at the inputs' own.
    """

    id: str
    source: str
    published: float
    unit: str = ""
    kind: Kind
    resolution: Annotated[float, Field(gt=0)] | None = None
    truncated: bool = False
    restates: str = ""
    quantity: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    uncertain: str | dict[str, str] = Field(default_factory=dict)
    median: bool = False
    note: str = ""

    @model_validator(mode="after")
    def _a_median_is_of_draws(self) -> "PublishedFigure":
        if self.median and not self.uncertain:
            raise ValueError("median: must come with uncertain, got none")
        return self

    @property
    def stand_ins(self) -> dict[str, str]:
        """Experiment to draw, by the experiment of the arguments it stands in for."""
        if isinstance(self.uncertain, str):
            return {str(self.arguments.get("experiment")): self.uncertain}
        return self.uncertain


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison.

    Attributes:
        relative_error: of `simulated`; None where `published` is zero.
        p10, median, p90: over the draws of an uncertain figure; None for others.
    """

    id: str
    source: str
    published: float
    simulated: float
    unit: str
    relative_error: float | None
    kind: Kind
    note: str
    restates: str = ""
    p10: float | None = None
    median: float | None = None
    p90: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "restates"}


@cache
def figures() -> tuple[PublishedFigure, ...]:
    """Return all published figures, file by file.

    Raises:
        SpecError: a row is malformed, or an id stands twice.
    """
    found: dict[str, PublishedFigure] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for values in tomllib.loads(path.read_text(encoding="utf-8"))["figures"]:
            figure = validate(PublishedFigure, values, f"{path.stem}: {values.get('id', '?')}")
            if figure.id in found:
                raise SpecError(f"{path.stem}: {figure.id} stands twice")
            if figure.quantity not in QUANTITIES:
                near = suggestion(figure.quantity, QUANTITIES)
                raise SpecError(f"{path.stem}: {figure.id}: no quantity {figure.quantity!r}{near}")
            found[figure.id] = figure
    return tuple(found.values())


def reproduce(names: Sequence[str] = (), track: Track = iter) -> tuple[Row, ...]:
    """Compute the figures whose id is one of `names` or starts with one; all without names.

    Args:
        track: passes on the numbers of the draws, and may show progress.

    Raises:
        SpecError: a name matches nothing.
    """
    laboratory = Laboratory(track)
    return tuple(_row(figure, laboratory) for figure in _chosen(names))


def _chosen(names: Sequence[str]) -> list[PublishedFigure]:
    for name in names:
        if not any(_matches(figure.id, name) for figure in figures()):
            beginnings = {figure.id.partition(".")[0] for figure in figures()}
            beginnings |= {".".join(figure.id.split(".")[:2]) for figure in figures()}
            near = suggestion(name, beginnings)
            raise SpecError(f"reproduce: no published figure is or begins with {name!r}{near}")
    return [f for f in figures() if not names or any(_matches(f.id, name) for name in names)]


def _matches(identifier: str, name: str) -> bool:
    return identifier == name or identifier.startswith(name.rstrip(".") + ".")


def _row(figure: PublishedFigure, laboratory: Laboratory) -> Row:
    spread = quantiles(_values_by_draw(figure, laboratory)) if figure.uncertain else (None,) * 3
    if figure.median:
        simulated = spread[1]
        assert simulated is not None, "a median is of draws"
    else:
        simulated = QUANTITIES[figure.quantity](laboratory, **figure.arguments)
    error = simulated / figure.published - 1 if figure.published else None
    return Row(
        figure.id,
        figure.source,
        figure.published,
        simulated,
        figure.unit,
        error,
        figure.kind,
        figure.note,
        figure.restates,
        *spread,
    )


def _values_by_draw(figure: PublishedFigure, laboratory: Laboratory) -> list[float]:
    """Return the quantity of an uncertain figure on every draw.

    Raises:
        SpecError: its experiments are not drawn equally often, or one has no stand-in.
    """
    drawn = {name: laboratory.draws(stand_in) for name, stand_in in figure.stand_ins.items()}
    counts = {figure.stand_ins[name]: len(draws) for name, draws in drawn.items()}
    if len(set(counts.values())) > 1:
        raise SpecError(f"{figure.id}: uncertain: must be drawn equally often, got {counts}")
    quantity = QUANTITIES[figure.quantity]
    try:
        return [
            quantity(UncertainBench(dict(zip(drawn, draws, strict=True))), **figure.arguments)
            for draws in zip(*drawn.values(), strict=True)
        ]
    except SpecError as error:
        raise SpecError(f"{figure.id}: {error}") from None


def headline(rows: Sequence[Row]) -> str:
    """Return one line on the predicted rows, each counted once: median and worst error."""
    errors = {
        row.id: row.relative_error
        for row in rows
        if row.kind == "predicted" and row.relative_error is not None and not row.restates
    }
    if not errors:
        return "no predicted figure among these rows"
    worst = max(errors, key=lambda name: abs(errors[name]))
    median = statistics.median(abs(error) for error in errors.values())
    return (
        f"{len(errors)} predicted figures: median |error| {median:.1%}, "
        f"worst {errors[worst]:+.1%} ({worst})"
    )
