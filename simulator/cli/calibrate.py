"""Commands about measurements: calibrate and kernels."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwmodels.errors import MachineError
from simulator.cli.calibrate_report import report
from simulator.cli.calibrate_tables import fit, score
from simulator.cli.calibrate_trace import from_trace as tell_trace
from simulator.cli.calibrate_trace import trace_options
from simulator.cli.judge import judge
from simulator.cli.output import console, echo_json, json_option, write_text

if TYPE_CHECKING:
    from rich.table import Table

    from calibration.measure.bench import BenchRow


@click.group(invoke_without_command=True, no_args_is_help=True)
@trace_options
@click.pass_context
def calibrate(context: click.Context, /, from_trace: Path | None, **options: Any) -> None:
    """Fit a kernel profile to measurements, or judge a fit.

    With --from-trace and no command, tell what a PyTorch profiler trace of any training is made of:
    streams, classes of kernels, overlap; and fit a profile to it.
    """
    if context.invoked_subcommand is None:
        if from_trace is None:
            raise click.UsageError("calibrate: needs a command or --from-trace")
        tell_trace(from_trace, **options)
    elif from_trace is not None or any(options.values()):
        raise click.UsageError(
            f"calibrate: options before {context.invoked_subcommand} go with --from-trace alone"
        )


@calibrate.command()
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    required=True,
    help="Parquet table of timed collectives inside a node.",
)
@click.option(
    "--exchange-table",
    type=click.Path(path_type=Path),
    help="Parquet table of the timed expert exchange inside GB200 NVL72.",
)
@click.option("--held-out", is_flag=True, help="Predict each row by a fit without its shape, too.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the library presets.")
def collectives(table: Path, exchange_table: Path | None, held_out: bool, out: Path | None) -> None:
    """Fit NCCL and the all-reduces of serving frameworks; print the errors."""
    from calibration.fit import gb200_alltoall
    from calibration.fit.collective_tables import fit_collective_table, library_texts, score_lines

    fits = fit_collective_table(table, held_out)
    click.echo("\n".join(score_lines(fits)))
    texts = dict(library_texts(fits))
    if exchange_table is not None:
        exchange = gb200_alltoall.fit_exchange_table(exchange_table)
        click.echo("\n".join(["", *gb200_alltoall.score_lines(exchange)]))
        texts[gb200_alltoall.NAME] = gb200_alltoall.library_text(exchange)
    if out is not None:
        for name, text in texts.items():
            write_text(text, out / f"{name}.toml")


@calibrate.command()
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    required=True,
    help="Parquet table of timed DeepEP exchanges in normal mode.",
)
@click.option(
    "--low-latency-table",
    type=click.Path(path_type=Path),
    required=True,
    help="Parquet table of the same in low-latency mode.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Trace of DeepSeek's DualPipe training run, for the library deepep-h800.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the library presets.")
def exchanges(table: Path, low_latency_table: Path, trace: Path | None, out: Path | None) -> None:
    """Fit DeepEP's dispatch and combine; print the errors, in sample and on shapes held out."""
    from calibration.fit import deepep_table
    from calibration.presets import deepep_h800
    from hwmodels.chip import CHIPS

    fits = deepep_table.fit_libraries(table, low_latency_table)
    click.echo("\n".join(deepep_table.score_lines(fits)))
    texts = deepep_table.library_texts(fits)
    if trace is not None:
        texts[deepep_h800.NAME] = deepep_h800.library_text(trace, CHIPS.load("h800"))
    if out is not None:
        for name, text in texts.items():
            write_text(text, out / f"{name}.toml")


@calibrate.command()
@click.option("--model", default="deepseek-v3", show_default=True, help="Model preset.")
@click.option("--quick", is_flag=True, help="Under a minute of device time.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write; stdout without it.")
def plan(model: str, quick: bool, out: Path | None) -> None:
    """Write what to measure: the kernels that a model's training runs, and a design that fits."""
    _require_torch("calibrate plan")
    from calibration.measure.plan import device_time_s, plan_text
    from calibration.measure.plan import plan as points_of
    from calibration.model_ops import model_ops
    from workloads.model import MODELS

    points = points_of(model_ops(MODELS.load(model)), quick=quick)
    click.echo(
        f"{len(points)} points, about {device_time_s(points):.0f} s on the device, "
        f"compilation apart",
        err=True,
    )
    write_text(plan_text(points), out)


@calibrate.command()
@click.option("--model", default="deepseek-v3", show_default=True, help="Model preset.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write; stdout without it.")
def ops(model: str, out: Path | None) -> None:
    """Write the distinct kernels of a model's training and decode as a plan.

    The one of DeepSeek-V3 is calibration/gpu_day/ops.json, for machines that read no presets.
    """
    _require_torch("calibrate ops")
    from calibration.measure.plan import op_point, plan_text
    from calibration.model_ops import decode_ops, model_ops
    from workloads.model import MODELS

    spec = MODELS.load(model)
    points = [op_point(op) for op in (*model_ops(spec), *decode_ops(spec))]
    write_text(plan_text(list({point.key: point for point in points}.values())), out)


@calibrate.command()
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV of rows.")
@click.option("--resume", is_flag=True, help="Go on with a file that is there.")
def measure(plan_file: Path, out: Path, resume: bool) -> int:
    """Measure PLAN on the GPU that is here; the same as python -m calibration.measure."""
    from calibration.measure.__main__ import main as measure_all

    return measure_all([str(plan_file), "--out", str(out), *(["--resume"] if resume else [])])


for _command in (fit, judge, report, score):
    calibrate.add_command(_command)


@click.group()
def kernels() -> None:
    """Time our Triton kernels beside other libraries."""


@kernels.command()
@click.argument("op", required=False)
@click.option("--provider", help="Only this one, such as moesim or torch.")
@json_option
def bench(op: str | None, provider: str | None, as_json: bool) -> None:
    """Time OP, or every kernel, on its shapes: rates, and fractions of what probes reach here."""
    _require_torch("kernels bench")
    from dataclasses import asdict

    from calibration.measure.bench import bench as rows_of

    rows = rows_of(op, provider)
    if as_json:
        echo_json([asdict(row) for row in rows])
    else:
        console().print(_bench_table(rows))


def _bench_table(rows: "Iterable[BenchRow]") -> "Table":
    """Return kernel timings as a table: one line a shape and provider, or why it failed."""
    from rich.markup import escape

    from hwmodels.units import format_quantity
    from simulator.tell.terminal import table

    grid = table("kernels", "kernel", "provider", "time", "TFLOPS", "GB/s", "of peak", "of copy")
    for row in rows:
        name = f"{row.kernel} {row.shape}"
        if row.time_s is None:
            grid.add_row(escape(name), row.provider, escape(row.error))
            continue
        grid.add_row(
            escape(name),
            row.provider,
            format_quantity(row.time_s, "s"),
            *(
                "" if value is None else f"{value / scale:{style}}"
                for value, scale, style in (
                    (row.flops_per_s, 1e12, ".0f"),
                    (row.bytes_per_s, 1e9, ".0f"),
                    (row.of_peak, 1.0, ".0%"),
                    (row.of_copy, 1.0, ".0%"),
                )
            ),
        )
    return grid


def _require_torch(command: str) -> None:
    """Refuse where the kernels cannot even be imported."""
    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    if missing:
        raise MachineError(f"{command}: needs {' and '.join(missing)}; install the extra 'gpu'")
