"""The option calibrate --from-trace: what a profiler trace of anybody's training says."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hwmodels.errors import CalibrationError, InputError
from simulator.cli.output import FIGURE_FORMATS, console, echo_json, json_option, write_text

if TYPE_CHECKING:
    from calibration.fit.traced_profile import Traced
    from calibration.judge.composition import Composition
    from calibration.read.torch_trace import TorchTrace

PARENT = "h800-deepseek"
Command = TypeVar("Command", bound=Callable[..., Any])


def trace_options(command: Command) -> Command:
    """Add the options of `from_trace` to a command."""
    file = click.Path(path_type=Path, dir_okay=False)
    options = (
        click.option(
            "--from-trace",
            type=click.Path(path_type=Path),
            help="PyTorch profiler trace (.json or .json.gz): say what its time is made of.",
        ),
        click.option("--out", type=file, help="With --from-trace: profile to write (.toml)."),
        click.option(
            "--figure",
            type=file,
            help="With --from-trace: draw streams and composition (.png, .svg, .pdf).",
        ),
        click.option(
            "--model",
            help="With --from-trace: model preset that has the shapes of a DualPipe trace.",
        ),
        click.option(
            "--chip", help="With --from-trace: chip preset, where the trace does not tell."
        ),
        click.option(
            "--gemm-table",
            "tables",
            type=click.Path(path_type=Path),
            multiple=True,
            help="With --from-trace: parquet table of timed BF16 products on H100 SXM, which a "
            "DualPipe trace has none of; repeatable. Without it they are those that ship.",
        ),
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def from_trace(
    path: Path,
    out: Path | None,
    figure: Path | None,
    model: str | None,
    chip: str | None,
    tables: Sequence[Path],
    as_json: bool,
) -> None:
    """Tell what a trace holds; write a profile and draw, where asked to.

    Raises:
        InputError: the trace is none, or lacks what was asked for.
    """
    from calibration.fit.traced_profile import traced
    from calibration.judge.composition import compose
    from calibration.read.torch_trace import read_torch_trace
    from simulator.cli.trace_tables import composition_tables, draw

    if figure is not None and figure.suffix not in FIGURE_FORMATS:
        formats = ", ".join(FIGURE_FORMATS)
        raise InputError(f"--figure: must end in one of {formats}, got {str(figure)!r}")
    trace = read_torch_trace(path)
    if not trace.kernels and trace.threads and out is None and figure is None:
        _tell_host(trace, as_json)
        return
    composition = compose(trace)
    shown = traced(trace)
    if as_json:
        echo_json(_document(trace, composition, shown))
    else:
        for grid in composition_tables(trace, composition, shown):
            console().print(grid)
    if figure is not None:
        draw(trace, composition, figure)
    if out is not None:
        write_text(_profile(trace, shown, model, chip, tables), out)
        click.echo(f"wrote {out}", err=True)


def _profile(
    trace: "TorchTrace",
    shown: "Traced",
    model: str | None,
    chip: str | None,
    tables: Sequence[Path],
) -> str:
    """Return the profile of a trace: DeepSeek's by its own fit, any other by that of tables."""
    from calibration.fit.traced_profile import traced_chip, traced_profile_text
    from calibration.read.dualpipe_trace import is_dualpipe
    from hwmodels.profile import PROFILES

    spec = traced_chip(trace, chip)
    if is_dualpipe(trace.annotations):
        from calibration.presets.h800_deepseek import profile_text
        from calibration.read.trace_rows import MODEL

        return profile_text(trace.path, tables, spec, model or MODEL)
    for option, given in (("--model", model), ("--gemm-table", tables)):
        if given:
            raise CalibrationError(
                f"{option}: goes with a DualPipe trace; {trace.path} lacks its ranges"
            )
    return traced_profile_text(trace, shown, spec, PROFILES.load(PARENT))


def _document(trace: "TorchTrace", found: "Composition", shown: "Traced") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **_about(trace),
        **asdict(found),
        "compute_shares": found.shares(),
        "shapes": [
            {"kind": rows.kind, "family": rows.family, "rows": len(rows)} for rows in shown.rows
        ],
        "slowdowns": [
            {"class": kind.name, "family": kind.family, "factor": factor.value}
            for kind, factor in shown.factors.items()
        ],
    }


def _about(trace: "TorchTrace") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "gpu": trace.device,
        "sms": trace.sms,
        "ranks": trace.ranks,
        "unlaunched": trace.unlaunched,
        "annotations": dict(trace.annotations),
        "threads": {name: asdict(ops) for name, ops in trace.threads.items()},
        "ops": [{**op._asdict(), "calls": calls} for op, calls in trace.ops.items()],
    }


def _tell_host(trace: "TorchTrace", as_json: bool) -> None:
    """Tell of a trace of the host alone what it has, and what it lacks."""
    from simulator.cli.trace_tables import host_tables

    lacks = "no kernel on a device: profile with ProfilerActivity.CUDA to fit anything"
    if as_json:
        echo_json({**_about(trace), "lacks": lacks})
        return
    for grid in host_tables(trace):
        console().print(grid)
    click.echo(f"moesim: warning: {trace.path}: {lacks}", err=True)
