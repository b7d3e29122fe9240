"""Results as text for a terminal: tables by rich, written to whatever console is given."""

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hwmodels.document import Document
from hwmodels.errors import InputError
from hwmodels.units import format_quantity
from simulator.tell.compare import Change, Comparison, Range, Spread
from simulator.tell.facts.nics import NicFacts
from simulator.tell.facts.ranks import RankFacts
from simulator.tell.intervals import CHANCE, DRAWS_PER_SLOPE, Interval
from simulator.tell.result import Result, Uncertainty
from workloads.phases import PHASES

GPUS_SHOWN = 3
INPUTS_SHOWN, FAMILIES_SHOWN, SHARES_SHOWN = 12, 8, 8
HEADLINE_UNITS = {
    "step_time_s": (1.0, " s"),
    "tokens_per_day": (1e9, " B"),
    "mfu_causal": (0.01, " %"),
    "memory_bytes": (1e9, " GB"),
    "memory_bytes.total": (1e9, " GB"),
}
UNIT_SUFFIXES = {"_bytes_per_s": "B/s", "_flops_per_s": "FLOP/s", "_bytes": "B", "_s": "s"}
SPREADS_SHOWN = {
    "step_time_s": "step time",
    "tokens_per_day": "tokens per day",
    "mfu_causal": "MFU against BF16 peak",
    "memory_bytes.total": "memory, fullest rank",
}


def table(title: str, *columns: str) -> Table:
    """Return an empty table: first column left, the others right."""
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right")
    return grid


def show_result(console: Console, result: Result) -> None:
    """Print what a run achieved, where the time and the memory went, and what it rests on."""
    metrics, play = result.metrics, result.play
    facts = table(str(result.experiment["name"]), "", "")
    facts.add_row("step time", f"{metrics.step_time_s:.3f} s")
    facts.add_row("tokens per day", f"{metrics.tokens_per_day / 1e9:.1f} B")
    facts.add_row("tokens/s per GPU", f"{metrics.tokens_per_s_per_gpu:.0f}")
    facts.add_row(
        "GPU-hours per trillion tokens", f"{1e12 / metrics.tokens_per_s_per_gpu / 3600:,.0f}"
    )
    facts.add_row(
        "TFLOPS per GPU, causal (full square)",
        f"{metrics.tflops_causal:.0f} ({metrics.tflops_noncausal:.0f})",
    )
    facts.add_row(
        "MFU against BF16 peak", f"{metrics.mfu_causal:.1%} ({metrics.mfu_noncausal:.1%})"
    )
    console.print(facts)
    if metrics.mfu_noncausal > 1:
        console.print(_why_above_peak(result), highlight=False)
    if result.uncertainty:
        _show_uncertainty(console, result, result.uncertainty)
    console.print(_phases(result))
    if result.ranks:
        _show_ranks(console, result, result.ranks)
    console.print(_memory(result))
    largest = list(metrics.compute_share.items())[:FAMILIES_SHOWN]
    shown = ", ".join(f"{family.replace('_', ' ')} {share:.0%}" for family, share in largest)
    hidden = len(metrics.compute_share) - len(largest)
    console.print(f"compute time: {shown}, {hidden} more families", highlight=False)
    for basis, share in result.provenance.time_share_by_basis.items():
        console.print(f"{share:.0%} of compute time priced from {basis}", highlight=False)
    console.print(
        f"communication priced from {result.provenance.communication_basis}", highlight=False
    )
    if result.provenance.expert_routing:
        console.print(f"routing: {result.provenance.expert_routing}", highlight=False)
    if result.nics:
        console.print(_meeting(result.nics, metrics.step_time_s), highlight=False)
    if play.folding_error is not None:
        error = f"{play.folding_error:+.2%}"
        console.print(f"folding: {error} of the step with every rank played", highlight=False)
    assumed = sum(source.assumed for source in result.provenance.sources.values())
    console.print(
        f"{result.provenance.folding}; {play.tasks:,} tasks in {play.wall_s:.1f} s; "
        f"{assumed} inputs are assumptions (see result.json)",
        highlight=False,
    )


def _why_above_peak(result: Result) -> str:
    """Return why a step does more FLOPs than the peak its MFU is counted against."""
    tensor = result.experiment["cluster"]["node"]["chip"]["tensor"]
    reasons = []
    if "fp8" in tensor:
        reasons.append(f"GEMMs in FP8 run at up to {tensor['fp8'] / tensor['bf16']:.3g} times it")
    if result.metrics.mfu_causal <= 1:
        reasons.append("the full square of attention counts what a causal mask leaves out")
    return f"MFU above 100 %: it is counted against the BF16 peak, and {', and '.join(reasons)}"


