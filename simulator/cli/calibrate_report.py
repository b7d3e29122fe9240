"""The command calibrate report: a calibration as a page to look at."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simulator.cli.calibrate_tables import (
    chip_option,
    library_option,
    tables_argument,
    tell_unpriced,
)
from simulator.cli.output import cannot_write

if TYPE_CHECKING:
    from calibration.rows import KernelRows
    from hwmodels.document import Document
    from hwmodels.profile import KernelProfile
    from simulator.tell.calibration_family import Constant, FamilyReport


@click.command()
@tables_argument
@chip_option
@library_option
@click.option(
    "--profile",
    "profile_name",
    help="Profile (preset or .toml file); without it, the one shipped for the chip and library.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for report.html and its pictures.",
)
def report(
    tables: tuple[Path, ...],
    chip: str | None,
    library: str | None,
    profile_name: str | None,
    out: Path,
) -> None:
    """Draw how a profile prices the rows of TABLEs (parquet).

    For each family: measured against priced, errors, what is left over by size, the datasheet's
    roofline, and the constants with how they are known.
    """
    from calibration.judge.table_score import profile_for
    from calibration.read.select import of_one_setting, read_tables
    from hwmodels.profile import PROFILES
    from simulator.tell.calibration_report import write_report

    read = read_tables(tables)
    rows = of_one_setting(read.priced, chip, library, None)
    tell_unpriced(read, rows[0].setting)
    name = profile_name or profile_for(rows[0].setting).name
    profile, document = PROFILES.load(name), PROFILES.document(name)
    known = [each for each in rows if profile.knows(each.family)]
    for each in rows:
        if each not in known:
            click.echo(f"{each.family}: profile {profile.name} has none", err=True)
    families = [_family(each, profile, document) for each in known]
    try:
        files = write_report(families, f"{rows[0].setting}, by profile {profile.name}", out)
    except OSError as error:
        raise cannot_write(out, error) from None
    click.echo(f"wrote {files[0]} and {len(files) - 1} pictures", err=True)


def _family(rows: "KernelRows", profile: "KernelProfile", document: "Document") -> "FamilyReport":
    from calibration.judge.table_score import priced, scores
    from hwmodels.chip import CHIPS
    from hwmodels.costs.kernel import kernel_work
    from simulator.tell.calibration_family import FamilyReport

    chip, prices = CHIPS.load(rows.setting.chip), priced(rows, profile)
    work, found = (
        kernel_work(profile.parameters(rows.family), rows.shape),
        next(scores(rows, profile)),
    )
    errors = {
        "constants": found.constants,
        "with rows": found.with_rows,
        "roofline": found.roofline,
    }
    return FamilyReport(
        title=f"{rows.setting}: {rows.family}",
        source=rows.source,
        size=rows.size,
        measured_s=rows.time_s,
        priced_s=prices.constants_s if prices.with_rows_s is None else prices.with_rows_s,
        flops=work.flops,
        moved_bytes=work.moved_bytes,
        peak_flops_per_s=chip.tensor_flops_per_s(work.tensor_family),
        bytes_per_s=chip.hbm_bytes_per_s,
        constants=tuple(_constants(rows, profile, document)),
        errors=tuple(
            (name, each.median, each.p90, each.bias)
            for name, each in errors.items()
            if each is not None
        ),
    )


def _constants(
    rows: "KernelRows", profile: "KernelProfile", document: "Document"
) -> "Iterator[Constant]":
    from calibration.fit.members import AT_BOUND, UNTOLD
    from simulator.tell.calibration_family import Constant

    for name, value in profile.parameters(rows.family).model_dump(exclude_none=True).items():
        source = document.source_of(f"{rows.kind}.{rows.family}.{name}")
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        text = source.text if source else ""
        yield Constant(name, shown, text, told=text not in (AT_BOUND, UNTOLD))
