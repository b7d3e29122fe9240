"""The command about studies: many experiments, one table."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simulator.cli.output import console, echo_json, json_option

if TYPE_CHECKING:
    from simulator.study.run import Progress, Study, Track
    from simulator.tell.study_table import StudyTable

INTERRUPTED = 130


@click.command()
@click.argument("study")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the study; out/NAME.")
@click.option("--resume", is_flag=True, help="Go on with what the folder holds.")
@click.option("--workers", type=click.IntRange(1, 4096), help="Processes; one for each core.")
@click.option("--executor", "executor_name", default="local", metavar="local|ray")
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one value of the study's experiment; repeatable.",
)
@click.option("--point", type=int, help="Look at one point alone and print its row.")
@click.option("--figures/--no-figures", default=True, help="Draw the study's figures at the end.")
@json_option
@click.pass_context
def study(
    context: click.Context,
    study: str,
    out: Path | None,
    resume: bool,
    workers: int | None,
    executor_name: str,
    overrides: tuple[str, ...],
    point: int | None,
    figures: bool,
    as_json: bool,
) -> None:
    """Run STUDY, a shipped one or a TOML file: a table with a row for each point.

    \b
    moesim study nvlink                        (table, figures: out/nvlink)
    moesim study mine.toml --out out/mine      (a document of your own)
    moesim study mine.toml --out out/mine --resume
    moesim study nvlink --point 3 --json       (one row again, to the same bytes)
    """
    from simulator.cli.overrides import parse_override
    from simulator.study.document import load_study
    from simulator.study.run import Study

    asked = load_study(study)
    ready = Study.of(asked, dict(parse_override(text) for text in overrides))
    if point is not None:
        row = ready.row(point)
        echo_json(row) if as_json else _show_row(ready, row)
        return
    folder = out or Path("out") / asked.name
    try:
        with _progress(ready) as track:
            table = ready.run(
                folder,
                executor_name=executor_name,
                workers=workers,
                resume=resume,
                track=track,
            )
    except KeyboardInterrupt:
        click.echo(
            f"moesim: interrupted; what was done is in {folder}: go on with --resume", err=True
        )
        context.exit(INTERRUPTED)
    _tell(table, folder, figures=figures, as_json=as_json)


def _tell(table: "StudyTable", folder: Path, *, figures: bool, as_json: bool) -> None:
    from simulator.tell.study_summary import show_study, summary

    if figures:
        from simulator.cli.output import cannot_write
        from simulator.tell.study_figures import draw_study

        try:
            draw_study(table, folder / "figures")
        except OSError as error:
            raise cannot_write(folder, error) from None
    if as_json:
        echo_json(summary(table))
    else:
        show_study(console(), table)
        click.echo(f"wrote {folder}", err=True)


def _show_row(ready: "Study", row: dict[str, object]) -> None:
    from rich.table import Table

    from simulator.tell.headlines import shown

    units = {column.name: column.unit for column in ready.document.columns}
    table = Table(box=None, show_header=False)
    for name, value in row.items():
        told = shown(value, units[name]) if name in units and isinstance(value, float) else value
        table.add_row(name, str(told))
    console().print(table)


@contextmanager
def _progress(ready: "Study") -> "Iterator[Track]":
    """Show on a terminal how far it is, how long it takes, and the best so far."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from simulator.tell.headlines import shown

    decisive = next(
        each for each in ready.document.columns if each.name == ready.document.objectives[0]
    )
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[best]}"),
    )  # fmt: skip
    screen = console(stderr=True)
    with Bar(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(ready.spec.name, total=len(ready.grid), best="")

        def track(progress: "Progress") -> None:
            best = progress.best
            told = f"best {shown(best[decisive.name], decisive.unit)}" if best else ""
            bar.update(task, completed=progress.done, total=progress.total, best=told)

        yield track
