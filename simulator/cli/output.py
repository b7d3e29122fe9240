"""What all commands share: the console, JSON on stdout, and errors of the file system."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwmodels.errors import InputError, MachineError, MoesimError, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from hwmodels.cluster import ClusterSpec
    from simulator.tell.link_load import LinkLoad

WIDTH_WITHOUT_TERMINAL = 150
DRAWS_WITHOUT_PROGRESS = 20
FIGURE_FORMATS = (".png", ".svg", ".pdf")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)


def console(*, stderr: bool = False) -> "Console":
    """Return a console as wide as the terminal, or of a fixed width where there is none."""
    from rich.console import Console

    terminal = Console(stderr=stderr)
    if terminal.is_terminal:
        return terminal
    return Console(width=WIDTH_WITHOUT_TERMINAL, stderr=stderr)


def track_draws(draws: Sequence[int]) -> Iterable[int]:
    """Pass the draws on, with a progress bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if len(draws) <= DRAWS_WITHOUT_PROGRESS or not console.is_terminal:
        return draws
    return track(draws, "draws", console=console, transient=True)


def echo_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=1))


def warn_of(notes: "Sequence[object]") -> None:
    """Tell of what else to know, in one line on stderr."""
    if notes:
        more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
        click.echo(f"moesim: warning: {one_line(str(notes[0]))}{more}", err=True)


def cannot_write(path: Path, error: OSError, option: str = "--out") -> MoesimError:
    """A file where a folder should be is a wrong input; a full or read-only disk is not."""
    message = f"{option} {path}: {(error.strerror or str(error)).lower()}"
    wrong = FileExistsError | NotADirectoryError | IsADirectoryError | FileNotFoundError
    return InputError(message) if isinstance(error, wrong) else MachineError(message)


def write_text(text: str, out: Path | None) -> None:
    """Write to a file, or to stdout without one.

    Raises:
        InputError: a folder is in its place, or the one it goes into is not there.
        MachineError: it cannot be written.
    """
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise cannot_write(out, error) from None


def check_format(file: Path) -> None:
    """Refuse a file that `--figure` names if its ending is of no format that is drawn.

    Raises:
        InputError: it is not.
    """
    if file.suffix not in FIGURE_FORMATS:
        formats = ", ".join(FIGURE_FORMATS)
        raise InputError(f"--figure: must end in one of {formats}, got {str(file)!r}")


def draw_to(file: Path, cluster: "ClusterSpec", load: "LinkLoad | None" = None) -> None:
    """Draw a cluster to the file that `--figure` names.

    Raises:
        InputError: a format that is not drawn, or a folder that is not there.
        MachineError: the file cannot be written.
    """
    check_format(file)
    from simulator.tell.topology import draw_cluster

    try:
        draw_cluster(cluster, file, load)
    except OSError as error:
        raise cannot_write(file, error, "--figure") from None
    click.echo(f"wrote {file}", err=True)
