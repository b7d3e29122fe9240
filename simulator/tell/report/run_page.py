"""A run as one page: what it achieved, where time and memory went, what it rests on."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simulator.tell.exhibits import Cell, Column, Exhibit, Stack, Table, words
from simulator.tell.facts import Facts
from simulator.tell.headlines import MEMORY, Headline, shown
from simulator.tell.intervals import CHANCE, Interval
from simulator.tell.outcome import phase_path
from simulator.tell.report.page import render
from simulator.tell.report.plots import histogram, stacked_bars
from simulator.tell.report.sources import source_table
from simulator.tell.report.tables import shown_table
from simulator.tell.result import Result, Uncertainty

INPUTS_SHOWN = 30
"""Uncertain inputs with the largest shares that are listed; the others are summed up."""

NARROW = 4
"""Columns of a table that leaves room for another beside it."""


def run_report(result: Result) -> str:
    """Return the page of a run, all it needs inside."""
    origin = result.provenance
    facts = [_section(facts) for facts in result.facts]
    return render(
        "run.html",
        title=str(result.experiment["name"]),
        result=result,
        machine=_machine(result),
        cards=list(_cards(result)),
        remarks=list(result.metrics.remarks(result.experiment)),
        phases=shown_table(_phases(result)),
        memory=shown_table(_memory(result)),
        sampled=_sampled(result, result.uncertainty) if result.uncertainty else None,
        wide=[each for each in facts if each.is_wide],
        narrow=[each for each in facts if not each.is_wide],
        bases=[(basis, f"{share:.0%}") for basis, share in origin.time_share_by_basis.items()],
        sources=shown_table(source_table(origin.sources, result.experiment)),
        assumed=sum(source.assumed for source in origin.sources.values()),
        experiment=json.dumps(result.experiment, indent=1),
    )


def _machine(result: Result) -> str:
    """Return in a line what ran where."""
    experiment, gpus = result.experiment, f"{result.play.ranks:,} GPUs"
    plan = experiment["plan"]
    split = ", ".join(
        f"{name.upper()} {plan[name]}" for name in ("pp", "vpp", "ep", "tp") if plan.get(name)
    )
    return f"{experiment['model']['name']} on {gpus} of {experiment['cluster']['name']}; {split}"


def _cards(result: Result) -> Iterator[dict[str, str]]:
    """Yield the headline numbers, the spread of each below it."""
    for each in (*result.metrics.headline, MEMORY):
        spread = result.intervals.get(each.name)
        value = shown(result.numbers[each.name], each.unit)
        yield {"title": each.title, "value": value, "under": _range(each, spread)}


def _range(headline: Headline, spread: Interval | None) -> str:
    if spread is None:
        return ""
    low, median, high = (
        shown(value, headline.unit) for value in (spread.p10, spread.median, spread.p90)
    )
    return "" if low == high else f"draws: median {median}, P10 to P90 {low} to {high}"


def _phases(result: Result) -> Table:
    whole_s = sum(result.breakdown_s.values())
    rows = tuple(
        (result.phases[name], seconds, *_ends(result, phase_path(name)), seconds / whole_s)
        for name, seconds in result.breakdown_s.items()
        if seconds
    )
    spread = (Column("P10", "s"), Column("P90", "s")) if result.uncertainty else ()
    share = Column("share", "share", bars=True)
    columns = (Column("phase"), Column("mean rank", "s"), *spread, share)
    return Table("", columns, rows)


def _ends(result: Result, name: str) -> tuple[Cell, ...]:
    """Return P10 and P90 of a number; nothing where nothing was sampled."""
    if not result.uncertainty:
        return ()
    spread = result.intervals[name]
    return spread.p10, spread.p90


def _memory(result: Result) -> Table:
    terms = result.memory_bytes
    capacity = result.experiment["cluster"]["node"]["chip"]["hbm_capacity_bytes"]
    held = {name: size for name, size in terms.items() if name != "total" and size}
    rows = [(name.replace("_", " "), size, size / capacity) for name, size in held.items()]
    rows.append(("total", terms["total"], terms["total"] / capacity))
    columns = (Column("term"), Column("size", "bytes"), Column("of capacity", "share", bars=True))
    note = f"A GPU holds {shown(capacity, 'bytes')}."
    return Table("", columns, tuple(rows), note, strong=True)


def _sampled(result: Result, sampled: Uncertainty) -> dict[str, Any]:
    """Return what the page shows of the draws: spread of the decisive number, and what makes it."""
    decisive = result.metrics.headline[0]
    return {
        "draws": sampled.draws,
        "seed": sampled.seed,
        "decisive": decisive.title,
        "histogram": histogram(decisive.title, decisive.unit, result.samples[decisive.name]),
        "inputs": shown_table(_inputs(result, decisive, sampled)),
    }


def _inputs(result: Result, decisive: Headline, sampled: Uncertainty) -> Table:
    """Return uncertain inputs with their ranges, those that matter most first."""
    shares = result.intervals[decisive.name].variance_shares
    inputs = sorted(sampled.inputs, key=lambda each: -shares.get(each.path, 0.0))
    kept = inputs[:INPUTS_SHOWN] if shares else inputs
    rows: list[tuple[Cell, ...]] = [
        (
            each.path,
            *(f"{value:.4g}" for value in (each.value, each.p10, each.p90)),
            *([shares.get(each.path, 0.0)] if shares else []),
        )
        for each in kept
    ]
    rest = sum(shares.get(each.path, 0.0) for each in inputs[len(kept) :])
    if len(kept) < len(inputs):
        rows.append((f"{len(inputs) - len(kept)} more inputs", "", "", "", rest))
    if shares:
        rows.append((CHANCE, "", "", "", shares[CHANCE]))
    texts = ("input", "value", "P10", "P90")
    share = Column(f"of the variance of {decisive.title}", "share", bars=True) if shares else None
    note = "" if shares else f"Too few draws to tell what makes {decisive.title} uncertain."
    return Table("", (*map(Column, texts), *([share] if share else [])), tuple(rows), note)


@dataclass(frozen=True, slots=True)
class Section:
    """What a page shows of one kind of facts.

    Attributes:
        is_wide: it takes the width of the page: it has a figure, or a table of many columns.
    """

    kind: str
    title: str
    exhibits: list[dict[str, Any]]
    is_wide: bool


def _section(facts: Facts) -> Section:
    exhibits = list(facts.exhibits())
    is_wide = any(isinstance(each, Stack) or len(each.columns) > NARROW for each in exhibits)
    title = words(facts.kind).capitalize()
    return Section(facts.kind, title, [*map(_exhibit, exhibits)], is_wide)


def _exhibit(exhibit: Exhibit) -> dict[str, Any]:
    """Return what the page shows of an exhibit: a table, or a figure."""
    if isinstance(exhibit, Stack):
        return {"title": exhibit.title, "figure": stacked_bars(exhibit)}
    return {"title": exhibit.title, "table": shown_table(exhibit)}
