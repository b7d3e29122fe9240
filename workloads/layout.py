"""Which layers sit on which pipeline stage, as a line of text.

    layout = stages    joined by ","      "3d+1m, 14*4m, 1m+mtp+2heads"
    stages = [N "*"] stage                14*4m is fourteen stages of four MoE layers
    stage  = terms     joined by "+"      3d+1m is three dense layers, then one MoE layer
    term   = [N] unit                     d or dense, m or moe, mtp, head or heads; N from 1 to 999

Blanks do not matter. The input embedding is not written: it sits on the first stage. `mtp` is one
MTP module, `head` one LM head: a model with D modules needs D of the first and D + 1 of the
second. An MTP module uses the embedding again, so a stage away from it keeps a copy, and the
gradients of both are reduced at the end of a step (`workloads.homes`). It is free where one rank
holds the first and the last stage (DualPipe; arXiv 2412.19437 §3.2.3).

A layout must hold every unit of the model once: layers in the model's order, MTP modules and heads
after the last layer. Without a layout, `default_layout` counts each layer, module and head as one
unit and deals them out evenly in order, larger stages first. DeepSeek-V3 has 61 + 1 + 2 = 64
units: on 16 stages four each, which is the line above.
"""

import re
from itertools import groupby, pairwise
from typing import Literal

from hwmodels.errors import InfeasibleError, SpecError
from workloads.model import ModelSpec

Unit = Literal["dense", "moe", "mtp", "head"]
Stage = tuple[Unit, ...]
Layout = tuple[Stage, ...]

_UNITS: dict[str, Unit] = {
    "d": "dense",
    "dense": "dense",
    "m": "moe",
    "moe": "moe",
    "mtp": "mtp",
    "head": "head",
    "heads": "head",
}
_SHORT: dict[Unit, str] = {"dense": "d", "moe": "m", "mtp": "mtp", "head": "head"}
_ORDER: tuple[Unit, ...] = ("dense", "moe", "mtp", "head")
_STAGES = re.compile(r"\s*(?:([1-9]\d{0,2})\s*\*)?([^*]+)\Z")
_TERM = re.compile(r"\s*([1-9]\d{0,2})?\s*([a-z]+)\s*\Z")


def parse_layout(text: str) -> Layout:
    """Read a layout; the module docstring gives the grammar.

    Raises:
        SpecError: the text does not follow the grammar.
    """
    layout: list[Stage] = []
    for part in text.split(","):
        match = _STAGES.match(part)
        if not match:
            raise SpecError(f"layout {text!r}: {part.strip()!r} is no stage, write e.g. '14*4m'")
        units: list[Unit] = []
        for term in match[2].split("+"):
            units += _units_of(term, text)
        layout += [tuple(units)] * int(match[1] or 1)
    return tuple(layout)


def _units_of(term: str, text: str) -> list[Unit]:
    match = _TERM.match(term)
    if not match or match[2] not in _UNITS:
        raise SpecError(
            f"layout {text!r}: {term.strip()!r} is no unit, write [count] and one of "
            f"{', '.join(_UNITS)}"
        )
    return [_UNITS[match[2]]] * int(match[1] or 1)


def layout_text(layout: Layout) -> str:
    """Write a layout in its shortest form; `parse_layout` reads it back."""
    parts = []
    for stage, same in groupby(layout):
        repeats = len(list(same))
        terms = "+".join(_term(unit, len(list(run))) for unit, run in groupby(stage))
        parts.append(f"{repeats}*{terms}" if repeats > 1 else terms)
    return ", ".join(parts)


def _term(unit: Unit, count: int) -> str:
    if unit in ("dense", "moe"):
        return f"{count}{_SHORT[unit]}"
    plural = "s" if unit == "head" and count > 1 else ""
    return f"{count if count > 1 else ''}{_SHORT[unit]}{plural}"


def model_units(model: ModelSpec) -> Stage:
    """All units of `model` in order: dense layers, MoE layers, MTP modules, heads."""
    counts = (model.dense_layers, model.moe_layers, model.mtp_layers, model.lm_heads)
    units: list[Unit] = []
    for unit, count in zip(_ORDER, counts, strict=True):
        units += [unit] * count
    return tuple(units)


def default_layout(model: ModelSpec, pp: int) -> Layout:
    """Deal the units of `model` out evenly over `pp` stages in order, larger stages first.

    Raises:
        InfeasibleError: more stages than units.
    """
    units = model_units(model)
    if pp > len(units):
        raise InfeasibleError(
            f"plan.pp: at most one stage per layer, MTP module and head of {model.name} "
            f"({len(units)}), got {pp}"
        )
    share, larger = divmod(len(units), pp)
    starts = [stage * share + min(stage, larger) for stage in range(pp + 1)]
    return tuple(units[a:b] for a, b in pairwise(starts))


def check_layout(layout: Layout, model: ModelSpec, pp: int) -> None:
    """Refuse a layout that does not hold `model` exactly once on `pp` stages.

    Raises:
        InfeasibleError: wrong number of stages, a unit missing or repeated, or out of order.
    """
    if len(layout) != pp:
        raise InfeasibleError(f"plan.layout: must have pp = {pp} stages, got {len(layout)}")
    units = [unit for stage in layout for unit in stage]
    needed = model_units(model)
    for unit in _ORDER:
        got, allowed = units.count(unit), needed.count(unit)
        if got != allowed:
            verb = "misses" if got < allowed else "repeats"
            name = f"{unit} layer" if unit in ("dense", "moe") else unit
            raise InfeasibleError(
                f"plan.layout: {verb} a unit, {model.name} has {allowed} x {name}, got {got}"
            )
    layers = [unit for unit in needed if unit in ("dense", "moe")]
    if units[: len(layers)] != layers:
        raise InfeasibleError(
            f"plan.layout: layers must come in the model's order (dense, moe), then mtp and heads; "
            f"got {layout_text(layout)!r}"
        )


def resolve_layout(text: str | None, model: ModelSpec, pp: int) -> Layout:
    """Return the checked layout that `text` describes, or the default one where it is None.

    Raises:
        SpecError: the text does not follow the grammar.
        InfeasibleError: the layout does not hold the model once on `pp` stages.
    """
    if text is None:
        return default_layout(model, pp)
    layout = parse_layout(text)
    check_layout(layout, model, pp)
    return layout
