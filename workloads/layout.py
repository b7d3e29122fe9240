"""Which layers sit on which pipeline stage, as a line of text (`workloads.units` has its grammar).

The input embedding is not written: it sits on the first stage. `mtp` is one MTP module, `head` one
LM head: a model with D modules needs D of the first and D + 1 of the second. An MTP module uses the
embedding again, so a stage away from it keeps a copy, and the gradients of both are reduced at the
end of a step (`workloads.homes`). It is free where one rank holds the first and the last stage
(DualPipe; arXiv 2412.19437 §3.2.3).

A layout must hold every unit of the model once: layers in the model's order, MTP modules and heads
after the last layer. Without a layout, `default_layout` counts each layer, module and head as one
unit and deals them out evenly in order, larger stages first. DeepSeek-V3 has 61 + 1 + 2 = 64
units: on 16 stages four each, which is `3d+1m, 14*4m, 1m+mtp+2heads`. Stages are in the model's
order, also where a rank holds several of them (`workloads.schedules`).
"""

from itertools import pairwise

from hwmodels.errors import InfeasibleError
from workloads.model import ModelSpec
from workloads.units import Layout, Stage, Unit, layout_text, parse_layout

_ORDER: tuple[Unit, ...] = ("dense", "moe", "mtp", "head")


def model_units(model: ModelSpec) -> Stage:
    """All units of `model` in order: layers, MTP modules, heads."""
    modules: list[Unit] = ["mtp"] * model.mtp_layers
    heads: list[Unit] = ["head"] * model.lm_heads
    return (*model.layer_kinds, *modules, *heads)


def default_layout(model: ModelSpec, pp: int, vpp: int = 1) -> Layout:
    """Deal the units of `model` out evenly over `pp vpp` stages in order, larger stages first.

    Raises:
        InfeasibleError: more stages than units.
    """
    units, stages = model_units(model), pp * vpp
    if stages > len(units):
        product = f"{stages} = pp {pp} x vpp {vpp}" if vpp > 1 else f"{pp}"
        raise InfeasibleError(
            f"plan.pp: at most one stage per layer, MTP module and head of {model.name} "
            f"({len(units)}), got {product}"
        )
    share, larger = divmod(len(units), stages)
    starts = [stage * share + min(stage, larger) for stage in range(stages + 1)]
    return tuple(units[a:b] for a, b in pairwise(starts))


def check_layout(layout: Layout, model: ModelSpec, pp: int, vpp: int = 1) -> None:
    """Refuse a layout that does not hold `model` exactly once on `pp vpp` stages.

    Raises:
        InfeasibleError: wrong number of stages, a unit missing or repeated, or out of order.
    """
    if len(layout) != pp * vpp:
        product = f"pp x vpp = {pp * vpp}" if vpp > 1 else f"pp = {pp}"
        raise InfeasibleError(f"plan.layout: must have {product} stages, got {len(layout)}")
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
    if tuple(units[: model.layers]) != model.layer_kinds:
        order = model.layer_order or "dense, moe"
        raise InfeasibleError(
            f"plan.layout: layers must come in the model's order ({order}), then mtp and heads; "
            f"got {layout_text(layout)!r}"
        )


def resolve_layout(text: str | None, model: ModelSpec, pp: int, vpp: int = 1) -> Layout:
    """Return the checked layout that `text` describes, or the default one where it is None.

    Args:
        vpp: stages of each of `pp` ranks.

    Raises:
        SpecError: the text does not follow the grammar.
        InfeasibleError: the layout does not hold the model once on `pp vpp` stages.
    """
    if text is None:
        return default_layout(model, pp, vpp)
    layout = parse_layout(text)
    check_layout(layout, model, pp, vpp)
    return layout