def _meeting(nics: NicFacts, step_s: float) -> str:
    """Return how far shared NICs change the step, and what they delay."""
    delays = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in nics.delay_s.items())
    return (
        f"meeting on NICs: step {step_s / nics.separate_step_s - 1:+.1%} "
        f"({nics.separate_step_s:.2f} -> {step_s:.2f} s); delays of a mean rank: {delays}"
    )


def _show_ranks(console: Console, result: Result, ranks: RankFacts) -> None:
    """Print how ranks differ, who was waited for, and what the step could not do without."""
    grid = table(f"{len(ranks.compute_s):,} ranks", "", "least", "mean", "most")
    for shown, seconds in (
        ("compute", ranks.compute_s),
        ("communication", ranks.communication_s),
        ("waiting in exchanges", ranks.wait_s),
        ("bubble", ranks.bubble_s),
        ("waiting caused to others", ranks.caused_s),
    ):
        mean = sum(seconds) / len(seconds)
        grid.add_row(shown, *(f"{value:.3f} s" for value in (min(seconds), mean, max(seconds))))
    console.print(grid)
    plan, step_s = result.experiment["plan"], result.metrics.step_time_s
    pipelines = len(ranks.compute_s) // plan["pp"]
    for straggler in ranks.waited_for[:GPUS_SHOWN]:
        rank, pipeline = divmod(straggler.gpu, pipelines)
        console.print(
            f"GPU {straggler.gpu} (pipeline rank {rank} of pipeline {pipeline}) cost the others of "
            f"its group {straggler.caused_s:.1f} s, all together",
            highlight=False,
        )
    console.print(
        f"were ranks alike, the step would take {ranks.folded_step_s:.3f} s "
        f"({ranks.folded_step_s / step_s - 1:+.1%})",
        highlight=False,
    )
    path = list(ranks.critical_path_s.items())
    shown_path = ", ".join(
        f"{name.replace('_', ' ')} {seconds / step_s:.0%}"
        for name, seconds in path[:FAMILIES_SHOWN]
    )
    more = len(path) - FAMILIES_SHOWN
    console.print(f"critical path: {shown_path}, {max(more, 0)} more", highlight=False)


def _show_uncertainty(console: Console, result: Result, sampled: Uncertainty) -> None:
    """Print the spread of the headline, and the inputs that widen that of the step."""
    title = f"how sure it is ({sampled.draws} draws from seed {sampled.seed})"
    grid = table(title, "", "median", "P10-P90")
    for name, shown in SPREADS_SHOWN.items():
        spread = result.intervals[name]
        grid.add_row(shown, _scaled(name, spread.median), _range(name, spread))
    console.print(grid)
    _show_shares(console, result.intervals["step_time_s"].variance_shares, sampled)


def _show_shares(console: Console, shares: Mapping[str, float], sampled: Uncertainty) -> None:
    """Print the inputs with the largest shares of the step's variance, or why there are none."""
    inputs = {sampled_input.path: sampled_input for sampled_input in sampled.inputs}
    if not shares:
        sides = sum(
            (sampled_input.p10 < sampled_input.value) + (sampled_input.value < sampled_input.p90)
            for sampled_input in sampled.inputs
        )
        needed = DRAWS_PER_SLOPE * sides
        reason = (
            "the step does not vary with them"
            if sampled.draws >= needed
            else f"it takes {needed} draws to tell which of them make the step uncertain"
        )
        console.print(f"{len(inputs)} uncertain inputs; {reason}", highlight=False)
        return
    grid = table("what makes the step uncertain", "input", "value", "P10-P90", "of its variance")
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


def _scaled(name: str, value: float) -> str:
    scale, unit = HEADLINE_UNITS.get(name, (1.0, " s"))
    return f"{value / scale:.4g}{unit}"


def _range(name: str, spread: Interval | Range | None, sign: str = "") -> str:
    """Return P10-P90 with one unit; signed ones with `to`, to tell minus from dash."""
    if spread is None:
        return ""
    scale, unit = HEADLINE_UNITS.get(name, (1.0, " s"))
    joint = " to " if sign else "-"
    low, high = (f"{value / scale:{sign}.4g}" for value in (spread.p10, spread.p90))
    return f"{low}{unit}" if low == high else f"{low}{joint}{high}{unit}"


