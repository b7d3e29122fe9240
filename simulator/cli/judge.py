"""The command calibrate judge: what a day on a borrowed GPU says."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simulator.cli.output import cannot_write, console, echo_json, json_option

if TYPE_CHECKING:
    from rich.table import Table

    from calibration.judge.cost_fits import CostFit
    from calibration.judge.judgement import Judgement

MET = {True: "met", False: "[bold]missed[/bold]", None: "not known"}
FAILURES_SHOWN = 12
RATES_SHOWN = 6
"""Largest shapes of each kernel whose rates a table shows, beside those that a library ran too."""

POINTS_SHOWN = 3
"""Counts of SMs from which on a table shows how bandwidth grows with them."""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--chip", help="Chip preset or .toml file of the device, where its name does not tell."
)
@click.option(
    "--choices",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Table to write the winners into, such as kernels/choices.csv; other rows stay.",
)
@json_option
def judge(folder: Path, chip: str | None, choices: Path | None, as_json: bool) -> None:
    """Judge DIR, a day that python -m calibration.gpu_day brought home. Needs no GPU.

    Rates against peak, a copy and the libraries; targets met or missed; what won the sweep;
    bandwidth against SMs, and kernels beside a copying one; which cost models fit, on shapes held
    out. A dry run is refused: its times mean nothing.
    """
    from dataclasses import asdict

    from calibration.judge.judgement import judge as judged

    found = judged(folder, chip)
    if as_json:
        echo_json(asdict(found))
    else:
        terminal = console()
        for grid in _tables(found):
            terminal.print(grid)
            terminal.print()
    if choices is not None:
        _write(choices, found)


def _write(choices: Path, found: "Judgement") -> None:
    from calibration.judge.winners import write_choices

    try:
        write_choices(choices, found.winners)
    except OSError as error:
        raise cannot_write(choices, error, "--choices") from None
    won = sum(not winner.stays for winner in found.winners)
    click.echo(f"wrote {won} winners to {choices}", err=True)


def _tables(found: "Judgement") -> "Iterator[Table]":
    yield _day(found)
    if found.failures:
        yield _failures(found)
    yield _targets(found)
    yield _rates(found)
    others = (_winners(found), _curves(found), _beside(found), _fits(found))
    yield from (grid for grid in others if grid.row_count)


def _day(found: "Judgement") -> "Table":
    from rich.markup import escape

    from hwmodels.units import format_quantity
    from simulator.tell.terminal import table

    grid = table(f"day on {escape(str(found.device['name']))}", "", "")
    for name, part in found.parts.items():
        why = f": {part['error']}" if part["error"] else ""
        summary = f"{part['state']}, {part['rows']} rows in {part['seconds']:.0f} s{why}"
        grid.add_row(escape(name), escape(summary))
    tops = found.ceilings
    for name, value, unit in (
        ("copy", tops.copy_bytes_per_s, "B/s"),
        ("BF16 tensor cores", tops.bf16_flops_per_s, "FLOP/s"),
        ("BF16 tensor cores, sustained", tops.bf16_sustained_flops_per_s, "FLOP/s"),
        ("FP8 tensor cores", tops.fp8_flops_per_s, "FLOP/s"),
        ("FP8 tensor cores, sustained", tops.fp8_sustained_flops_per_s, "FLOP/s"),
        ("clock, sustained", tops.sustained_clock_hz, "Hz"),
        ("launch", tops.launch_s, "s"),
    ):
        grid.add_row(name, "not measured" if value is None else format_quantity(value, unit))
    for wrong in found.wrong:
        named = f"{wrong.kernel} {_sizes(wrong.config)}".strip()
        summary = f"left out ({wrong.rows} rows), numbers {wrong.verdict}: {wrong.note}"
        grid.add_row(escape(named), escape(summary))
    for other in found.other_devices:
        grid.add_row(escape(other.device), f"left out, {other.rows} rows of another device")
    for note in found.notes:
        grid.add_row("note", escape(note))
    return grid


def _failures(found: "Judgement") -> "Table":
    from rich.markup import escape

    from simulator.tell.terminal import table

    grid = table("rows without a time", "kernel", "provider", "why")
    for failure in found.failures[:FAILURES_SHOWN]:
        name = f"{failure.kernel} {_sizes(failure.shape)} {_sizes(failure.config)}".strip()
        grid.add_row(escape(name), escape(failure.provider), escape(failure.error))
    more = len(found.failures) - FAILURES_SHOWN
    if more > 0:
        grid.add_row(f"and {more} more", "", "")
    return grid


def _targets(found: "Judgement") -> "Table":
    from rich.markup import escape

    from simulator.tell.terminal import table

    grid = table(
        "targets, by the slowest of their shapes", "target", "at least", "reached", "", "shape"
    )
    for verdict in found.targets:
        grid.add_row(
            escape(verdict.target),
            f"{verdict.least:.0f} {verdict.unit}",
            "" if verdict.rate is None else f"{verdict.rate:.0f}",
            MET[verdict.met],
            escape("; ".join(text for text in (_sizes(verdict.shape), verdict.why) if text)),
        )
    return grid


def _rates(found: "Judgement") -> "Table":
    from rich.markup import escape

    from hwmodels.units import format_quantity
    from simulator.tell.terminal import table

    columns = ("kernel", "time", "TFLOPS", "GB/s", "of peak", "of copy", "library", "its time/ours")
    grid = table("rates", *columns)
    shown: Counter[str] = Counter()
    hidden = 0
    for rate in found.rates:
        shown[rate.kernel] += 1
        if shown[rate.kernel] > RATES_SHOWN and not rate.library:
            hidden += 1
            continue
        grid.add_row(
            escape(f"{rate.kernel} {_sizes(rate.shape)}"),
            format_quantity(rate.time_s, "s"),
            _number(rate.flops_per_s, 1e12),
            _number(rate.bytes_per_s, 1e9),
            _share(rate.of_peak),
            _share(rate.of_copy),
            escape(rate.library or ""),
            "" if rate.of_library is None else f"{rate.of_library:.2f}",
        )
    if hidden:
        grid.add_row(f"and {hidden} smaller shapes: --json has them")
    return grid


def _winners(found: "Judgement") -> "Table":
    from rich.markup import escape

    from hwmodels.units import format_quantity
    from simulator.tell.terminal import table

    columns = ("kernel", "class of shapes", "present", "winner", "runner-up", "configuration")
    grid = table("winners of the sweep, where the quantiles agree", *columns)
    for winner in found.winners:
        grid.add_row(
            escape(winner.kernel),
            escape(winner.shape_class),
            *(
                format_quantity(s, "s")
                for s in (winner.present_s, winner.time_s, winner.runner_up_s)
            ),
            "present stays" if winner.stays else escape(_sizes(winner.config)),
        )
    return grid


def _curves(found: "Judgement") -> "Table":
    from rich.markup import escape

    from simulator.tell.terminal import table

    grid = table(
        "bandwidth against SMs", "kernel", "GB/s (of all SMs') by SMs", "SMs that saturate"
    )
    for curve in found.curves:
        if len(curve.points) < POINTS_SHOWN:
            continue
        points = (
            f"{point.sms}: {point.bytes_per_s / 1e9:.0f}"
            + ("" if point.of_all is None else f" ({point.of_all:.0%})")
            for point in curve.points
        )
        enough = "" if curve.saturating_sms is None else str(curve.saturating_sms)
        grid.add_row(escape(f"{curve.kernel} {_sizes(curve.shape)}"), ", ".join(points), enough)
    return grid


def _beside(found: "Judgement") -> "Table":
    from rich.markup import escape

    from simulator.tell.terminal import table

    grid = table("beside a copying kernel", "kernel", "its SMs", "slowdown")
    for slowed in found.beside:
        name = escape(f"{slowed.kernel} {_sizes(slowed.shape)}")
        grid.add_row(name, str(slowed.held_sms), f"{slowed.slowdown:.2f}")
    return grid


def _fits(found: "Judgement") -> "Table":
    from rich.markup import escape

    from simulator.tell.terminal import table

    grid = table(
        f"cost models on {found.chip}: error of prices",
        "kernel", "model", "rows", "shapes", "median", "held out", "P90 held out", "constants",
    )  # fmt: skip
    for fit in found.cost_fits:
        constants = (
            f"{name} {value:.3g}{_doubt(fit, name)}" for name, value in fit.constants.items()
        )
        grid.add_row(
            escape(fit.kernel),
            fit.model,
            str(fit.rows),
            str(fit.shapes),
            _share(fit.error_median),
            _share(fit.held_out_median),
            _share(fit.held_out_p90),
            escape(f"not fitted: {fit.why_not}" if fit.why_not else ", ".join(constants)),
        )
    return grid


def _doubt(fit: "CostFit", name: str) -> str:
    """Return why the value of a constant is none of the rows'."""
    if name in fit.not_identified:
        return " (not identified)"
    return " (end of its range)" if name in fit.at_bound else ""


def _sizes(cell: str) -> str:
    """Return a shape or a configuration, which a row holds as JSON, as `k=7168 m=4096`."""
    sizes = json.loads(cell) if cell else {}
    return " ".join(f"{name}={str(value).replace(' ', '')}" for name, value in sizes.items())


def _number(value: float | None, scale: float) -> str:
    return "" if value is None else f"{value / scale:.0f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
