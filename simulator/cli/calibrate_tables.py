"""The commands calibrate fit and calibrate score: profiles from tables of timed kernels."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simulator.cli.output import cannot_write, console, echo_json, json_option, write_text

if TYPE_CHECKING:
    from rich.table import Table

    from calibration.fit.errors import Errors
    from calibration.fit.family import FamilyFit
    from calibration.judge.table_score import Score
    from calibration.rows import BlockRows, Setting, TableRows, Unpriced

tables_argument = click.argument(
    "tables", metavar="TABLE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
ERRORS = ("median", "P90", "bias")

chip_option = click.option("--chip", help="Chip whose rows count, where tables have several.")
library_option = click.option(
    "--library", help="Library whose rows count, where tables have several."
)


@click.command()
@tables_argument
@chip_option
@library_option
@click.option("--version", help="Version of the library; without it, that of most rows.")
@click.option(
    "--parent",
    default="h800-deepseek",
    show_default=True,
    help="Profile (preset or .toml file) that starts the fit of families with few rows and "
    "supplies those that the tables do not time.",
)
@click.option("--rows", "carry", is_flag=True, help="Put the rows beside the profile, as CSV.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Profile to write (.toml); stdout without it.",
)
def fit(
    tables: tuple[Path, ...],
    chip: str | None,
    library: str | None,
    version: str | None,
    parent: str,
    carry: bool,
    out: Path | None,
) -> None:
    """Fit a kernel profile to TABLEs of timed kernels (parquet) of one chip and library.

    Prints each family's errors on sites left out, and which constants the rows do not tell.
    """
    from calibration.fit.table_profile import fit_table_profile
    from calibration.read.select import of_one_setting, read_tables
    from hwmodels.chip import CHIPS
    from hwmodels.profile import PROFILES

    if carry and out is None:
        raise click.UsageError("--rows: needs --out, a file to put the rows beside")
    read = read_tables(tables)
    rows = of_one_setting(read.priced, chip, library, version)
    tell_unpriced(read, rows[0].setting)
    found = fit_table_profile(rows, CHIPS.load(rows[0].setting.chip), PROFILES.load(parent))
    console(stderr=out is None).print(_fit_table(found.fits))
    write_text(found.document.text(), out)
    if carry and out is not None:
        _write_rows(found.fits, out.with_suffix(".csv"))


@click.command()
@click.argument("tables", metavar="TABLE...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="DeepSeek's DualPipe training trace, instead of tables: judges the profile of its H800.",
)
@chip_option
@library_option
@click.option(
    "--profile",
    "profile_name",
    help="Profile (preset or .toml file) to judge; without it, the one shipped for the chip and "
    "library of the rows.",
)
@json_option
def score(
    tables: tuple[Path, ...],
    trace: Path | None,
    chip: str | None,
    library: str | None,
    profile_name: str | None,
    as_json: bool,
) -> None:
    """Judge how a profile prices the rows of TABLEs (parquet), by family and range of size.

    Errors are median, 90th percentile and signed median of price / measured - 1: by constants
    alone, with the rows that the profile carries, and by the datasheet's roofline.
    """
    if (trace is None) == (not tables):
        raise click.UsageError("score: takes tables, or a trace with --trace")
    if trace is not None:
        click.echo("\n".join(_trace_lines(trace)))
        return
    from dataclasses import asdict

    from calibration.judge.table_score import judge_tables
    from calibration.read.select import read_tables

    found = judge_tables(read_tables(tables), chip, library, profile_name)
    if as_json:
        echo_json({"scores": [asdict(each) for each in found.scores], "skipped": found.skipped})
        return
    terminal = console()
    for grid in _score_tables(found.scores):
        terminal.print(grid)
    for line in found.skipped:
        click.echo(line, err=True)


def tell_unpriced(read: "TableRows", setting: "Setting") -> None:
    """Say on stderr which rows of a chip and library have no price of their own."""
    left_out: list[Unpriced | BlockRows] = [*read.unpriced, *read.blocks]
    for each in left_out:
        if each.setting.counts(setting.chip, setting.library):
            click.echo(str(each), err=True)


def _trace_lines(trace: Path) -> list[str]:
    """Return the errors of the fit to a trace, by family and on layers and kernels left out."""
    from calibration.fit.kernels import fit_rows
    from calibration.judge.report import family_errors, report_lines
    from calibration.judge.score import score_trace
    from calibration.read.trace_rows import read_trace_data
    from hwmodels.chip import CHIPS

    chip, data = CHIPS.load("h800"), read_trace_data(trace)
    return report_lines(family_errors(data, fit_rows(data, chip)), score_trace(data, chip))


def _write_rows(fits: "Iterable[FamilyFit]", path: Path) -> None:
    from hwmodels.measured_rows import MeasuredFamily, write_rows

    families = ((fit.rows.family, MeasuredFamily(fit.rows.time_s, fit.rows.shape)) for fit in fits)
    try:
        write_rows(path, families)
    except OSError as error:
        raise cannot_write(path, error) from None


def _fit_table(fits: "Iterable[FamilyFit]") -> "Table":
    from rich.markup import escape

    from simulator.tell.terminal import table

    grid = table(
        "fit, on sites left out", "family", "rows", *ERRORS, "pulled to", "not told by rows"
    )
    for each in fits:
        untold = dict.fromkeys((*each.at_bound, *each.not_identified))
        grid.add_row(
            escape(each.rows.family),
            str(len(each.rows)),
            *_percent(each.errors),
            *_percent(each.errors_with_rows),
            escape(each.parent or ""),
            ", ".join(untold),
        )
    return grid


def _score_tables(scores: "Iterable[Score]") -> "Iterator[Table]":
    """Yield a table for each chip and library."""
    from rich.markup import escape

    from simulator.tell.terminal import table

    for setting, of_setting in groupby(scores, key=lambda score: score.setting):
        grid = table(
            f"errors of prices, {escape(str(setting))}", "family", "sizes", "rows", *ERRORS,
            *(f"with rows: {name}" for name in ERRORS), *(f"roofline: {e}" for e in ERRORS),
        )  # fmt: skip
        for each in of_setting:
            grid.add_row(
                escape(each.family),
                _sizes(*each.sizes),
                str(each.constants.rows),
                *_percent(each.constants),
                *(_percent(each.with_rows) if each.with_rows else ("", "", "")),
                *_percent(each.roofline),
            )
        yield grid


def _sizes(low: float, high: float | None) -> str:
    if high is None:
        return f"above {low:.0f}" if low else "all"
    return f"{low + 1:.0f} to {high:.0f}"


def _percent(errors: "Errors") -> tuple[str, str, str]:
    return f"{errors.median:.1%}", f"{errors.p90:.1%}", f"{errors.bias:+.1%}"