def _phases(result: Result) -> Table:
    metrics = result.metrics
    sampled = ["P10-P90"] if result.uncertainty else []
    grid = table("where the step goes", "phase", "mean rank", *sampled, "share", "pipeline rank 0")
    for name, seconds in metrics.breakdown_s.items():
        if not any(metrics.breakdown_by_rank_s[name]):
            continue
        rank0 = metrics.breakdown_by_rank_s[name][0]
        share = seconds / metrics.step_time_s
        path = f"breakdown_s.{name}"
        spread = [_range(path, result.intervals.get(path))] if sampled else []
        grid.add_row(
            PHASES.get(name, name),
            f"{seconds:.3f} s",
            *spread,
            f"{share:.1%}",
            f"{rank0:.3f} s",
        )
    return grid


def _memory(result: Result) -> Table:
    terms = result.metrics.memory_bytes
    capacity = result.experiment["cluster"]["node"]["chip"]["hbm_capacity_bytes"]
    totals = result.metrics.memory_by_rank_bytes
    fullest = totals.index(max(totals))
    grid = table(f"memory, fullest rank ({fullest})", "term", "size")
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
    console.print(
        _changes("where the difference comes from (mean rank, seconds)", comparison.phases)
    )
    title = "chunks: kind, forward stage|backward stage (seconds)"
    console.print(_changes(title, comparison.chunks, comparison.chunks_not_compared))
    if comparison.spreads:
        _show_spreads(console, comparison)


def _show_spreads(console: Console, comparison: Comparison) -> None:
    """Print P10-P90 of both results and, of paired draws, of their difference."""
    columns = ("before", "after", "difference")
    grid = table(f"P10-P90 ({comparison.draws})", "", *columns)
    for spread in comparison.spreads:
        top, _, phase = spread.name.partition(".")
        shown = PHASES.get(phase) if top == "breakdown_s" else SPREADS_SHOWN.get(spread.name)
        if shown is None or _is_flat(spread):
            continue
        sides = (_range(spread.name, side) for side in (spread.before, spread.after))
        grid.add_row(shown, *sides, _range(spread.name, spread.difference, "+"))
    console.print(grid)
    if comparison.faster_share is not None:
        console.print(
            f"the later step is shorter in {comparison.faster_share:.0%} of the draws",
            highlight=False,
        )


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
        scale, unit = HEADLINE_UNITS.get(change.name, (1.0, ""))
        grid.add_row(
            PHASES.get(change.name, change.name),
            f"{change.before / scale:.5g}{unit}",
            f"{change.after / scale:.5g}{unit}",
            f"{change.difference / scale:+.4g}{unit}",
            relative,
        )
    if not grid.rows:
        grid.add_row(why_none or "no difference")
    return grid


def _text(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def show_schedules(console: Console, outcomes: Mapping[str, Result | InputError]) -> None:
    """Print one line a schedule: step, bubble, memory, or why it cannot run."""
    grid = table("pipeline schedules", "schedule", "step", "bubble (mean rank)", "MFU", "memory")
    for name, outcome in outcomes.items():
        if isinstance(outcome, InputError):
            continue
        metrics = outcome.metrics
        grid.add_row(
            name,
            f"{metrics.step_time_s:.3f} s",
            f"{metrics.breakdown_s['bubble']:.3f} s",
            f"{metrics.mfu_causal:.1%}",
            f"{metrics.memory_bytes['total'] / 1e9:.1f} GB",
        )
    console.print(grid)
    for name, outcome in outcomes.items():
        if isinstance(outcome, InputError):
            console.print(f"{name}: {outcome}", highlight=False, markup=False)


def show_preset(console: Console, values: Mapping[str, object], document: Document) -> None:
    """Print every leaf of a preset, P10 to P90 where it has them, and where it came from."""
    grid = table("", "path", "value", "source")
    grid.columns[2].justify = "left"
    leaves = list(_leaves(values))
    grid.columns[0].min_width = max(len(path) for path, _ in leaves)  # keys are there to be copied
    for path, value in leaves:
        source = document.source_of(path)
        text = "" if source is None else f"{'assumed: ' if source.assumed else ''}{source.text}"
        shown = _text(value)
        if source is not None and source.p10 is not None:
            shown += f" ({_text(source.p10)} to {_text(source.p90)})"
        grid.add_row(path, escape(shown), escape(text))
    console.print(grid)


def _leaves(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value
