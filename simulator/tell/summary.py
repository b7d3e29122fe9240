"""Results as text for a terminal: tables by rich, written to whatever console is given."""

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hwmodels.document import Document
from hwmodels.units import format_quantity
from simulator.tell.compare import Change, Comparison, Range, Spread
from simulator.tell.headlines import MEMORY, UNITS, shown
from simulator.tell.intervals import CHANCE, DRAWS_PER_SLOPE, Interval
from simulator.tell.outcome import phase_path
from simulator.tell.result import Result, Uncertainty
from simulator.tell.terminal import table

INPUTS_SHOWN, SHARES_SHOWN = 12, 8
UNIT_SUFFIXES = {"_bytes_per_s": "B/s", "_flops_per_s": "FLOP/s", "_bytes": "B", "_s": "s"}


def show_result(console: Console, result: Result) -> None:
    """Print what a run achieved, where the time and the memory went, and what it rests on."""
    achieved = table(str(result.experiment["name"]), "", "")
    for words, value in result.metrics.rows():
        achieved.add_row(words, value)
    console.print(achieved)
    for remark in result.metrics.remarks(result.experiment):
        console.print(remark, highlight=False)
    if result.uncertainty:
        _show_uncertainty(console, result, result.uncertainty)
    console.print(_phases(result))
    console.print(_memory(result))
    for facts in result.facts:
        facts.show(console)
    _show_provenance(console, result)


def _show_provenance(console: Console, result: Result) -> None:
    """Print what the numbers rest on, and what was played for them."""
    play, origin = result.play, result.provenance
    for basis, share in origin.time_share_by_basis.items():
        console.print(f"{share:.0%} of compute time priced from {basis}", highlight=False)
    console.print(f"communication priced from {origin.communication_basis}", highlight=False)
    if origin.expert_routing:
        console.print(f"routing: {origin.expert_routing}", highlight=False)
    if play.folding_error is not None:
        error = f"{play.folding_error:+.2%}"
        console.print(f"folding: {error} of the step with every rank played", highlight=False)
    assumed = sum(source.assumed for source in origin.sources.values())
    took = f" in {result.timing.play_s:.1f} s" if result.timing else ""
    console.print(
        f"{origin.folding}; {play.tasks:,} tasks{took}; "
        f"{assumed} inputs are assumptions (see result.json)",
        highlight=False,
    )


def _show_uncertainty(console: Console, result: Result, sampled: Uncertainty) -> None:
    """Print the spread of headline numbers, and the inputs that widen that of the first."""
    title = f"how sure it is ({sampled.draws} draws from seed {sampled.seed})"
    grid = table(title, "", "median", "P10-P90")
    for each in (*result.metrics.headline, MEMORY):
        spread = result.intervals[each.name]
        grid.add_row(each.title, shown(spread.median, each.unit), _range(each.unit, spread))
    console.print(grid)
    decisive = result.metrics.headline[0]
    _show_shares(console, decisive.title, result.intervals[decisive.name].variance_shares, sampled)


def _show_shares(
    console: Console, title: str, shares: Mapping[str, float], sampled: Uncertainty
) -> None:
    """Print the inputs with the largest shares of a number's variance, or why there are none."""
    inputs = {sampled_input.path: sampled_input for sampled_input in sampled.inputs}
    if not shares:
        sides = sum(
            (sampled_input.p10 < sampled_input.value) + (sampled_input.value < sampled_input.p90)
            for sampled_input in sampled.inputs
        )
        needed = DRAWS_PER_SLOPE * sides
        reason = (
            f"{title} does not vary with them"
            if sampled.draws >= needed
            else f"it takes {needed} draws to tell which of them make {title} uncertain"
        )
        console.print(f"{len(inputs)} uncertain inputs; {reason}", highlight=False)
        return
    grid = table(f"what makes {title} uncertain", "input", "value", "P10-P90", "of its variance")
    ranked = [(inputs[path], share) for path, share in shares.items() if path in inputs]
    for sampled_input, share in ranked[:SHARES_SHOWN]:
        value, p10, p90 = (
            _input(sampled_input.path, x)
            for x in (sampled_input.value, sampled_input.p10, sampled_input.p90)
        )
        grid.add_row(sampled_input.path, value, f"{p10} to {p90}", f"{share:.0%}")
    hidden = ranked[SHARES_SHOWN:]
    if hidden:
        rest = sum(share for _, share in hidden)
        grid.add_row(f"{len(hidden)} more inputs", "", "", f"{rest:.0%}")
    grid.add_row(CHANCE, "", "", f"{shares[CHANCE]:.0%}")
    console.print(grid)


def _input(path: str, value: float) -> str:
    """Return an input with the unit that its name ends in."""
    unit = next((unit for suffix, unit in UNIT_SUFFIXES.items() if path.endswith(suffix)), None)
    return format_quantity(value, unit) if unit else _text(value)


