"""The command validate: a layer of our kernels as it ran, beside the same layer simulated."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwmodels.errors import InputError
from simulator.cli.output import console, echo_json, json_option

if TYPE_CHECKING:
    from rich.table import Table

    from simulator.cli.validation import Validation

OUT = Path("out/validate")
PARTS = ("device", "numerics", "ops", "design", "stack")
"""Of a GPU day: whether kernels are right, what their constants are fitted to, and the layer."""

WITHIN = {True: "within", False: "[bold]missed[/bold]", None: ""}


@click.command()
@click.option(
    "--rows",
    type=click.Path(path_type=Path),
    help="Judge what was measured before: folder of a GPU day, or its stack.csv.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help=f"Folder to measure into.  [default: {OUT}]"
)
@click.option("--resume", is_flag=True, help="Go on with what --out holds.")
@click.option("--chip", help="Chip preset or .toml file, where the device's name does not tell.")
@click.option(
    "--profile",
    help="Kernel profile; 'none' for the datasheet's roofline.  [default: constants fitted to "
    "other rows of the same day, where there are any]",
)
@click.option(
    "--host-launch",
    metavar="TIME",
    help="What every launch takes the host, such as 5us, instead of what was measured.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="DeepSeek's DualPipe training trace: price its kernels on H800 too.",
)
@json_option
def validate(
    rows: Path | None,
    out: Path | None,
    resume: bool,
    chip: str | None,
    profile: str | None,
    host_launch: str | None,
    trace: Path | None,
    as_json: bool,
) -> int:
    """Judge the simulator by a layer of DeepSeek-V3 that runs on the GPU here, or that ran before.

    Forward, backward and decode of our Triton kernels, op by op and in total: launched one by one,
    waiting for each, and as a CUDA graph; beside the same kernels priced, and launched by a
    simulated host. Verdicts are printed, met or missed.
    """
    host_s = _seconds(host_launch)
    if rows is not None and (out is not None or resume):
        raise InputError("--rows: judges what was measured, --out and --resume measure; got both")
    if rows is None:
        rows = out or OUT
        code = _measure(rows, resume=resume)
        if code:
            return code
    from dataclasses import asdict

    from simulator.cli.validation import validation

    found = validation(rows, chip, profile, host_s, trace)
    if as_json:
        echo_json(asdict(found))
    else:
        terminal = console()
        for grid in _tables(found):
            terminal.print(grid)
            terminal.print()
    return 0


def _measure(out: Path, *, resume: bool) -> int:
    """Measure on the GPU that is here; return the exit code, whose reason was told."""
    from calibration.gpu_day.__main__ import main as gpu_day

    return gpu_day(["--out", str(out), "--only", *PARTS, *(["--resume"] if resume else [])])


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    from hwmodels.units import SECONDS, parse_quantity

    value = parse_quantity(text, SECONDS)
    if not 0 <= value <= 1:
        raise InputError(f"--host-launch: from 0 to 1 s, got {text}")
    return value


def _tables(found: "Validation") -> "Iterator[Table]":
    yield _about(found)
    yield _totals(found)
    yield _families(found)
    others = (_failed(found), _apart(found), _transfer(found))
    yield from (grid for grid in others if grid.row_count)


def _about(found: "Validation") -> "Table":
    from rich.markup import escape

    from simulator.tell.terminal import table

    grid = table(f"layers on {escape(found.device)}", "", "")
    grid.add_row("chip", escape(found.chip))
    grid.add_row("kernels by", escape(found.basis))
    grid.add_row("host", escape(found.host))
    for note in found.notes:
        grid.add_row("note", escape(note))
    return grid


def _totals(found: "Validation") -> "Table":
    from rich.markup import escape

    from simulator.tell.terminal import table

    grid = table("totals", "layer", "launched", "measured", "simulated", "error", "bar", "", "")
    for line in found.totals:
        grid.add_row(
            escape(line.layer),
            escape(line.mode),
            _time(line.measured_s),
            _time(line.simulated_s),
            _percent(line.error),
            "" if line.bar is None else f"{line.bar:.0%}",
            WITHIN[line.within],
            escape(line.why),
        )
    return grid


def _families(found: "Validation") -> "Table":
    from rich.markup import escape

    from calibration.validate.comparison import FAMILY_BAR
    from simulator.tell.terminal import table

    columns = ("layer", "family", "ops", "measured", "simulated", "error", "", "prices by")
    grid = table(f"families, each within {FAMILY_BAR:.0%}", *columns)
    for line in found.families:
        grid.add_row(
            escape(line.layer),
            escape(line.family),
            str(line.ops),
            _time(line.measured_s),
            _time(line.simulated_s),
            _percent(line.error),
            WITHIN[line.within],
            escape("; ".join(line.bases)),
        )
    return grid


def _failed(found: "Validation") -> "Table":
    from rich.markup import escape

    from simulator.tell.terminal import table

    grid = table("ops without a time", "layer", "op", "why")
    for failed in found.failed:
        grid.add_row(escape(failed.layer), escape(failed.op), escape(failed.error))
    return grid


def _apart(found: "Validation") -> "Table":
    """Return what has no partner on the other side: measured by block, or listed there."""
    from rich.markup import escape

    from simulator.tell.terminal import table

    apart = [op for op in found.ops if not op.in_workload]
    title = "kernels that one side alone has"
    if apart:
        share = sum(op.measured_s for op in apart) / sum(op.measured_s for op in found.ops)
        title += f": {share:.0%} of the measured time, priced as what they are"
    grid = table(title, "block and pass", "time")
    for where in dict.fromkeys(op.where for op in apart):
        some = [op for op in apart if op.where == where]
        names = ", ".join(op.op for op in some)
        seconds = sum(op.measured_s for op in some)
        grid.add_row(escape(f"{where} measured: {names}"), _time(seconds))
    of_place: dict[str, list[str]] = {}
    for name in found.unmeasured:
        where, _, op = name.partition(": ")
        of_place.setdefault(where, []).append(op)
    for where, ops in of_place.items():
        grid.add_row(escape(f"{where} in the workload: {', '.join(ops)}"), "")
    return grid


def _transfer(found: "Validation") -> "Table":
    from rich.markup import escape

    from simulator.tell.terminal import table

    title = f"DeepSeek's training trace, a layer pair, by {escape(found.transfer_basis)}"
    grid = table(title, "family", "measured", "simulated", "error")
    for line in found.transfer:
        seconds = (_time(line.measured_s), _time(line.simulated_s))
        grid.add_row(escape(line.family), *seconds, _percent(line.error))
    return grid


def _time(seconds: float | None) -> str:
    from hwmodels.units import format_quantity

    return "" if seconds is None else format_quantity(seconds, "s")


def _percent(error: float | None) -> str:
    return "" if error is None else f"{error:+.1%}"
