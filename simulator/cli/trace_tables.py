"""What a profiler trace says, as tables in a terminal and as a picture."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simulator.cli.output import cannot_write

if TYPE_CHECKING:
    from rich.table import Table

    from calibration.fit.traced_profile import Traced
    from calibration.judge.composition import Composition
    from calibration.read.torch_trace import TorchTrace
    from simulator.tell.trace_figure import Lane

SHOWN = 12
"""Rows of a table of names; --json has all."""
LANES = 12
"""Streams drawn, the busiest ones."""


def composition_tables(
    trace: "TorchTrace", found: "Composition", shown: "Traced"
) -> "Iterator[Table]":
    """Yield what a trace's time is made of, and what can be fitted to it."""
    yield _streams(trace, found)
    yield _overlap(found)
    for role in found.busy_s:
        yield _parts(trace, found, role)
    yield _unclassified(found)
    if shown.rows or shown.factors:
        yield _fitted(shown)


def _streams(trace: "TorchTrace", found: "Composition") -> "Table":
    from rich.markup import escape

    from hwmodels.units import format_quantity
    from simulator.tell.terminal import table

    title = f"{found.kernels} kernels and {found.copies} copies on {trace.device or 'a GPU'}"
    grid = table(escape(title), "stream", "role", "kernels", "busy", "idle", "gap")
    for stream in found.streams:
        times = (stream.busy_s, stream.idle_s, stream.gap_s)
        grid.add_row(
            str(stream.number),
            stream.role,
            str(stream.kernels),
            *("" if time_s is None else format_quantity(time_s, "s") for time_s in times),
        )
    return grid


def _overlap(found: "Composition") -> "Table":
    from hwmodels.units import format_quantity
    from simulator.tell.terminal import table

    grid = table("overlap", "", "time", "of it under compute")
    whole_s = found.communication_s
    grid.add_row(
        "communication",
        format_quantity(whole_s, "s"),
        f"{found.hidden_s / whole_s:.0%}" if whole_s else "",
    )
    grid.add_row("not under compute", format_quantity(whole_s - found.hidden_s, "s"), "")
    return grid


def _parts(trace: "TorchTrace", found: "Composition", role: str) -> "Table":
    from calibration.read.dualpipe_trace import is_dualpipe
    from calibration.read.trace_rows import LAYERS
    from hwmodels.units import format_quantity
    from simulator.tell.terminal import table

    pairs = len(LAYERS) if is_dualpipe(trace.annotations) else 1
    each = " in a layer pair" if pairs > 1 else ""
    title = f"{role}: {format_quantity(found.busy_s[role] / pairs, 's')}{each}"
    columns = ("class", "family", "kernels", "time", "share", "beside the other side", "SMs")
    grid = table(title, *columns)
    for group, share in sorted(found.shares(role).items(), key=lambda item: -item[1]):
        time = format_quantity(share * found.busy_s[role] / pairs, "s")
        grid.add_row(f"all {group}", "", "", time, f"{share:.1%}", "", "")
    for part in found.of(role):
        grid.add_row(
            part.name,
            part.family,
            str(part.kernels),
            format_quantity(part.time_s / pairs, "s"),
            f"{part.share:.1%}",
            f"{part.beside:.0%}",
            "" if part.sms is None else str(part.sms),
        )
    return grid


def _unclassified(found: "Composition") -> "Table":
    from rich.markup import escape

    from hwmodels.errors import shown as cut
    from simulator.tell.terminal import table

    share = sum(each.share for each in found.unclassified)
    names = f"{len(found.unclassified)} names, {share:.1%} of all kernels' time"
    title = f"unclassified: {names if found.unclassified else 'none'}"
    grid = table(title, "kernel", "runs", "share")
    for each in found.unclassified[:SHOWN]:
        grid.add_row(escape(cut(each.name)), str(each.kernels), f"{each.share:.2%}")
    return grid


def _fitted(shown: "Traced") -> "Table":
    from simulator.tell.terminal import table

    grid = table("what can be fitted", "family", "shapes", "slower beside transfers")
    for rows in shown.rows:
        grid.add_row(rows.family, str(len(rows)), "")
    for kind, factor in shown.factors.items():
        grid.add_row(f"{kind.name} {kind.family}".strip(), "", f"{factor.value:.2f}")
    return grid


def host_tables(trace: "TorchTrace") -> "Iterator[Table]":
    """Yield what a trace says of the host."""
    from rich.markup import escape

    from simulator.tell.terminal import table

    grid = table("threads of the host", "thread", "ops", "with shapes")
    for name, ops in trace.threads.items():
        grid.add_row(escape(name), str(ops.ops), str(ops.shaped))
    yield grid
    grid = table("ops with shapes", "op", "sizes", "calls")
    for op, calls in sorted(trace.ops.items(), key=lambda item: -item[1])[:SHOWN]:
        grid.add_row(escape(op.name), escape(" ".join(map(str, op.sizes))), str(calls))
    yield grid
    if trace.annotations:
        grid = table("ranges", "name", "times")
        for name, times in sorted(trace.annotations.items(), key=lambda item: -item[1])[:SHOWN]:
            grid.add_row(escape(name), str(times))
        yield grid


def draw(trace: "TorchTrace", found: "Composition", file: Path) -> None:
    """Draw streams and composition.

    Raises:
        InputError: the folder is not there.
        MachineError: the file cannot be written.
    """
    from simulator.tell.trace_figure import Bar, draw_trace

    bars = [
        Bar(
            role,
            [(part.name, _work(part.name, part.group), part.share) for part in found.of(role)],
        )
        for role in found.busy_s
    ]
    hidden = f"{found.hidden_s / found.communication_s:.0%}" if found.communication_s else "none"
    title = f"{trace.path.name}: {found.kernels} kernels, {hidden} of communication under compute"
    figure = draw_trace(title, _lanes(trace, found), bars)
    try:
        figure.savefig(file)
    except OSError as error:
        raise cannot_write(file, error, "--figure") from None
    click.echo(f"wrote {file}", err=True)


def _lanes(trace: "TorchTrace", found: "Composition") -> "list[Lane]":
    import numpy as np

    from calibration.read.device_time import DeviceTime
    from simulator.tell.trace_figure import Lane, Run

    time = DeviceTime.of(trace)
    members: dict[tuple[int, str], list[int]] = defaultdict(list)
    for place, (kernel, kind) in enumerate(zip(time.kernels, time.classes, strict=True)):
        members[kernel.stream, _work(kind.name, kind.group)].append(place)
    runs: dict[int, list[Run]] = defaultdict(list)
    for (stream, work), places in members.items():
        start_s = time.when.start_s[places]
        runs[stream].append(Run(work, start_s, np.asarray(time.duration_s[places])))
    return [
        Lane(f"{stream.role}, stream {stream.number}", runs[stream.number])
        for stream in found.streams[:LANES]
    ]


def _work(name: str, group: str) -> str:
    from calibration.read.device_time import WAITING

    return "waiting" if name == WAITING else group
