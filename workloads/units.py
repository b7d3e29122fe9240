"""Layers and what comes with them, as lines of text.

    layout = stages    joined by ","      "3d+1m, 14*4m, 1m+mtp+2heads"
    stages = [N "*"] stage                14*4m is fourteen stages of four MoE layers
    stage  = terms     joined by "+"      3d+1m is three dense layers, then one MoE layer
    term   = [N] unit                     d or dense, m or moe, mtp, head or heads; N from 1 to 999

Blanks do not matter. A plan's layout says which units sit on which stage (`workloads.layout`); a
model's order of layers is written alike, stages running on: `24*d+m` is 24 pairs.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby
from typing import Literal

from hwmodels.errors import SpecError

LayerKind = Literal["dense", "moe"]
Unit = Literal["dense", "moe", "mtp", "head"]
Stage = tuple[Unit, ...]
Layout = tuple[Stage, ...]

_LAYERS: dict[str, LayerKind] = {"d": "dense", "dense": "dense", "m": "moe", "moe": "moe"}
_UNITS: dict[str, Unit] = {**_LAYERS, "mtp": "mtp", "head": "head", "heads": "head"}
_SHORT: dict[Unit, str] = {"dense": "d", "moe": "m", "mtp": "mtp", "head": "head"}
_STAGES = re.compile(r"\s*(?:([1-9]\d{0,2})\s*\*)?([^*]+)\Z")
_TERM = re.compile(r"\s*([1-9]\d{0,2})?\s*([a-z]+)\s*\Z")

UNITS_MAX = 4096
"""More than the layers, modules and heads that any model may have."""


def parse_layout(text: str, what: str = "layout") -> Layout:
    """Read a layout; the module docstring gives the grammar.

    Args:
        what: the text is, for messages.

    Raises:
        SpecError: the text does not follow the grammar.
    """
    return _parse(text, what, _UNITS)


@lru_cache(maxsize=256)
def parse_layers(text: str) -> tuple[LayerKind, ...]:
    """Read the order of a model's layers, written as a layout.

    Raises:
        SpecError: the text does not follow the grammar, or names what is no layer.
    """
    stages = _parse(text, "layer_order", _LAYERS)
    return tuple(_LAYERS[unit] for stage in stages for unit in stage)


def _parse(text: str, what: str, named: Mapping[str, Unit]) -> Layout:
    layout: list[Stage] = []
    count = 0
    for part in text.split(","):
        match = _STAGES.match(part)
        if not match:
            raise SpecError(f"{what} {text!r}: {part.strip()!r} is no stage, write e.g. '14*4m'")
        units: list[Unit] = []
        for term in match[2].split("+"):
            units += _units_of(term, f"{what} {text!r}", named)
        count += len(units) * int(match[1] or 1)
        if count > UNITS_MAX:
            raise SpecError(f"{what}: must have at most {UNITS_MAX:,} units, got more")
        layout += [tuple(units)] * int(match[1] or 1)
    return tuple(layout)


def _units_of(term: str, where: str, named: Mapping[str, Unit]) -> list[Unit]:
    match = _TERM.match(term)
    if not match or match[2] not in named:
        raise SpecError(
            f"{where}: {term.strip()!r} is no unit, write [count] and one of {', '.join(named)}"
        )
    return [named[match[2]]] * int(match[1] or 1)


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