def _range(unit: str, spread: Interval | Range | None, sign: str = "") -> str:
    """Return P10-P90 with one unit; signed ones with `to`, to tell minus from dash."""
    if spread is None:
        return ""
    scale, suffix = UNITS[unit]
    joint = " to " if sign else "-"
    low, high = (f"{value / scale:{sign}.4g}" for value in (spread.p10, spread.p90))
    return f"{low}{suffix}" if low == high else f"{low}{joint}{high}{suffix}"


def _phases(result: Result) -> Table:
    sampled = ["P10-P90"] if result.uncertainty else []
    grid = table("where the time goes", "phase", "mean rank", *sampled, "share")
    whole_s = sum(result.breakdown_s.values())
    for name, seconds in result.breakdown_s.items():
        if seconds:
            spread = [_range("s", result.intervals[phase_path(name)])] if sampled else []
            share = f"{seconds / whole_s:.1%}"
            grid.add_row(result.phases[name], f"{seconds:.3f} s", *spread, share)
    return grid


def _memory(result: Result) -> Table:
    terms = result.memory_bytes
    capacity = result.experiment["cluster"]["node"]["chip"]["hbm_capacity_bytes"]
    grid = table(MEMORY.title, "term", "size")
    for name, size in terms.items():
        if name != "total" and size:
            grid.add_row(name.replace("_", " "), f"{size / 1e9:.1f} GB")
    grid.add_row("total", f"{terms['total'] / 1e9:.1f} of {capacity / 1e9:.1f} GB", style="bold")
    return grid


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print what changed between two results, and what it did to each phase."""
    inputs = table("inputs that differ", "path", "before", "after")
    for change in comparison.inputs[:INPUTS_SHOWN]:
        inputs.add_row(change.name, _text(change.before), _text(change.after))
    hidden = len(comparison.inputs) - INPUTS_SHOWN
    if hidden > 0:
        inputs.add_row(f"... and {hidden} more (--json lists all)", "", "")
    if comparison.inputs:
        console.print(inputs)
    else:
        console.print("inputs do not differ")
    console.print(_changes("outcome", comparison.headline))
    console.print(_changes("where the difference comes from (mean rank)", comparison.phases))
    for facts in comparison.facts:
        console.print(_changes(facts.title, facts.changes, facts.none_because))
    if comparison.spreads:
        _show_spreads(console, comparison)


def _show_spreads(console: Console, comparison: Comparison) -> None:
    """Print P10-P90 of both results and, of paired draws, of their difference."""
    columns = ("before", "after", "difference")
    grid = table(f"P10-P90 ({comparison.draws})", "", *columns)
    for spread in comparison.spreads:
        if _is_flat(spread):
            continue
        sides = (_range(spread.unit, side) for side in (spread.before, spread.after))
        grid.add_row(spread.title, *sides, _range(spread.unit, spread.difference, "+"))
    console.print(grid)
    if comparison.better_share is not None:
        title, share = comparison.headline[0].title, comparison.better_share
        console.print(f"{title} is better after in {share:.0%} of the draws", highlight=False)


def _is_flat(spread: Spread) -> bool:
    """Return whether a number is the same in all draws of both results, but for rounding."""
    ends = [end for side in (spread.before, spread.after) if side for end in (side.p10, side.p90)]
    return max(ends) - min(ends) <= 1e-9 * max(map(abs, ends))


def _changes(title: str, changes: Iterable[Change], why_none: str = "") -> Table:
    grid = table(title, "", "before", "after", "difference", "")
    for change in changes:
        if not change.difference:
            continue
        relative = f"{change.relative:+.1%}" if change.relative is not None else ""
        grid.add_row(
            change.title,
            shown(change.before, change.unit, ".5g"),
            shown(change.after, change.unit, ".5g"),
            shown(change.difference, change.unit, "+.4g"),
            relative,
        )
    if not grid.rows:
        grid.add_row(why_none or "no difference")
    return grid


def _text(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def show_preset(console: Console, values: Mapping[str, object], document: Document) -> None:
    """Print every leaf of a preset, P10 to P90 where it has them, and where it came from."""
    grid = table("", "path", "value", "source")
    grid.columns[2].justify = "left"
    leaves = list(_leaves(values))
    grid.columns[0].min_width = max(len(path) for path, _ in leaves)  # keys are there to be copied
    for path, value in leaves:
        source = document.source_of(path)
        text = "" if source is None else f"{'assumed: ' if source.assumed else ''}{source.text}"
        told = _text(value)
        if source is not None and source.p10 is not None:
            told += f" ({_text(source.p10)} to {_text(source.p90)})"
        grid.add_row(path, escape(told), escape(text))
    console.print(grid)


def _leaves(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value
