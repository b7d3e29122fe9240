"""Figures of a run: pipeline Gantt, overlap inside a pair, breakdown by rank, roofline.

The breakdown is drawn from a result of any kind, the others from what was played.

Colours mean one thing everywhere: blue work of the forward pass, orange of the input gradients,
green of the weight gradients, violet overlapped pairs, grey communication, hatched grey waiting,
white idle.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch

from simulator.lower.parts import PartPlay
from simulator.lower.played import Played
from simulator.tell.facts.pipeline_ranks import PipelineRanks
from simulator.tell.headlines import shown
from simulator.tell.result import Result
from simulator.tell.roofline import roofline
from simulator.tell.style import COMMUNICATION, PALETTE, STYLE, WAITING, WHITE, phase_colors
from workloads.ops import COMPUTE
from workloads.phases import IDLE, PASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PASS_COLORS: dict[str, str] = dict(zip(PASSES, PALETTE, strict=False))


def draw_all(played: Played, result: Result, folder: Path) -> list[Path]:
    """Write every figure of a run to `folder` as PNG and return the files."""
    figures: dict[str, Callable[[], Figure | None]] = {
        "pipeline": lambda: pipeline_gantt(played),
        "overlap": lambda: pair_overlap(played),
        "breakdown": lambda: breakdown(result),
        "roofline": lambda: roofline(played),
    }
    files = []
    with mpl.rc_context(STYLE):
        for name, draw in figures.items():
            figure = draw()
            if figure is None:  # a folder written before may hold one that no longer holds
                (folder / f"{name}.png").unlink(missing_ok=True)
                continue
            files.append(folder / f"{name}.png")
            figure.savefig(files[-1])
            plt.close(figure)
    return files


def pipeline_gantt(played: Played) -> "Figure":
    """Draw what every pipeline rank does when."""
    ranks = len(played.pipeline.program)
    figure, axes = plt.subplots(figsize=(13, 0.32 * ranks + 1.6), layout="constrained")
    timeline = played.timeline()
    for (rank, color), spans in _spans_by_color(played).items():
        axes.broken_barh(spans, (rank - 0.4, 0.8), color=color, linewidth=0)
    axes.set_xlim(0, timeline.makespan_s)
    axes.set_ylim(ranks - 0.4, -0.6)
    axes.set_yticks(range(ranks))
    axes.set_ylabel("pipeline rank")
    axes.set_xlabel("seconds")
    idle = played.times.phases[IDLE].mean() / played.times.step_s
    axes.set_title(
        f"{played.experiment.name}: one step, {timeline.makespan_s:.2f} s, "
        f"{idle:.1%} of it idle (white) on the mean rank"
    )
    drawn, words = {color for _, color in _spans_by_color(played)}, played.program.phases
    colors = {name: color for name, color in phase_colors(words).items() if color in drawn}
    figure.legend(
        handles=[Patch(color=color, label=words[name]) for name, color in colors.items()],
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=len(colors),
    )
    return figure


def _spans_by_color(played: Played) -> dict[tuple[int, str], list[tuple[float, float]]]:
    """Start and length of everything on the compute streams, by rank and color."""
    graph, timeline = played.pipeline.graph, played.timeline()
    spans: dict[tuple[int, str], list[tuple[float, float]]] = {}
    names, colors = played.pipeline.table.phases, phase_colors(played.program.phases)
    for task, rank in enumerate(played.pipeline.rank):
        if graph.streams[graph.stream[task]].endswith(COMPUTE):
            color = colors[names[played.pipeline.phase[task]]]
            start_s, end_s = float(timeline.start_s[task]), float(timeline.end_s[task])
            spans.setdefault((rank, color), []).append((start_s, end_s - start_s))
    return spans


def pair_overlap(played: Played) -> "Figure | None":
    """Draw compute over communication inside the pair that runs most often; None without pairs."""
    lowered = played.lowered
    times = dict(zip(lowered.keys, lowered.steps_of_part.tolist(), strict=True))
    pairs = [key for key in times if lowered.parts[key].graph.part.overlapped]
    if not pairs:
        return None
    key = max(reversed(pairs), key=times.__getitem__)
    part = played.parts[key]
    figure, axes = plt.subplots(figsize=(15, 2.4), layout="constrained")
    _draw_streams(axes, part)
    axes.set_title(
        f"{part.graph.part.title}: "
        f"rank 0 of {part.ranks}{' alike' if played.explicit else ''}; "
        f"the slowest ends at {part.duration_s[0] * 1e3:.1f} ms"
        f"{', if nothing else were on its NIC' if played.shared else ''}"
    )
    handles = [
        *(
            Patch(color=color, label=words)
            for color, words in zip(PALETTE, PASSES.values(), strict=False)
        ),
        Patch(color=COMMUNICATION, label="dispatch, combine"),
        Patch(facecolor=WAITING, hatch="///", edgecolor="white", label="waiting for other ranks"),
    ]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=5)
    return figure


def _draw_streams(axes: "Axes", part: PartPlay) -> None:
    timeline, until_ms = part.timeline(draw=0), float(part.duration_s[0]) * 1e3
    for task, segment in enumerate(part.graph.segments):
        on_compute = segment.stream == COMPUTE
        label = str(segment.label)
        row = 0 if on_compute else 1
        ready, start, end = (
            float(column[task]) * 1e3
            for column in (timeline.ready_s, timeline.start_s, timeline.end_s)
        )
        if start > ready:
            axes.broken_barh(
                [(ready, start - ready)],
                (row - 0.4, 0.8),
                facecolor=WAITING,
                hatch="///",
                edgecolor="white",
            )
        color = PASS_COLORS[segment.label.pass_] if on_compute else COMMUNICATION
        axes.broken_barh([(start, end - start)], (row - 0.4, 0.8), color=color, edgecolor="white")
        name = label.partition(" ")[0].replace("(", "\n(")
        if end - start > 0.0037 * name.index("\n") * until_ms:
            axes.text((start + end) / 2, row, name, ha="center", va="center", color="w", fontsize=6)
    axes.set_xlim(0, until_ms)
    axes.set_ylim(1.6, -0.6)
    axes.set_yticks([0, 1], ["compute", "communication"])
    axes.set_xlabel("milliseconds")


def breakdown(result: Result) -> "Figure":
    """Draw where the time goes: of each pipeline rank where the result tells of them, or of their
    mean.
    """
    told = result.fact(PipelineRanks)
    means = {name: (mean,) for name, mean in result.breakdown_s.items()}
    by_rank: Mapping[str, tuple[float, ...]] = means if told is None else told.breakdown_s
    ranks = len(next(iter(by_rank.values())))
    figure, axes = plt.subplots(figsize=(9, 0.28 * ranks + 1.6))
    left = np.zeros(ranks)
    for name, color in phase_colors(result.phases).items():
        seconds = np.array(by_rank[name])
        if not seconds.any():
            continue
        label = f"{result.phases[name]}: {result.breakdown_s[name]:.2f} s"
        edge = WAITING if color == WHITE else color
        axes.barh(
            range(ranks), seconds, left=left, color=color, label=label, height=0.8, edgecolor=edge
        )
        left = left + seconds
    axes.set_ylim(ranks - 0.4, -0.6)
    axes.set_yticks(range(ranks), ["mean"] if told is None else None)
    axes.set_xlim(0, left.max())
    axes.set_ylabel("pipeline rank")
    axes.set_xlabel("seconds")
    decisive = result.metrics.headline[0]
    value = shown(result.numbers[decisive.name], decisive.unit)
    axes.set_title(
        f"{result.experiment['name']}: {decisive.title} {value}, and where the time goes "
        "(rank means in the legend)"
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
