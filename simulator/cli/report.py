"""The command report: a run or a study as one page to look at."""

from pathlib import Path

import click

from hwmodels.errors import SpecError, found_at
from simulator.cli.output import write_text

PAGE = "report.html"


@click.command()
@click.argument("source", metavar="DIR|RESULT", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write; report.html beside it without."
)
def report(source: Path, out: Path | None) -> None:
    """Write a run or a study as one HTML page that opens without a network.

    DIR is the folder of a study, or one that `run --out` wrote; RESULT is a result.json file. A
    study that is not done is shown as far as it got.

    \b
    moesim report out/base
    moesim report out/nvlink --out nvlink.html
    """
    folder = source if source.is_dir() else source.parent
    file = out or folder / PAGE
    write_text(_page(source), file)
    click.echo(f"wrote {file}", err=True)


def _page(source: Path) -> str:
    """Return the page of what a path holds.

    Raises:
        SpecError: that is neither a study nor a run, or it is damaged.
    """
    from simulator.tell.report import run_report, study_report
    from simulator.tell.result import Result
    from simulator.tell.study_table import DOCUMENT, StudyTable

    if source.is_dir() and (source / DOCUMENT).exists():
        return study_report(StudyTable.load(source))
    if source.name == DOCUMENT and source.is_file():
        return study_report(StudyTable.load(source.parent))
    if source.is_dir() and not (source / "result.json").exists():
        raise SpecError(f"{source}: must hold a study.json or a result.json, got neither")
    if not source.exists():
        raise SpecError(
            f"{source}: must be the folder of a study or a run, or a result.json, "
            f"got {found_at(source)}"
        )
    return run_report(Result.load(source))
